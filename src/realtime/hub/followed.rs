//! The topics whose values the other replicas send to this one: those that have readers here.
//!
//! The sender of a value (a location, presence or an availability) reads the list of followers after it has committed the value. A reader
//! registers its topic before it reads the topic's values from the database. So either the reader finds the value there, or the sender
//! finds the reader's replica in the list. No order of the two loses the value.
//!
//! A registration that fails does not stop the reader. It is repeated, and the topics are then compared with the database. Until then, the
//! fallback poll finds their values.
//!
//! A topic is unregistered some seconds after its last reader has left, because the next poll often comes to the same replica. A topic that
//! is registered again meanwhile gets a later generation, so an unregistration that arrives late does not remove it.
//!
//! A registration is valid while this replica's lease is (`presence`). Under a new lease, all topics that have readers are registered again.
//! Then they are compared with the database, because no values were sent meanwhile.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::Hub;
use crate::domain::Topic;
use crate::store::{FollowerKey, Store, StoreError};

/// The time between two searches for topics without readers. A topic that is found twice is unregistered.
const SEARCH_PERIOD: Duration = Duration::from_secs(5);

/// The maximum number of topics in one statement.
const CHUNK: usize = 1_000;

/// The number of registrations, of all replicas, that one search checks for an expired lease.
const CHECK_LIMIT: i64 = 1_000;

/// How long to wait before failed registrations are repeated.
const PAUSE: Duration = Duration::from_millis(500);

/// The registrations of this replica.
#[derive(Debug, Default)]
pub(super) struct FollowedTopics {
    registrations: Mutex<Registrations>,
    /// Notified when a registration has failed.
    failed: Notify,
}

#[derive(Debug, Default)]
struct Registrations {
    /// The lease, or `None` if the other replicas cannot send values to this one.
    lease: Option<Uuid>,
    topics: HashMap<Topic, Registration>,
    /// Grows with each search for topics without readers.
    generation: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Registration {
    /// Whether the topic is in the database's list. Otherwise it may be.
    is_confirmed: bool,
    /// Whether no reader has opened the topic since the last search, which found none.
    is_idle: bool,
}

impl FollowedTopics {
    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lease and the generation of a new registration, or `None` if the topic is registered or cannot be.
    fn begin(&self, topic: &Topic) -> Option<(Uuid, i64)> {
        let mut registrations = self.registrations();
        let (lease, generation) = (registrations.lease?, registrations.generation);
        let registration = registrations.topics.entry(topic.clone()).or_default();
        registration.is_idle = false;
        (!registration.is_confirmed).then_some((lease, generation))
    }

    /// Notes that topics are in the list, if the lease is still the same.
    fn confirm(&self, lease: Uuid, topics: impl IntoIterator<Item = Topic>) {
        let mut registrations = self.registrations();
        if registrations.lease == Some(lease) {
            for topic in topics {
                registrations.topics.entry(topic).or_default().is_confirmed = true;
            }
        }
    }

    /// Forgets all registrations if the lease is another one.
    fn change_lease(&self, lease: Option<Uuid>) {
        let mut registrations = self.registrations();
        if registrations.lease != lease {
            registrations.lease = lease;
            registrations.topics.clear();
        }
    }
}

impl Hub {
    /// Registers a topic, unless it is registered. The caller has registered its reader with the hub, and has not read the topic's values yet.
    pub(in crate::realtime) async fn follow(&self, store: &Store, topic: &Topic) {
        if !topic.has_values() {
            return;
        }
        let Some((lease, generation)) = self.followed.begin(topic) else { return };
        match store.follow(lease, topic.clone(), generation).await {
            Ok(()) => self.followed.confirm(lease, [topic.clone()]),
            Err(error) => {
                tracing::debug!(%error, %topic, "topic could not be registered");
                self.followed.failed.notify_one();
            }
        }
    }

    /// Keeps the registrations in line with the topics that have readers, forever. `lease` is the current lease of this replica.
    pub async fn run_following(&self, store: Arc<Store>, mut lease: watch::Receiver<Option<Uuid>>) {
        let mut search_at = Instant::now() + SEARCH_PERIOD;
        let mut expired_after = FollowerKey::default();
        let mut is_complete = false;
        loop {
            if !is_complete {
                self.followed.change_lease(*lease.borrow_and_update());
                match self.register_missing(&store).await {
                    Ok(()) => is_complete = true,
                    Err(error) => tracing::debug!(%error, "topics could not be registered, retrying"),
                }
            }
            let now = Instant::now();
            if search_at <= now {
                search_at = now + SEARCH_PERIOD;
                self.unregister_idle(&store).await;
                expired_after = remove_expired(&store, expired_after).await;
            }
            let next = if is_complete { search_at } else { search_at.min(now + PAUSE) };
            tokio::select! {
                changed = lease.changed() => match changed {
                    Ok(()) => is_complete = false,
                    Err(_) => return,
                },
                () = self.followed.failed.notified(), if is_complete => is_complete = false,
                () = sleep_until(next) => {}
            }
        }
    }

    /// Registers all topics that have readers and are not registered, and compares the topics with the database.
    async fn register_missing(&self, store: &Store) -> Result<(), StoreError> {
        let mut missing: Vec<_> = self.topics().keys().filter(|topic| topic.has_values()).cloned().collect();
        let (lease, generation) = {
            let registrations = self.followed.registrations();
            let Some(lease) = registrations.lease else { return Ok(()) };
            missing
                .retain(|topic| !registrations.topics.get(topic).is_some_and(|registration| registration.is_confirmed));
            (lease, registrations.generation)
        };
        if missing.is_empty() {
            return Ok(());
        }
        for chunk in missing.chunks(CHUNK) {
            store.follow_all(lease, chunk, generation).await?;
            self.followed.confirm(lease, chunk.iter().cloned());
        }
        self.check(store).await
    }

    async fn unregister_idle(&self, store: &Store) {
        let Some((lease, idle, generation)) = self.take_idle() else { return };
        for chunk in idle.chunks(CHUNK) {
            if let Err(error) = store.unfollow(lease, chunk, generation).await {
                tracing::debug!(%error, topics = chunk.len(), "topics could not be unregistered, retrying");
                self.keep_idle(lease, chunk);
            }
        }
    }

    /// Takes the topics that had no readers at the last search and have none now. From then on, a new reader registers them again, under a
    /// later generation.
    fn take_idle(&self) -> Option<(Uuid, Vec<Topic>, i64)> {
        let mut registrations = self.followed.registrations();
        let lease = registrations.lease?;
        let topics = self.topics();
        let mut idle = Vec::new();
        registrations.topics.retain(|topic, registration| {
            let was_idle = std::mem::replace(&mut registration.is_idle, !topics.contains_key(topic));
            let is_kept = !(was_idle && registration.is_idle);
            if !is_kept {
                idle.push(topic.clone());
            }
            is_kept
        });
        let generation = registrations.generation;
        registrations.generation += 1;
        Some((lease, idle, generation))
    }

    /// Notes topics that may still be in the list, for the next search. Those that were registered again meanwhile stay as they are.
    fn keep_idle(&self, lease: Uuid, topics: &[Topic]) {
        let mut registrations = self.followed.registrations();
        if registrations.lease != Some(lease) {
            return;
        }
        for topic in topics {
            if let Entry::Vacant(entry) = registrations.topics.entry(topic.clone()) {
                entry.insert(Registration { is_confirmed: false, is_idle: true });
            }
        }
    }
}

/// Removes some registrations of replicas that have no lease any more. Returns where the next search continues.
async fn remove_expired(store: &Store, after: FollowerKey) -> FollowerKey {
    match store.remove_expired_followers(&after, CHECK_LIMIT).await {
        Ok(last) => last.unwrap_or_default(),
        Err(error) => {
            tracing::debug!(%error, "expired registrations could not be removed, retrying");
            after
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RideId;

    fn topic() -> Topic {
        Topic::ride(&RideId::parse("ride").unwrap())
    }

    /// A hub with a lease.
    fn hub() -> (Arc<Hub>, Uuid) {
        let (hub, lease) = (Arc::new(Hub::default()), Uuid::now_v7());
        assert!(hub.take_idle().is_none() && hub.followed.begin(&topic()).is_none(), "no lease");
        hub.followed.change_lease(Some(lease));
        (hub, lease)
    }

    fn idle(hub: &Hub) -> Vec<Topic> {
        hub.take_idle().unwrap().1
    }

    #[test]
    fn a_topic_is_unregistered_when_two_searches_have_found_no_reader() {
        let (hub, lease) = hub();
        let reader = hub.register(&topic());
        assert!(hub.followed.begin(&topic()).is_some());
        hub.followed.confirm(lease, [topic()]);
        assert!(hub.followed.begin(&topic()).is_none(), "it is registered");
        assert_eq!([idle(&hub), idle(&hub)].concat(), []);
        drop(reader);
        assert_eq!(idle(&hub), []);
        assert!(hub.followed.begin(&topic()).is_none(), "a poll comes and goes");
        assert_eq!(idle(&hub), []);
        assert_eq!(idle(&hub), [topic()]);
        assert!(hub.followed.begin(&topic()).is_some(), "it must be registered again");
    }

    #[test]
    fn a_registration_without_an_outcome_is_repeated_and_at_the_end_removed() {
        let (hub, lease) = hub();
        assert!(hub.followed.begin(&topic()).is_some(), "its future is dropped");
        assert!(hub.followed.begin(&topic()).is_some(), "it may be missing in the list");
        assert_eq!([idle(&hub), idle(&hub)].concat(), [topic()], "it may be in the list");
        hub.keep_idle(lease, &[topic()]);
        assert_eq!(idle(&hub), [topic()], "the removal is repeated");
    }

    #[test]
    fn a_registration_under_an_earlier_lease_is_not_confirmed() {
        let (hub, lease) = hub();
        let (_, before) = hub.followed.begin(&topic()).unwrap();
        hub.followed.change_lease(Some(Uuid::now_v7()));
        hub.followed.confirm(lease, [topic()]);
        hub.keep_idle(lease, &[topic()]);
        assert!(hub.followed.registrations().topics.is_empty());
        idle(&hub);
        let (_, after) = hub.followed.begin(&topic()).unwrap();
        assert!(after > before, "a removal by the search does not remove it");
    }
}
