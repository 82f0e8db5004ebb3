//! A cursor that moves along a topic.

use std::sync::Arc;

use tokio::sync::watch;

use super::hub::Hold;
use super::topic::Head;
use super::{Event, Gap, Hub, Value};
use crate::domain::{Seq, Signal, Topic};
use crate::store::{PageRequest, Store, StoreError};

/// A reader of one topic. It holds a cursor and no events.
#[derive(Debug)]
pub struct Subscription {
    hold: Hold,
    head: watch::Receiver<Head>,
    store: Arc<Store>,
    cursor: Seq,
    /// The last change of a value that was handed out.
    signals: u64,
    /// What the reader was told of values was true at this seq. One that names an earlier seq may be older than that.
    values_after: Seq,
}

/// What comes next on a topic.
#[derive(Debug)]
pub enum Step {
    /// Events, in order, directly after the cursor.
    Events(Vec<Event>),
    /// Values that have changed, the last of each.
    Values(Vec<Value>),
    /// The log no longer has these.
    Gap(Gap),
    /// The log is not the one that was being read. There is nothing more.
    Reset,
}

impl Subscription {
    /// Registers a reader. Only after this may the database be asked where the log ends, and the answer belongs
    /// into [`Self::start`].
    pub fn register(hub: &Arc<Hub>, store: Arc<Store>, topic: &Topic) -> Self {
        let hold = hub.hold(topic);
        let head = hold.state.watch();
        let signals = head.borrow().signals;
        Self { hold, head, store, cursor: 0, signals, values_after: 0 }
    }

    /// Begins to read after `cursor`, the log having reached `head`.
    ///
    /// `values` are those that it holds beside the log at `head`. Where the reader has been `told` them, what is handed out
    /// later comes on top of them; else they are handed out as well.
    pub fn start(&mut self, cursor: Seq, head: Seq, values: &[Signal], told: bool) {
        (self.cursor, self.values_after) = (cursor, head);
        self.hold.observe(head);
        let known = self.hold.state.seed(values, self.signals);
        self.signals = if told { known } else { 0 };
    }

    /// Goes on behind `cursor`, where that is further than it is.
    pub fn skip_to(&mut self, cursor: Seq) {
        self.cursor = self.cursor.max(cursor);
    }

    /// Goes on behind `cursor`, where what was read after it is not to be handed out.
    pub fn return_to(&mut self, cursor: Seq) {
        self.cursor = self.cursor.min(cursor);
    }

    /// Takes note of how far the log reaches, as the database has just said.
    pub fn observe(&self, head: Seq) {
        self.hold.observe(head);
    }

    /// Up to where events were handed out.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Whether there is something to read now.
    pub fn is_behind(&self) -> bool {
        self.cursor < self.head.borrow().seq
    }

    /// Waits for what comes next: at most `limit` events, fewer where one of them moves rights, which is then the
    /// last. Dropping the future loses nothing.
    pub async fn next(&mut self, limit: usize) -> Result<Step, StoreError> {
        loop {
            let head = *self.head.borrow_and_update();
            if head.is_reset {
                return Ok(Step::Reset);
            }
            if self.cursor < head.seq {
                return self.read(head.seq, limit).await;
            }
            // Of those that have changed, the ones that name a seq that this reader has passed. For the others the head
            // moves once more, since each has the log read up to where it was true.
            if self.signals < head.signals && self.cursor >= self.values_after {
                let (values, serial) = self.hold.state.signals_since(self.signals, self.cursor);
                self.signals = serial;
                if !values.is_empty() {
                    return Ok(Step::Values(values));
                }
            }
            if self.head.changed().await.is_err() {
                // The topic's sender lives in what this holds.
                return Ok(Step::Reset);
            }
        }
    }

    /// Whether the log begins behind a gap, so that nothing is missing. Where the database cannot say, something may be.
    pub async fn begins_behind(&self, gap: Gap) -> bool {
        let begins_after = self.store.begins_after(&self.hold.state.name).await;
        begins_after.is_ok_and(|begins_after| begins_after.is_some_and(|begins_after| gap.to <= begins_after))
    }

    async fn read(&mut self, head: Seq, limit: usize) -> Result<Step, StoreError> {
        let mut events = match self.hold.state.after(self.cursor, limit) {
            Some(events) => events,
            None => {
                // No more than there are: many are read in one statement, as far as they are short.
                let limit = i64::try_from(limit).unwrap_or(i64::MAX).min(head - self.cursor);
                let request = PageRequest { topic: self.hold.state.name.clone(), after: self.cursor, limit };
                // Boxed, as all that is large and short-lived in what a stream waits with.
                Box::pin(self.store.page(request)).await?.into_iter().map(Event::from).collect()
            }
        };
        // The log is contiguous but for what retention has taken, always the oldest.
        let next = events.first().map_or(head + 1, |first| first.seq);
        if next != self.cursor + 1 {
            let gap = Gap { from: self.cursor + 1, to: next - 1 };
            self.cursor = gap.to;
            return Ok(Step::Gap(gap));
        }
        // The feed has no rights: all of it is the platform's.
        let moves_rights = |event: &Event| event.kind.moves_rights() && !self.hold.state.name.is_feed();
        if let Some(place) = events.iter().position(moves_rights) {
            events.truncate(place + 1);
        }
        self.cursor = events.last().map_or(self.cursor, |last| last.seq);
        Ok(Step::Events(events))
    }
}
