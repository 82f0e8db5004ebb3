//! The outcome of a batch whose COMMIT was sent without a response.
//!
//! The outcome is looked up in the transaction that would store the batch again, after the locks of its topics and before anything
//! else. So nothing can happen between the lookup and the second run. The lookup does not compare event data, which a deletion
//! changes. It checks which batch wrote an event: one event of the batch in the log proves the commit.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::BatchState;
use crate::domain::{BatchId, RideId, Seq, Topic};
use crate::store::{Session, StoreError, sql};
use crate::writer::queue::QueuedCommand;

/// The outcome of a command's events in a batch in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::writer) enum Outcome {
    /// They are committed.
    Committed,
    /// They are not committed, and never will be.
    NotCommitted,
    /// They are not committed yet. A batch that was sent without locks may still arrive at Postgres. If the log has moved by then, it
    /// has a conflict and stores nothing.
    MayStillCommit,
    /// The outcome cannot be found, because retention has deleted that part of the log.
    Unknown,
}

/// A batch in doubt.
#[derive(Debug)]
pub(in crate::writer) struct InDoubtBatch {
    pub(in crate::writer) state: BatchState,
    pub(super) was_locked: bool,
}

/// The outcome of a batch in doubt on each of its topics. If the batch held locks, all topics have the same outcome.
#[derive(Debug, Default)]
pub(in crate::writer) struct Outcomes {
    by_topic: HashMap<Topic, Outcome>,
    all: Option<Outcome>,
}

/// What one topic's log contains at the seq of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogEntry {
    /// The event of the batch.
    Stored,
    /// An event of another batch.
    Superseded,
    /// Nothing: the log ends before it.
    Absent,
    /// Nothing: retention has deleted it.
    Trimmed,
}

impl InDoubtBatch {
    /// Whether the batch held its locks when COMMIT was sent. Then a transaction that gets these locks finds it ended.
    pub(in crate::writer) fn was_locked(&self) -> bool {
        self.was_locked
    }

    /// Returns the first event of each topic, which is looked up. A batch stores all its events of a topic or none.
    fn first_events(&self) -> impl Iterator<Item = (&Topic, Seq)> {
        self.state.event_ranges().into_iter().map(|(topic, (first, _))| (topic, first))
    }

    /// Returns the user topics whose locks prove that the batch has ended.
    ///
    /// They are needed only if the batch has no event on a ride. Otherwise the locks of the rides prove it. The batch may have created
    /// these topics.
    pub(super) fn user_topics(&self) -> impl Iterator<Item = &Topic> {
        let has_ride_events = self.first_events().any(|(topic, _)| topic.ride_id().is_some());
        self.first_events().map(|(topic, _)| topic).filter(move |_| !has_ride_events)
    }

    fn outcomes(&self, entries: &HashMap<(BatchId, Topic), LogEntry>) -> Outcomes {
        let key = |topic: &Topic| (self.state.batch(), topic.clone());
        let entries: HashMap<Topic, LogEntry> =
            self.first_events().filter_map(|(topic, _)| Some((topic.clone(), *entries.get(&key(topic))?))).collect();
        if self.was_locked { Outcomes::of_locked(&entries) } else { Outcomes::of_optimistic(entries) }
    }
}

impl Outcomes {
    /// The outcomes of a batch with locks. All of it is committed, or nothing. It has ended, because this transaction has its locks.
    fn of_locked(entries: &HashMap<Topic, LogEntry>) -> Self {
        let has = |wanted: &[LogEntry]| entries.values().any(|entry| wanted.contains(entry));
        let all = if has(&[LogEntry::Stored]) {
            Outcome::Committed
        } else if has(&[LogEntry::Superseded, LogEntry::Absent]) {
            Outcome::NotCommitted
        } else {
            Outcome::Unknown
        };
        Self { by_topic: entries.keys().map(|topic| (topic.clone(), all)).collect(), all: Some(all) }
    }

    /// The outcomes of an optimistic batch. Each topic has its own, but if one is committed, none may still commit.
    fn of_optimistic(entries: HashMap<Topic, LogEntry>) -> Self {
        let is_committed = entries.values().any(|entry| *entry == LogEntry::Stored);
        let outcome = |entry| match entry {
            LogEntry::Stored => Outcome::Committed,
            LogEntry::Trimmed => Outcome::Unknown,
            LogEntry::Absent if !is_committed => Outcome::MayStillCommit,
            LogEntry::Superseded | LogEntry::Absent => Outcome::NotCommitted,
        };
        Self { by_topic: entries.into_iter().map(|(topic, entry)| (topic, outcome(entry))).collect(), all: None }
    }

    /// Returns the topics with this outcome.
    pub(in crate::writer) fn topics(&self, outcome: Outcome) -> impl Iterator<Item = &Topic> {
        self.by_topic.iter().filter(move |(_, of)| **of == outcome).map(|(topic, _)| topic)
    }

    /// Returns the outcome of the events that a command appended in this batch.
    pub(in crate::writer) fn of(&self, queued: &QueuedCommand) -> Outcome {
        let of_ride = |ride: &RideId| self.by_topic.get(&Topic::ride(ride)).copied();
        self.all.or_else(|| queued.read_set.only_chat_ride().and_then(of_ride)).unwrap_or(Outcome::NotCommitted)
    }
}

/// Looks up the outcomes of batches whose topics are locked.
pub(super) async fn look_up(session: &Session, in_doubt: &[InDoubtBatch]) -> Result<Vec<Outcomes>, StoreError> {
    if in_doubt.is_empty() {
        return Ok(Vec::new());
    }
    let events = || in_doubt.iter().flat_map(|batch| batch.first_events().map(|event| (batch.state.batch(), event)));
    let topics: Vec<_> = events().map(|(_, (topic, _))| topic.as_str()).collect();
    let seqs: Vec<_> = events().map(|(_, (_, seq))| seq).collect();
    let batches: Vec<_> = events().map(|(batch, _)| batch).collect();
    let rows = session.query(sql::EVENTS_OUTCOME, &[&topics, &seqs, &batches]).await?;
    let entries = rows.iter().map(entry_from_row).collect::<Result<HashMap<_, _>, _>>()?;
    Ok(in_doubt.iter().map(|batch| batch.outcomes(&entries)).collect())
}

fn entry_from_row(row: &Row) -> Result<((BatchId, Topic), LogEntry), StoreError> {
    let entry = match row.try_get("outcome")? {
        "stored" => LogEntry::Stored,
        "superseded" => LogEntry::Superseded,
        "absent" => LogEntry::Absent,
        "trimmed" => LogEntry::Trimmed,
        _ => return Err(StoreError::Corrupt("outcome")),
    };
    Ok(((row.try_get("batch")?, Topic::from_stored(row.try_get("topic")?)), entry))
}
