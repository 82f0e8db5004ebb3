//! Detection of lost idle connections.
//!
//! A network (a NAT or a firewall) may drop connections without notifying either side. When one connection is lost, by an error
//! or by a timeout, every connection that has been idle since before is probed before its next use. Connections that respond
//! stay. The first one that does not is evidence against all that have not been probed, and those are closed. So a network that
//! has dropped all connections costs one timeout, not one for each connection.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The health of the pool's idle connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionHealth(Mutex<Marks>);

#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    /// Connections last used until then are suspect.
    suspect_until: Option<Instant>,
    /// Connections last used until then are lost.
    lost_until: Option<Instant>,
}

/// The health of an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It can be used.
    Healthy,
    /// It must be probed first.
    Suspect,
    /// It must be closed.
    Lost,
}

impl ConnectionHealth {
    /// Records that a connection was lost: all connections that are idle now become suspect.
    pub(super) fn record_loss(&self) {
        self.change(|marks| marks.suspect_until = Some(Instant::now()));
    }

    /// Records that the probe of a suspect connection failed: all suspect connections become lost.
    pub(super) fn record_failed_probe(&self) {
        self.change(|marks| marks.lost_until = marks.suspect_until);
    }

    /// Returns the health of a connection that was last used or probed at `used`.
    pub(super) fn of(&self, used: Instant) -> Health {
        let marks = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.lost_until.is_some_and(|lost| used <= lost) {
            Health::Lost
        } else if marks.suspect_until.is_some_and(|suspect| used <= suspect) {
            Health::Suspect
        } else {
            Health::Healthy
        }
    }

    fn change(&self, change: impl FnOnce(&mut Marks)) {
        // A std lock with a small scope, never held across an await.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_makes_idle_ones_suspect_and_a_failed_probe_makes_them_lost() {
        let health = ConnectionHealth::default();
        let before = Instant::now();
        assert_eq!(health.of(before), Health::Healthy);
        health.record_loss();
        assert_eq!(health.of(before), Health::Suspect);
        let probed = Instant::now();
        health.record_failed_probe();
        assert_eq!((health.of(before), health.of(probed)), (Health::Lost, Health::Healthy));
        health.record_loss();
        assert_eq!((health.of(before), health.of(probed)), (Health::Lost, Health::Suspect));
    }
}
