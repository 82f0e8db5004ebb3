//! Timeouts of statements, in Postgres and in this process.
//!
//! Postgres aborts a statement before this process stops waiting for it. So Postgres never works on a statement without
//! a caller, and the connection's state stays known. If there is still no response in time, the connection itself is at
//! fault.

use std::time::Duration;

/// The timeouts of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// How long this process waits for a statement's response.
    pub(super) response: Duration,
    /// `statement_timeout`. It does not apply to COMMIT, for which the timer is not running, so a commit that waits for
    /// a synchronous standby continues.
    statement: Duration,
    /// `lock_timeout`: how long a statement waits for each lock.
    lock: Duration,
}

impl Timeouts {
    /// Derives the timeouts from the response timeout.
    pub(super) fn of(response: Duration) -> Self {
        Self { response, statement: response * 3 / 4, lock: response / 2 }
    }

    /// Returns timeouts for statements that may take longer. The lock timeout stays the same.
    pub(super) fn for_long_statements(self, response: Duration) -> Self {
        Self { lock: self.lock, ..Self::of(response) }
    }

    /// Returns the timeout of a probe, which is a statement without work.
    pub(super) fn probe(self) -> Duration {
        self.response / 4
    }

    /// Formats them as settings: `set` for a session, `set local` for a transaction.
    pub(super) fn settings(self, set: &str) -> String {
        let [statement, lock] = [self.statement, self.lock].map(milliseconds);
        format!("{set} statement_timeout = {statement}; {set} lock_timeout = {lock};")
    }
}

/// Converts into Postgres' unit; at least 1, because 0 means no limit.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_timeout_is_shorter_than_the_response_timeout_and_lock_timeout_shorter_still() {
        let timeouts = Timeouts::of(Duration::from_secs(2));
        assert_eq!(timeouts.settings("set"), "set statement_timeout = 1500; set lock_timeout = 1000;");
        let long = timeouts.for_long_statements(Duration::from_secs(20));
        assert_eq!(long.settings("set local"), "set local statement_timeout = 15000; set local lock_timeout = 1000;");
    }

    #[test]
    fn a_timeout_is_never_zero() {
        let settings = |response| Timeouts::of(response).settings("set");
        assert_eq!(settings(Duration::ZERO), "set statement_timeout = 1; set lock_timeout = 1;");
        assert!(settings(Duration::from_secs(u64::from(u32::MAX))).contains("statement_timeout = 2147483647;"));
    }
}
