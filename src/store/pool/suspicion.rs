//! Connections that may be lost, because another one is.
//!
//! A network may forget connections and tell neither side. Where one is lost, by an error or by silence, each that has been
//! idle since before is tried before it is used again: those that answer stay. The first that does not is evidence against
//! all that have not been tried: those are closed, so that a network that has forgotten all costs one wait, not one for each.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Since when connections are not trusted.
#[derive(Debug, Default)]
pub(super) struct Suspicion(Mutex<Since>);

#[derive(Debug, Default, Clone, Copy)]
struct Since {
    suspected: Option<Instant>,
    condemned: Option<Instant>,
}

/// What is to be done with an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can be used.
    Trusted,
    /// It has to be tried first.
    Suspected,
    /// It is to be closed.
    Condemned,
}

impl Suspicion {
    /// A connection was lost.
    pub(super) fn raise(&self) {
        self.change(|since| since.suspected = Some(Instant::now()));
    }

    /// A suspected connection does not answer.
    pub(super) fn confirm(&self) {
        self.change(|since| since.condemned = since.suspected);
    }

    /// Of a connection that was last used, or tried, at `used`.
    pub(super) fn of(&self, used: Instant) -> Verdict {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if since.condemned.is_some_and(|condemned| used <= condemned) {
            Verdict::Condemned
        } else if since.suspected.is_some_and(|suspected| used <= suspected) {
            Verdict::Suspected
        } else {
            Verdict::Trusted
        }
    }

    fn change(&self, change: impl FnOnce(&mut Since)) {
        // A std lock: held for a moment, never across an await.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_has_the_others_tried_and_a_second_one_condemns_those_that_were_not() {
        let suspicion = Suspicion::default();
        let before = Instant::now();
        assert_eq!(suspicion.of(before), Verdict::Trusted);
        suspicion.raise();
        assert_eq!(suspicion.of(before), Verdict::Suspected);
        let tried = Instant::now();
        suspicion.confirm();
        assert_eq!((suspicion.of(before), suspicion.of(tried)), (Verdict::Condemned, Verdict::Trusted));
        suspicion.raise();
        assert_eq!((suspicion.of(before), suspicion.of(tried)), (Verdict::Condemned, Verdict::Suspected));
    }
}
