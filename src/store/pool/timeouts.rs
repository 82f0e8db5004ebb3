//! How long statements may take: as Postgres is told, and as we wait.
//!
//! Postgres ends a statement before we give up on it. So it never works on what nobody waits for, the connection's state is
//! known and it stays in the pool; and where nothing is heard in time for all that, something is wrong with the connection.

use std::time::Duration;

/// The two, of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// How long we wait for a statement's response.
    pub(super) response: Duration,
    /// How long Postgres works on a statement (`statement_timeout`). It does not end a COMMIT, which is not a statement then:
    /// the time ends before the commit begins, so a commit that waits for a synchronous standby goes on.
    statement: Duration,
    /// How long a statement waits for each lock (`lock_timeout`).
    lock: Duration,
}

impl Timeouts {
    /// Where responses are waited for so long.
    pub(super) fn of(response: Duration) -> Self {
        Self { response, statement: response * 3 / 4, lock: response / 2 }
    }

    /// The same, where the statements themselves may take longer. Locks are waited for no longer than by others.
    pub(super) fn for_long_statements(self, response: Duration) -> Self {
        Self { lock: self.lock, ..Self::of(response) }
    }

    /// How long to wait for the response to a statement that does nothing.
    pub(super) fn probe(self) -> Duration {
        self.response / 4
    }

    /// As settings: `set` for a session's, `set local` for a transaction's.
    pub(super) fn settings(self, set: &str) -> String {
        let [statement, lock] = [self.statement, self.lock].map(milliseconds);
        format!("{set} statement_timeout = {statement}; {set} lock_timeout = {lock};")
    }
}

/// As Postgres takes it; 0 would be no limit.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_gives_up_before_we_do_and_on_locks_before_that() {
        let timeouts = Timeouts::of(Duration::from_secs(2));
        assert_eq!(timeouts.settings("set"), "set statement_timeout = 1500; set lock_timeout = 1000;");
        let long = timeouts.for_long_statements(Duration::from_secs(20));
        assert_eq!(long.settings("set local"), "set local statement_timeout = 15000; set local lock_timeout = 1000;");
    }

    #[test]
    fn no_limit_is_none() {
        let settings = |response| Timeouts::of(response).settings("set");
        assert_eq!(settings(Duration::ZERO), "set statement_timeout = 1; set lock_timeout = 1;");
        assert!(settings(Duration::from_secs(u64::from(u32::MAX))).contains("statement_timeout = 2147483647;"));
    }
}
