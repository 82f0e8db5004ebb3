//! A cursor that moves along one topic.

use std::sync::Arc;

use tokio::sync::watch;

use super::hub::TopicGuard;
use super::topic::Head;
use super::{Event, Gap, Hub, StateFrame};
use crate::domain::{Seq, StateUpdate, Topic};
use crate::store::{PageRequest, Store, StoreError};

/// A reader of one topic. It holds a cursor and no events.
#[derive(Debug)]
pub struct Subscription {
    guard: TopicGuard,
    head: watch::Receiver<Head>,
    store: Arc<Store>,
    cursor: Seq,
    /// The serial number of the last state update that was delivered.
    serial: u64,
    /// The seq at which the client's state was read. An update that names an earlier seq may be older than that state.
    state_seq: Seq,
}

/// The next item of a topic.
#[derive(Debug)]
pub enum TopicItem {
    /// Events, in order, directly after the cursor.
    Events(Vec<Event>),
    /// State updates that have changed, only the latest of each.
    Updates(Vec<StateFrame>),
    /// The log no longer has these events.
    Gap(Gap),
    /// The log was replaced (a restored database). No more items follow.
    Reset,
}

impl Subscription {
    /// Registers a reader with the hub, and its topic with the other replicas. Only after this may the caller read the log's head and the
    /// topic's values from the database and pass them to [`Self::start`].
    pub async fn register(hub: &Arc<Hub>, store: Arc<Store>, topic: &Topic) -> Self {
        let guard = hub.register(topic);
        let head = guard.state.watch();
        let serial = head.borrow().serial;
        hub.follow(&store, topic).await;
        Self { guard, head, store, cursor: 0, serial, state_seq: 0 }
    }

    /// Starts reading after `cursor`. The log has reached `head`.
    ///
    /// `state` is the topic's latest state at `head`. If the client has received this state (`client_has_state`), only later updates are
    /// delivered. Otherwise the state is delivered as updates too.
    pub fn start(&mut self, cursor: Seq, head: Seq, state: &[StateUpdate], client_has_state: bool) {
        (self.cursor, self.state_seq) = (cursor, head);
        self.guard.observe(head);
        let serial = self.guard.state.seed(state, self.serial);
        self.serial = if client_has_state { serial } else { 0 };
    }

    /// Moves the cursor forward to `cursor`, if it is behind that.
    pub fn skip_to(&mut self, cursor: Seq) {
        self.cursor = self.cursor.max(cursor);
    }

    /// Moves the cursor back to `cursor`, if events after that were read but must not be delivered.
    pub fn return_to(&mut self, cursor: Seq) {
        self.cursor = self.cursor.min(cursor);
    }

    /// Notes the log's head, which the database has just returned.
    pub fn observe(&self, head: Seq) {
        self.guard.observe(head);
    }

    /// Returns the store that has the topic's log.
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Returns the position up to which events were delivered.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Returns whether an event can be read without waiting.
    pub fn is_behind(&self) -> bool {
        self.cursor < self.head.borrow().seq
    }

    /// Waits for the next item: at most `limit` events. An event that changes rights is always the last of them. Cancel-safe: if the future
    /// is dropped, no event is lost.
    pub async fn next(&mut self, limit: usize) -> Result<TopicItem, StoreError> {
        loop {
            let head = *self.head.borrow_and_update();
            if head.is_reset {
                return Ok(TopicItem::Reset);
            }
            if self.cursor < head.seq {
                return self.read(head.seq, limit).await;
            }
            // Take those of the changed updates that name a seq which this reader has passed. For the others, the head moves once more,
            // because each update makes the hub load the log up to its seq.
            if self.serial < head.serial && self.cursor >= self.state_seq {
                let (updates, serial) = self.guard.state.updates_since(self.serial, self.cursor);
                self.serial = serial;
                if !updates.is_empty() {
                    return Ok(TopicItem::Updates(updates));
                }
            }
            if self.head.changed().await.is_err() {
                // This cannot happen: the guard keeps the topic's sender alive.
                return Ok(TopicItem::Reset);
            }
        }
    }

    /// Returns whether the log begins after a gap, so that no event is missing. If the database is unavailable, it returns `false`.
    pub async fn begins_after_gap(&self, gap: Gap) -> bool {
        let begins_after = self.store.begins_after(&self.guard.state.name).await;
        begins_after.is_ok_and(|begins_after| begins_after.is_some_and(|begins_after| gap.to <= begins_after))
    }

    async fn read(&mut self, head: Seq, limit: usize) -> Result<TopicItem, StoreError> {
        let mut events = match self.guard.state.after(self.cursor, limit) {
            Some(events) => events,
            None => {
                // Never more than exist: the statement reads many rows at once, as far as they are short.
                let limit = i64::try_from(limit).unwrap_or(i64::MAX).min(head - self.cursor);
                let request = PageRequest { topic: self.guard.state.name.clone(), after: self.cursor, limit };
                // Boxed, as everything large and short-lived in a stream's future.
                Box::pin(self.store.page(request)).await?.into_iter().map(Event::from).collect()
            }
        };
        // The log is contiguous, except for the oldest events, which retention has deleted.
        let next = events.first().map_or(head + 1, |first| first.seq);
        if next != self.cursor + 1 {
            let gap = Gap { from: self.cursor + 1, to: next - 1 };
            self.cursor = gap.to;
            return Ok(TopicItem::Gap(gap));
        }
        // The feed has no access rights: only the platform reads it.
        let changes_access = |event: &Event| event.kind.changes_access() && !self.guard.state.name.is_feed();
        if let Some(index) = events.iter().position(changes_access) {
            events.truncate(index + 1);
        }
        self.cursor = events.last().map_or(self.cursor, |last| last.seq);
        Ok(TopicItem::Events(events))
    }
}
