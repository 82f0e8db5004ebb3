//! What the erasure of a user means for what is in memory here.
//!
//! The database is erased first; then the row `users` of `topics` grows, which counts erasures. A replica notices that by a hint, or
//! else by its next check. It does not know who was erased, and need not: it drops the recent events of all topics, since readers find
//! them in the log, and it asks the database which values of users are still there.
//!
//! - **A page that was read before** and arrives after: the topic's generation has grown meanwhile, so the page is read again.
//! - **An event that was committed here before** and is published late: the check is made twice, the second time with the next
//!   fallback.
//! - **The user's own topic** is dropped in the same way. If it is created again, its log begins behind a hole (`sql/users/erase.sql`),
//!   so the ring starts anew whatever was noticed.
//! - **A value that comes while the database is asked** is later than the one that was asked about, and stays.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Hub;
use crate::domain::{Seq, SignalKind, Topic, UserId};
use crate::realtime::topic::TopicState;
use crate::store::{Store, StoreError};

/// How many checks follow an erasure.
const CHECKS: u8 = 2;

/// Asks for all that there is, whatever version is known.
const ANY_VERSION: i64 = -1;

impl Hub {
    /// Notes how far erasures count. Any other number than before means that there was one, or that the database was restored.
    pub(super) fn note_erasures(&self, count: Seq) {
        if self.erasures.swap(count, Ordering::SeqCst) != count {
            self.checks_due.store(CHECKS, Ordering::SeqCst);
            self.drop_events();
        }
    }

    /// Whether this check is one that follows an erasure.
    pub(super) fn begin_check(&self) -> bool {
        let less = |due: u8| due.checked_sub(1);
        let is_due = self.checks_due.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        if is_due {
            self.drop_events();
        }
        is_due
    }

    /// Notes that such a check has failed.
    pub(super) fn repeat_check(&self) {
        self.checks_due.store(CHECKS, Ordering::SeqCst);
    }

    fn drop_events(&self) {
        let states: Vec<_> = self.topics().values().map(|held| Arc::clone(&held.state)).collect();
        states.iter().for_each(|state| state.drop_events());
    }

    /// Forgets values that the database no longer has.
    pub(super) async fn forget_erased_values(&self, store: &Store, part: &[Arc<TopicState>]) -> Result<(), StoreError> {
        for kind in [SignalKind::Location, SignalKind::Presence] {
            let known = part.iter().filter(|state| state.name.ride_id().is_some());
            let known: Vec<_> = known.map(|state| (state, state.versions(kind))).collect();
            let known: Vec<_> = known.into_iter().filter(|(_, values)| !values.is_empty()).collect();
            let topics: Vec<_> = known.iter().map(|(state, _)| (&state.name, ANY_VERSION)).collect();
            let there = match kind {
                SignalKind::Location => store.newer_locations(&topics).await?,
                _ => store.newer_presence(&topics).await?,
            };
            let there: HashSet<(&Topic, &UserId)> = there.iter().map(|signal| (&signal.topic, &signal.user)).collect();
            for (state, values) in &known {
                let gone = values.iter().filter(|(user, _)| !there.contains(&(&state.name, user)));
                gone.for_each(|(user, version)| state.forget_value(kind, user, *version));
            }
        }
        let Some(drivers) = part.iter().find(|state| state.name == Topic::drivers()) else { return Ok(()) };
        let known = drivers.versions(SignalKind::Availability);
        let users: Vec<_> = known.iter().map(|(user, _)| user.clone()).collect();
        let there: HashSet<_> = store.known_drivers(&users).await?.into_iter().collect();
        let gone = known.iter().filter(|(user, _)| !there.contains(user));
        gone.for_each(|(user, version)| drivers.forget_value(SignalKind::Availability, user, *version));
        Ok(())
    }
}
