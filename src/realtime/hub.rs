//! The topics that somebody here is reading.
//!
//! A topic is in the map while it has a reader: taken up by the first, dropped with the last, both under the
//! map's lock, so a topic that is being dropped cannot be the one that a new reader gets. What is published for a
//! topic that nobody reads is not kept: its next reader begins from the log.
//!
//! Readers register before they look at the database. So whatever is committed after their look reaches the topic
//! they are registered with, and replay and live join without a seam.

mod erasures;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU8};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::event::Encoder;
use super::topic::{Missing, TopicState};
use super::typing::{self, Typing};
use super::{Event, Heard, Heeding};
use crate::domain::{EventType, NewEvent, Seq, Signal, SignalKind, Time, Topic, UserId};
use crate::store::{PageRequest, Store, StoreError, StoredEvent};

/// The most events of one topic, and the most topics, that the loader reads in one statement.
const LOAD_EVENTS: i64 = 100;
const LOAD_TOPICS: usize = 500;

/// The most topics whose heads are compared in one statement.
const CHECK_TOPICS: usize = 2_000;

/// How long the loader waits before it asks a database again that has failed it.
const LOAD_PAUSE: Duration = Duration::from_millis(200);

/// All topics that are being read on this replica.
#[derive(Debug, Default)]
pub struct Hub {
    topics: Mutex<HashMap<Topic, Held>>,
    /// Topics whose ring ends before what is known to exist.
    behind: Mutex<BTreeSet<Topic>>,
    work: Notify,
    typing: Typing,
    /// Somebody has begun to type.
    typed: Notify,
    /// How far erasures of users count, and how many checks follow the last one.
    erasures: AtomicI64,
    checks_due: AtomicU8,
}

#[derive(Debug)]
struct Held {
    state: Arc<TopicState>,
    readers: usize,
}

/// A reader's hold on a topic.
#[derive(Debug)]
pub(super) struct Hold {
    hub: Arc<Hub>,
    pub(super) state: Arc<TopicState>,
}

impl Hub {
    fn topics(&self) -> MutexGuard<'_, HashMap<Topic, Held>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a reader.
    pub(super) fn hold(self: &Arc<Self>, topic: &Topic) -> Hold {
        let mut topics = self.topics();
        let held = topics
            .entry(topic.clone())
            .or_insert_with(|| Held { state: Arc::new(TopicState::new(topic.clone())), readers: 0 });
        held.readers += 1;
        Hold { hub: Arc::clone(self), state: Arc::clone(&held.state) }
    }

    fn find(&self, topic: &Topic) -> Option<Arc<TopicState>> {
        self.topics().get(topic).map(|held| Arc::clone(&held.state))
    }

    /// Whether a topic has a reader.
    pub fn is_read(&self, topic: &Topic) -> bool {
        self.topics().contains_key(topic)
    }

    /// How many topics are being read.
    pub fn topics_read(&self) -> usize {
        self.topics().len()
    }

    /// Hands on what was committed on this replica; each topic's events in order.
    pub fn publish(&self, events: &[NewEvent]) {
        let mut by_topic: HashMap<&Topic, Vec<&NewEvent>> = HashMap::new();
        events.iter().for_each(|event| by_topic.entry(&event.topic).or_default().push(event));
        let mut encoder = Encoder::default();
        for (topic, events) in by_topic {
            // Encoded only where somebody reads.
            let Some(state) = self.find(topic) else { continue };
            let encode = |event: &NewEvent| encoder.encode(event.seq, event.kind, &event.data, event.trace);
            if state.publish(events.into_iter().map(encode).collect()) {
                self.load_later(topic.clone());
            }
        }
    }

    /// Hands on a value that is told and not logged.
    pub fn offer(&self, signal: &Signal) {
        if signal.kind == EventType::TypingIndicator {
            self.typing.hear(signal);
            self.typed.notify_one();
        }
        if self.find(&signal.topic).is_some_and(|state| state.offer(signal)) {
            self.load_later(signal.topic.clone());
        }
    }

    /// What is to be told when somebody types, or stops: nothing, where that is known. `seq` is the head of the
    /// topic's log; `now` is the database's time, where the caller knows it.
    pub fn typing(&self, topic: &Topic, user: &UserId, types: bool, seq: Seq, now: Option<Time>) -> Option<Signal> {
        let known = self.typing.version(topic, user);
        let is_news = if types { self.typing.is_news(topic, user) } else { known.is_some() };
        let (last_version, last_seq) = known.unwrap_or_default();
        let version = self.typing.next_version(now).max(last_version + 1);
        // Never before what it replaces: whoever was told of that is to be told of this.
        let seq = seq.max(last_seq);
        is_news.then(|| typing::signal(topic.clone(), user.clone(), types, seq, version))
    }

    /// Who is typing on a topic, as far as that was true at a place of its log which is `visible`.
    pub fn typists(&self, topic: &Topic, visible: impl Fn(Seq) -> bool) -> Vec<UserId> {
        self.typing.on(topic, visible)
    }

    /// Ends the typing of those who have not said it again, for ever.
    pub async fn run_typing(&self) {
        loop {
            let (ended, next) = self.typing.end_overdue();
            ended.iter().for_each(|signal| self.offer(signal));
            let typed = self.typed.notified();
            match next {
                Some(next) => drop(tokio::time::timeout_at(next, typed).await),
                None => typed.await,
            }
        }
    }

    /// Notes where logs are said to end.
    pub fn hint(&self, heads: impl IntoIterator<Item = (Topic, Seq)>) {
        for (topic, seq) in heads {
            if topic.is_users() {
                self.note_erasures(seq);
            } else if self.find(&topic).is_some_and(|state| state.hint(seq)) {
                self.load_later(topic);
            }
        }
    }

    fn load_later(&self, topic: Topic) {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).insert(topic);
        self.work.notify_one();
    }

    /// Reads what is missing, for ever: the next page of many topics in one statement, once for all readers.
    pub async fn run_loader(&self, store: Arc<Store>, heeding: Arc<Heeding>) {
        loop {
            self.work.notified().await;
            loop {
                let Some(behind) = self.take_behind() else { break };
                if let Err(error) = self.load(&store, &behind, &heeding).await {
                    tracing::debug!(%error, topics = behind.len(), "the log cannot be read now");
                    behind.into_iter().for_each(|(state, _)| self.load_later(state.name.clone()));
                    tokio::time::sleep(LOAD_PAUSE).await;
                }
            }
        }
    }

    /// Some of the topics that are behind, and what they miss; `None` when there are no more.
    fn take_behind(&self) -> Option<Vec<(Arc<TopicState>, Missing)>> {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = BTreeSet::new();
        while taken.len() < LOAD_TOPICS
            && let Some(topic) = behind.pop_first()
        {
            taken.insert(topic);
        }
        drop(behind);
        if taken.is_empty() {
            return None;
        }
        // A topic that nobody reads any more needs nothing.
        let found = taken.iter().filter_map(|topic| self.find(topic));
        Some(found.filter_map(|state| state.missing().map(|missing| (state, missing))).collect())
    }

    async fn load(
        &self,
        store: &Store,
        behind: &[(Arc<TopicState>, Missing)],
        heeding: &Heeding,
    ) -> Result<(), StoreError> {
        let asked = Instant::now();
        let request = |(state, missing): &(Arc<TopicState>, Missing)| PageRequest {
            topic: state.name.clone(),
            after: missing.after,
            limit: LOAD_EVENTS,
        };
        let pages = store.pages(behind.iter().map(request).collect()).await?;
        let (empty, found): (Vec<_>, Vec<_>) = behind.iter().zip(pages).partition(|(_, page)| page.is_empty());
        let mut encoder = Encoder::default();
        for ((state, missing), page) in found {
            heeding.heed(Heard::Events { topic: &state.name, after: missing.after, events: &page, asked });
            self.fill(state, *missing, page, &mut encoder);
        }
        if empty.is_empty() {
            return Ok(());
        }
        // Nothing there: retention has taken it, or a hint has said too much. The log's own head tells, and what
        // it says is there by now is there in a look after it.
        let names: Vec<_> = empty.iter().map(|((state, _), _)| state.name.as_str()).collect();
        let heads: HashMap<Topic, Seq> = store.heads(&names).await?.into_iter().collect();
        let head_of = |state: &TopicState| heads.get(&state.name).copied().unwrap_or(0);
        let mut again = Vec::new();
        for (behind, _) in empty {
            let (state, missing) = behind;
            let head = head_of(state);
            if head > missing.after {
                again.push((Arc::clone(state), Missing { up_to: head, ..*missing }));
            } else {
                state.doubt(*missing);
            }
        }
        let pages = store.pages(again.iter().map(request).collect()).await?;
        for ((state, missing), page) in again.iter().zip(pages) {
            self.fill(state, *missing, page, &mut encoder);
        }
        Ok(())
    }

    fn fill(&self, state: &TopicState, missing: Missing, page: Vec<StoredEvent>, encoder: &mut Encoder) {
        // The feed is one topic, so its events share nothing, and their frames have ids.
        let encode = |event: StoredEvent| match state.name.is_feed() {
            true => Event::from(event),
            false => encoder.encode(event.seq, event.kind, &event.data, event.trace),
        };
        if state.fill(missing, page.into_iter().map(encode).collect()) {
            self.load_later(state.name.clone());
        }
    }

    /// Compares every topic that is being read with its log: what no hint has told is found here, and a log that
    /// ends before what was already read (a restored database) ends its streams.
    pub async fn check(&self, store: &Store) -> Result<(), StoreError> {
        let follows_erasure = self.begin_check();
        let checked = self.compare(store, follows_erasure).await;
        if checked.is_err() && follows_erasure {
            self.repeat_check();
        }
        checked
    }

    async fn compare(&self, store: &Store, follows_erasure: bool) -> Result<(), StoreError> {
        let held: Vec<_> = self.topics().values().map(|held| Arc::clone(&held.state)).collect();
        for part in held.chunks(CHECK_TOPICS) {
            // Taken before the database is asked: whatever had been read by then, it must know.
            let ends: Vec<_> = part.iter().map(|state| state.end()).collect();
            let users = Topic::users();
            let names = part.iter().map(|state| state.name.as_str()).chain([users.as_str()]);
            let heads: HashMap<Topic, Seq> = store.heads(&names.collect::<Vec<_>>()).await?.into_iter().collect();
            let erasures = heads.get(&users).copied().unwrap_or(0);
            self.note_erasures(erasures);
            for (state, end) in part.iter().zip(ends) {
                let head = match heads.get(&state.name) {
                    Some(head) => *head,
                    // Nothing was told to the user, or the user was erased: the next log begins after this.
                    None if state.name.is_user() && end.is_some_and(|end| end <= erasures) => continue,
                    None => 0,
                };
                if end.is_some_and(|end| head < end) {
                    tracing::warn!(topic = %state.name, head, ?end, "a log ends before what was read: restored?");
                    self.reset(state);
                } else if state.hint(head) {
                    self.load_later(state.name.clone());
                }
            }
            if follows_erasure {
                self.forget_erased_values(store, part).await?;
            }
            self.check_values(store, part).await?;
        }
        Ok(())
    }

    /// The same for what is told and not logged.
    async fn check_values(&self, store: &Store, part: &[Arc<TopicState>]) -> Result<(), StoreError> {
        let rides = || part.iter().filter(|state| state.name.ride_id().is_some());
        let known: Vec<_> = rides().map(|state| (&state.name, state.version(SignalKind::Location))).collect();
        store.newer_locations(&known).await?.iter().for_each(|signal| self.offer(signal));
        let known: Vec<_> = rides().map(|state| (&state.name, state.total(SignalKind::Presence))).collect();
        store.newer_presence(&known).await?.iter().for_each(|signal| self.offer(signal));
        if let Some(drivers) = part.iter().find(|state| state.name == Topic::drivers()) {
            let newer = store.newer_drivers(drivers.version(SignalKind::Availability)).await?;
            newer.iter().for_each(|signal| self.offer(signal));
        }
        Ok(())
    }

    /// Ends a topic. Who comes next starts from the database.
    fn reset(&self, state: &Arc<TopicState>) {
        let mut topics = self.topics();
        if topics.get(&state.name).is_some_and(|held| Arc::ptr_eq(&held.state, state)) {
            topics.remove(&state.name);
        }
        drop(topics);
        state.reset();
    }
}

impl Hold {
    /// Says where the log ends, as the database has told since this hold began.
    pub(super) fn observe(&self, head: Seq) {
        if self.state.observe(head) {
            self.hub.load_later(self.state.name.clone());
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut topics = self.hub.topics();
        // After a reset the name may belong to another state.
        let Some(held) = topics.get_mut(&self.state.name).filter(|held| Arc::ptr_eq(&held.state, &self.state)) else {
            return;
        };
        held.readers -= 1;
        if held.readers == 0 {
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
    fn a_topic_dropped_and_taken_up_again_begins_anew() {
        let hub = Arc::new(Hub::default());
        let (one, two) = (hub.hold(&topic()), hub.hold(&topic()));
        one.observe(1);
        drop(one);
        hub.publish(&[event(2)]);
        assert_eq!(two.state.end(), Some(2), "the second reader still holds it");
        drop(two);
        assert_eq!(hub.topics_read(), 0);
        hub.publish(&[event(3)]);
        let again = hub.hold(&topic());
        assert_eq!(again.state.end(), None, "nothing of what came meanwhile is assumed");
        again.observe(3);
        hub.publish(&[event(4)]);
        assert_eq!(again.state.end(), Some(4));
    }

    #[test]
    fn a_hold_from_before_a_reset_does_not_count_for_the_topic_after_it() {
        let hub = Arc::new(Hub::default());
        let before = hub.hold(&topic());
        hub.reset(&before.state);
        let after = hub.hold(&topic());
        drop(before);
        assert_eq!(hub.topics_read(), 1);
        drop(after);
        assert_eq!(hub.topics_read(), 0);
    }
}
