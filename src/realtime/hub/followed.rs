//! The topics whose values the other replicas send to this one: those that have readers here.
//!
//! The sender of a value (a location, presence or an availability) reads the list of followers after it has committed the value. A reader
//! registers its topic before it reads the topic's values from the database. So either the reader finds the value there, or the sender
//! finds the reader's replica in the list. No order of the two loses the value.
//!
//! A topic is unregistered some seconds after its last reader has left, because the next poll often comes to the same replica. A topic that
//! is registered again meanwhile gets a later generation, so an unregistration that arrives late does not remove it.
//!
//! A registration is valid while this replica's lease is (`presence`). Under a new lease, all topics that have readers are registered again.
//! Then they are compared with the database, because no values were sent meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::Hub;
use crate::domain::Topic;
use crate::store::{Store, StoreError};

/// The time between two searches for topics without readers. A topic that is found twice is unregistered.
const SEARCH_PERIOD: Duration = Duration::from_secs(5);

/// The maximum number of topics in one statement.
const CHUNK: usize = 1_000;

/// How long to wait before a failed database call is retried.
const PAUSE: Duration = Duration::from_millis(500);

/// The registered topics of this replica.
#[derive(Debug, Default)]
pub(super) struct FollowedTopics(Mutex<Registered>);

#[derive(Debug, Default)]
struct Registered {
    /// The lease, or `None` if the other replicas cannot send values to this one.
    lease: Option<Uuid>,
    /// Whether the last search found the topic without readers.
    topics: HashMap<Topic, bool>,
    /// Grows with each unregistration.
    generation: i64,
}

impl FollowedTopics {
    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes topics that were registered, if the lease is still the same.
    fn note(&self, lease: Uuid, topics: impl IntoIterator<Item = Topic>) {
        let mut registered = self.registered();
        if registered.lease == Some(lease) {
            registered.topics.extend(topics.into_iter().map(|topic| (topic, false)));
        }
    }
}

impl Hub {
    /// Registers a topic, unless it is registered. The caller has registered its reader with the hub, and has not read the topic's values yet.
    pub(in crate::realtime) async fn follow(&self, store: &Store, topic: &Topic) -> Result<(), StoreError> {
        if !topic.has_values() {
            return Ok(());
        }
        let (lease, generation) = {
            let registered = self.followed.registered();
            match registered.lease {
                Some(lease) if !registered.topics.contains_key(topic) => (lease, registered.generation),
                _ => return Ok(()),
            }
        };
        store.follow(lease, topic.clone(), generation).await?;
        self.followed.note(lease, [topic.clone()]);
        Ok(())
    }

    /// Keeps the registrations in line with the topics that have readers, forever. `lease` is the current lease of this replica.
    pub async fn run_following(&self, store: Arc<Store>, mut lease: watch::Receiver<Option<Uuid>>) {
        loop {
            let current = *lease.borrow_and_update();
            if let Err(error) = self.register_all(&store, current).await {
                tracing::debug!(%error, "topics could not be registered, retrying");
                sleep(PAUSE).await;
                continue;
            }
            loop {
                tokio::select! {
                    changed = lease.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = sleep(SEARCH_PERIOD) => {}
                }
                if let Err(error) = self.unregister_idle(&store).await {
                    tracing::debug!(%error, "topics could not be unregistered; they stay until the lease ends");
                }
            }
        }
    }

    /// Registers all topics that have readers under a new lease.
    async fn register_all(&self, store: &Store, lease: Option<Uuid>) -> Result<(), StoreError> {
        let generation = {
            let mut registered = self.followed.registered();
            registered.lease = lease;
            registered.topics.clear();
            registered.generation
        };
        let Some(lease) = lease else { return Ok(()) };
        store.remove_expired_followers().await?;
        let topics: Vec<_> = self.topics().keys().filter(|topic| topic.has_values()).cloned().collect();
        for chunk in topics.chunks(CHUNK) {
            store.follow_all(lease, chunk, generation).await?;
            self.followed.note(lease, chunk.iter().cloned());
        }
        if topics.is_empty() { Ok(()) } else { self.check(store).await }
    }

    async fn unregister_idle(&self, store: &Store) -> Result<(), StoreError> {
        let Some((lease, idle, generation)) = self.take_idle() else { return Ok(()) };
        for chunk in idle.chunks(CHUNK) {
            store.unfollow(lease, chunk, generation).await?;
        }
        Ok(())
    }

    /// Takes the topics that had no readers at the last search and have none now. From then on, a new reader registers them again, under a
    /// later generation.
    fn take_idle(&self) -> Option<(Uuid, Vec<Topic>, i64)> {
        let mut registered = self.followed.registered();
        let lease = registered.lease?;
        let mut idle = Vec::new();
        registered.topics.retain(|topic, was_idle| {
            let is_idle = !self.has_readers(topic);
            let is_kept = !(is_idle && std::mem::replace(was_idle, is_idle));
            if !is_kept {
                idle.push(topic.clone());
            }
            is_kept
        });
        let generation = registered.generation;
        registered.generation += 1;
        Some((lease, idle, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RideId;

    fn topic() -> Topic {
        Topic::ride(&RideId::parse("ride").unwrap())
    }

    #[test]
    fn a_topic_is_unregistered_when_two_searches_have_found_no_reader() {
        let (hub, lease) = (Arc::new(Hub::default()), Uuid::now_v7());
        assert!(hub.take_idle().is_none(), "no lease");
        hub.followed.registered().lease = Some(lease);
        let reader = hub.register(&topic());
        hub.followed.note(lease, [topic()]);
        let idle = || hub.take_idle().unwrap().1;
        assert_eq!([idle(), idle()].concat(), []);
        drop(reader);
        assert_eq!(idle(), []);
        let reader = hub.register(&topic());
        assert_eq!(idle(), [], "a poll has come");
        drop(reader);
        assert_eq!(idle(), []);
        assert_eq!(idle(), [topic()]);
        assert_eq!(idle(), []);
    }

    #[test]
    fn a_registration_under_an_earlier_lease_is_not_noted() {
        let hub = Hub::default();
        hub.followed.registered().lease = Some(Uuid::now_v7());
        hub.followed.note(Uuid::now_v7(), [topic()]);
        assert!(hub.followed.registered().topics.is_empty());
    }

    #[test]
    fn a_topic_that_is_registered_again_has_a_later_generation_than_its_unregistration() {
        let hub = Hub::default();
        hub.followed.registered().lease = Some(Uuid::now_v7());
        let (_, _, removed) = hub.take_idle().unwrap();
        assert!(hub.followed.registered().generation > removed);
    }
}
