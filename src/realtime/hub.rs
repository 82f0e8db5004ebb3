//! The topics that readers on this replica are reading.
//!
//! A topic is in the map while it has a reader. The first reader adds it and the last one removes it, both under the map's lock. So a new
//! reader can never get a topic that is being removed. Events that are published on a topic without readers are not kept: its next reader
//! starts from the log.
//!
//! A reader registers before it reads the database. So each commit after that read reaches the topic with which the reader is
//! registered, and the transition from replay to live events has no gap.

mod erasures;
mod followed;
mod loader;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU8};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::followed::FollowedTopics;
use super::event::{Encoder, Event};
use super::topic::TopicState;
use super::typing::{self, TypingTracker};
use crate::domain::{EventType, NewEvent, Seq, StateKind, StateUpdate, Time, Topic, UserId};
use crate::store::{Store, StoreError};

/// The largest number of topics whose heads are compared with one statement.
const CHECK_TOPICS: usize = 2_000;

/// All topics that have readers on this replica.
#[derive(Debug, Default)]
pub struct Hub {
    topics: Mutex<HashMap<Topic, TopicEntry>>,
    /// Topics whose ring ends before an event that is known to exist.
    behind: Mutex<BTreeSet<Topic>>,
    work: Notify,
    typing: TypingTracker,
    /// Notifies the typing task of a new typing indicator.
    typing_started: Notify,
    /// The last count of user erasures, and how many checks must still follow the last erasure.
    erasures: AtomicI64,
    checks_due: AtomicU8,
    followed: FollowedTopics,
}

#[derive(Debug)]
struct TopicEntry {
    state: Arc<TopicState>,
    readers: usize,
}

/// A reader's registration with a topic. The topic stays in the hub until the last guard is dropped.
#[derive(Debug)]
pub(super) struct TopicGuard {
    hub: Arc<Hub>,
    pub(super) state: Arc<TopicState>,
}

impl Hub {
    fn topics(&self) -> MutexGuard<'_, HashMap<Topic, TopicEntry>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a reader with a topic.
    pub(super) fn register(self: &Arc<Self>, topic: &Topic) -> TopicGuard {
        let mut topics = self.topics();
        let entry = topics
            .entry(topic.clone())
            .or_insert_with(|| TopicEntry { state: Arc::new(TopicState::new(topic.clone())), readers: 0 });
        entry.readers += 1;
        TopicGuard { hub: Arc::clone(self), state: Arc::clone(&entry.state) }
    }

    fn find(&self, topic: &Topic) -> Option<Arc<TopicState>> {
        self.topics().get(topic).map(|entry| Arc::clone(&entry.state))
    }

    /// Returns whether a topic has a reader.
    pub fn has_readers(&self, topic: &Topic) -> bool {
        self.topics().contains_key(topic)
    }

    /// Returns the number of topics that have readers.
    pub fn topic_count(&self) -> usize {
        self.topics().len()
    }

    /// Publishes events that were committed on this replica. The events of each topic are in order.
    pub fn publish(&self, events: &[NewEvent]) {
        let mut by_topic: HashMap<&Topic, Vec<&NewEvent>> = HashMap::new();
        events.iter().for_each(|event| by_topic.entry(&event.topic).or_default().push(event));
        let mut encoder = Encoder::default();
        for (topic, events) in by_topic {
            // Events are encoded only if the topic has a reader.
            let Some(state) = self.find(topic) else { continue };
            let encode = |event: &NewEvent| encoder.encode(event.seq, event.kind, &event.data, event.trace);
            if state.publish(events.into_iter().map(encode).collect()) {
                self.load_later(topic.clone());
            }
        }
    }

    /// Publishes the events of a batch on the feed, at the positions that the batch has assigned.
    pub fn publish_to_feed(&self, events: &[NewEvent], at: Time, position: impl Fn(&NewEvent) -> Option<Seq>) {
        let topic = Topic::feed();
        let Some(state) = self.find(&topic) else { return };
        let mut events: Vec<_> = events.iter().filter_map(|event| Some((position(event)?, event))).collect();
        events.sort_unstable_by_key(|(position, _)| *position);
        let encode = |(position, event): (Seq, &NewEvent)| Event::on_feed(position, event, at);
        if state.publish(events.into_iter().map(encode).collect()) {
            self.load_later(topic);
        }
    }

    /// Publishes a state update, which is not in the log.
    pub fn publish_update(&self, update: &StateUpdate) {
        if update.kind == EventType::TypingIndicator {
            self.typing.apply(update);
            self.typing_started.notify_one();
        }
        if self.find(&update.topic).is_some_and(|state| state.offer(update)) {
            self.load_later(update.topic.clone());
        }
    }

    /// Returns the update to publish when a user starts or stops typing, or `None` if nothing changes. `seq` is the head of the topic's
    /// log. `now` is the database's time, if the caller has it.
    pub fn typing_update(
        &self,
        topic: &Topic,
        user: &UserId,
        typing: bool,
        seq: Seq,
        now: Option<Time>,
    ) -> Option<StateUpdate> {
        let current = self.typing.version(topic, user);
        let is_change = if typing { self.typing.needs_update(topic, user) } else { current.is_some() };
        let (last_version, last_seq) = current.unwrap_or_default();
        let version = self.typing.next_version(now).max(last_version + 1);
        // Never before the update that it replaces: each user who received that one must receive this one.
        let seq = seq.max(last_seq);
        is_change.then(|| typing::to_update(topic.clone(), user.clone(), typing, seq, version))
    }

    /// Returns the users who are typing on a topic, if the log position of their indicator is `visible`.
    pub fn typing_users(&self, topic: &Topic, visible: impl Fn(Seq) -> bool) -> Vec<UserId> {
        self.typing.users_on(topic, visible)
    }

    /// Ends typing indicators that have expired, forever.
    pub async fn run_typing_expiry(&self) {
        loop {
            let (ended, next) = self.typing.remove_expired();
            ended.iter().for_each(|update| self.publish_update(update));
            let typing_started = self.typing_started.notified();
            match next {
                Some(next) => drop(tokio::time::timeout_at(next, typing_started).await),
                None => typing_started.await,
            }
        }
    }

    /// Notes heads of logs, as a hint reports them.
    pub fn hint(&self, heads: impl IntoIterator<Item = (Topic, Seq)>) {
        for (topic, seq) in heads {
            if topic.is_users() {
                self.observe_erasures(seq);
            } else if self.find(&topic).is_some_and(|state| state.hint(seq)) {
                self.load_later(topic);
            }
        }
    }

    fn load_later(&self, topic: Topic) {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).insert(topic);
        self.work.notify_one();
    }

    /// Compares every topic that has readers with its log. This finds events whose hint was lost. If a log ends before an event that was
    /// already read (a restored database), the topic's streams are ended.
    pub async fn check(&self, store: &Store) -> Result<(), StoreError> {
        let follows_erasure = self.begin_check();
        let checked = self.compare(store, follows_erasure).await;
        if checked.is_err() && follows_erasure {
            self.repeat_check();
        }
        checked
    }

    async fn compare(&self, store: &Store, follows_erasure: bool) -> Result<(), StoreError> {
        let states: Vec<_> = self.topics().values().map(|entry| Arc::clone(&entry.state)).collect();
        for part in states.chunks(CHECK_TOPICS) {
            // Taken before the database is asked. The database must have everything that was read by then.
            let ends: Vec<_> = part.iter().map(|state| state.end()).collect();
            let users = Topic::users();
            let names = part.iter().map(|state| state.name.as_str()).chain([users.as_str()]);
            let heads: HashMap<Topic, Seq> = store.heads(&names.collect::<Vec<_>>()).await?.into_iter().collect();
            let erasures = heads.get(&users).copied().unwrap_or(0);
            self.observe_erasures(erasures);
            for (state, end) in part.iter().zip(ends) {
                let head = match heads.get(&state.name) {
                    Some(head) => *head,
                    // The user topic does not exist, or the user was erased. A new log begins after this seq.
                    None if state.name.is_user() && end.is_some_and(|end| end <= erasures) => continue,
                    None => 0,
                };
                if end.is_some_and(|end| head < end) {
                    tracing::warn!(topic = %state.name, head, ?end, "topic lost events that were already read (restore or failover?); its readers start again");
                    self.reset(state);
                } else if state.hint(head) {
                    self.load_later(state.name.clone());
                }
            }
            if follows_erasure {
                self.drop_erased_updates(store, part).await?;
            }
            self.check_updates(store, part).await?;
        }
        Ok(())
    }

    /// Compares the state updates of the topics with the database.
    async fn check_updates(&self, store: &Store, part: &[Arc<TopicState>]) -> Result<(), StoreError> {
        let rides = || part.iter().filter(|state| state.name.ride_id().is_some());
        let cached: Vec<_> = rides().map(|state| (&state.name, state.version(StateKind::Location))).collect();
        store.newer_locations(&cached).await?.iter().for_each(|update| self.publish_update(update));
        let cached: Vec<_> = rides().map(|state| (&state.name, state.version_sum(StateKind::Presence))).collect();
        store.newer_presence(&cached).await?.iter().for_each(|update| self.publish_update(update));
        if let Some(drivers) = part.iter().find(|state| state.name == Topic::drivers()) {
            let newer = store.newer_drivers(drivers.version(StateKind::Availability)).await?;
            newer.iter().for_each(|update| self.publish_update(update));
        }
        Ok(())
    }

    /// Ends a topic. Its next reader starts from the database.
    fn reset(&self, state: &Arc<TopicState>) {
        let mut topics = self.topics();
        if topics.get(&state.name).is_some_and(|entry| Arc::ptr_eq(&entry.state, state)) {
            topics.remove(&state.name);
        }
        drop(topics);
        state.reset();
    }
}

impl TopicGuard {
    /// Notes the log's head, which the database returned after this guard was created.
    pub(super) fn observe(&self, head: Seq) {
        if self.state.observe(head) {
            self.hub.load_later(self.state.name.clone());
        }
    }
}

impl Drop for TopicGuard {
    fn drop(&mut self) {
        let mut topics = self.hub.topics();
        // After a reset, the name may belong to another state.
        let Some(entry) = topics.get_mut(&self.state.name).filter(|entry| Arc::ptr_eq(&entry.state, &self.state))
        else {
            return;
        };
        entry.readers -= 1;
        if entry.readers == 0 {
            topics.remove(&self.state.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventType, RideId};

    fn topic() -> Topic {
        Topic::ride(&RideId::parse("ride").unwrap())
    }

    fn event(seq: Seq) -> NewEvent {
        NewEvent { topic: topic(), seq, kind: EventType::MessageNew, data: "{}".into(), message: None, trace: None }
    }

    #[test]
    fn a_topic_without_readers_is_dropped_and_starts_again_from_the_log() {
        let hub = Arc::new(Hub::default());
        let (one, two) = (hub.register(&topic()), hub.register(&topic()));
        one.observe(1);
        drop(one);
        hub.publish(&[event(2)]);
        assert_eq!(two.state.end(), Some(2), "the second reader still has the topic");
        drop(two);
        assert_eq!(hub.topic_count(), 0);
        hub.publish(&[event(3)]);
        let again = hub.register(&topic());
        assert_eq!(again.state.end(), None, "the topic has no events from before");
        again.observe(3);
        hub.publish(&[event(4)]);
        assert_eq!(again.state.end(), Some(4));
    }

    #[test]
    fn a_guard_from_before_a_reset_does_not_count_for_the_new_topic() {
        let hub = Arc::new(Hub::default());
        let before = hub.register(&topic());
        hub.reset(&before.state);
        let after = hub.register(&topic());
        drop(before);
        assert_eq!(hub.topic_count(), 1);
        drop(after);
        assert_eq!(hub.topic_count(), 0);
    }
}
