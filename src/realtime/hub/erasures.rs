//! The effect of a user's erasure on this replica's memory.
//!
//! The database is erased first. Then the seq of the topic `users`, which counts erasures, grows. A replica notices that
//! through a hint, or at its next check. It does not learn which user was erased. It drops the recent events of all topics, because readers
//! find them in the log. It then asks the database which users' state still exists.
//!
//! - **A page that was read before the erasure** and arrives after it: the topic's generation has grown, so the page is read again.
//! - **An event that was committed here before the erasure** and is published late: the check runs twice, the second time with the next
//!   fallback poll.
//! - **The user's own topic** is dropped like the others. If it is created again, its log begins after a gap (`sql/users/erase.sql`),
//!   so the ring starts again in every case.
//! - **A state update that arrives while the database is asked** is newer than the one that was asked about, and stays.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Hub;
use crate::domain::{Seq, StateKind, Topic, UserId};
use crate::realtime::topic::TopicState;
use crate::store::{Store, StoreError};

/// How many checks follow an erasure.
const CHECKS: u8 = 2;

/// A version that is older than every stored version, so that the query returns all rows.
const ANY_VERSION: i64 = -1;

impl Hub {
    /// Notes the count of erasures. A changed count means that a user was erased, or that the database was restored.
    pub(super) fn observe_erasures(&self, count: Seq) {
        if self.erasures.swap(count, Ordering::SeqCst) != count {
            self.checks_due.store(CHECKS, Ordering::SeqCst);
            self.drop_events();
        }
    }

    /// Returns whether this check is one that follows an erasure.
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
        let states: Vec<_> = self.topics().values().map(|entry| Arc::clone(&entry.state)).collect();
        states.iter().for_each(|state| state.drop_events());
    }

    /// Drops cached state that the database no longer has.
    pub(super) async fn drop_erased_updates(&self, store: &Store, part: &[Arc<TopicState>]) -> Result<(), StoreError> {
        for kind in [StateKind::Location, StateKind::Presence] {
            let cached = part.iter().filter(|state| state.name.ride_id().is_some());
            let cached: Vec<_> = cached.map(|state| (state, state.versions(kind))).collect();
            let cached: Vec<_> = cached.into_iter().filter(|(_, versions)| !versions.is_empty()).collect();
            let topics: Vec<_> = cached.iter().map(|(state, _)| (&state.name, ANY_VERSION)).collect();
            let stored = match kind {
                StateKind::Location => store.newer_locations(&topics).await?,
                _ => store.newer_presence(&topics).await?,
            };
            let existing: HashSet<(&Topic, &UserId)> =
                stored.iter().map(|update| (&update.topic, &update.user)).collect();
            for (state, versions) in &cached {
                let gone = versions.iter().filter(|(user, _)| !existing.contains(&(&state.name, user)));
                gone.for_each(|(user, version)| state.drop_update(kind, user, *version));
            }
        }
        let Some(drivers) = part.iter().find(|state| state.name == Topic::drivers()) else { return Ok(()) };
        let cached = drivers.versions(StateKind::Availability);
        let users: Vec<_> = cached.iter().map(|(user, _)| user.clone()).collect();
        let existing: HashSet<_> = store.existing_drivers(&users).await?.into_iter().collect();
        let gone = cached.iter().filter(|(user, _)| !existing.contains(user));
        gone.for_each(|(user, version)| drivers.drop_update(StateKind::Availability, user, *version));
        Ok(())
    }
}
