//! What became of a batch whose COMMIT was sent, and not answered.
//!
//! It is looked up in the transaction that would store the batch again, after the locks of its topics and before anything else.
//! So nothing can come between the look and the second run. What is looked for is not what events say, which a deletion changes,
//! but which batch wrote them: one event that is there proves the commit.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::Ledger;
use crate::domain::{BatchId, RideId, Seq, Topic};
use crate::store::{Session, StoreError, sql};
use crate::writer::queue::Queued;

/// What became of what a command wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::writer) enum Outcome {
    /// It is committed.
    Stored,
    /// It is not, and never will be.
    NotStored,
    /// It is not, but what was sent without locks may still arrive. It comes to nothing where the log has moved by then.
    MayStillCommit,
    /// Nobody can tell: the log has lost the place.
    Unknown,
}

/// A batch in doubt.
#[derive(Debug)]
pub(in crate::writer) struct Doubt {
    pub(in crate::writer) ledger: Ledger,
    pub(super) was_locked: bool,
}

/// What of a batch in doubt became of each topic that it wrote to; of all of them the same where it was locked.
#[derive(Debug, Default)]
pub(in crate::writer) struct Outcomes {
    by_topic: HashMap<Topic, Outcome>,
    all: Option<Outcome>,
}

/// What one topic's log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The event is the batch's.
    Stored,
    /// It is another's.
    Superseded,
    /// The log ends before it.
    Absent,
    /// It is no longer there.
    Trimmed,
}

impl Doubt {
    /// Whether its locks were held when COMMIT was sent. Then whoever gets them finds it ended.
    pub(in crate::writer) fn was_locked(&self) -> bool {
        self.was_locked
    }

    /// What is looked for: the first event on each topic, since what is stored of a topic is all of it.
    fn firsts(&self) -> impl Iterator<Item = (&Topic, Seq)> {
        self.ledger.ends().into_iter().map(|(topic, (first, _))| (topic, first))
    }

    /// The topics whose locks tell that it has ended, if not those of the rides: of users, who are told something where nothing
    /// is written on a ride. They may have been made by it.
    pub(super) fn users(&self) -> impl Iterator<Item = &Topic> {
        let writes_on_rides = self.firsts().any(|(topic, _)| topic.ride_id().is_some());
        self.firsts().map(|(topic, _)| topic).filter(move |_| !writes_on_rides)
    }

    fn outcomes(&self, found: &HashMap<(BatchId, Topic), Found>) -> Outcomes {
        let key = |topic: &Topic| (self.ledger.batch(), topic.clone());
        let found: HashMap<Topic, Found> =
            self.firsts().filter_map(|(topic, _)| Some((topic.clone(), *found.get(&key(topic))?))).collect();
        if self.was_locked { Outcomes::of_locked(&found) } else { Outcomes::of_unlocked(found) }
    }
}

impl Outcomes {
    /// All of it is committed, or nothing; and it has ended, since others have its locks.
    fn of_locked(found: &HashMap<Topic, Found>) -> Self {
        let has = |what: &[Found]| found.values().any(|found| what.contains(found));
        let all = if has(&[Found::Stored]) {
            Outcome::Stored
        } else if has(&[Found::Superseded, Found::Absent]) {
            Outcome::NotStored
        } else {
            Outcome::Unknown
        };
        Self { by_topic: found.keys().map(|topic| (topic.clone(), all)).collect(), all: Some(all) }
    }

    /// Each topic is for itself; but what has arrived has arrived as a whole.
    fn of_unlocked(found: HashMap<Topic, Found>) -> Self {
        let has_arrived = found.values().any(|found| *found == Found::Stored);
        let outcome = |found| match found {
            Found::Stored => Outcome::Stored,
            Found::Trimmed => Outcome::Unknown,
            Found::Absent if !has_arrived => Outcome::MayStillCommit,
            Found::Superseded | Found::Absent => Outcome::NotStored,
        };
        Self { by_topic: found.into_iter().map(|(topic, found)| (topic, outcome(found))).collect(), all: None }
    }

    /// The topics of which this became.
    pub(in crate::writer) fn topics(&self, outcome: Outcome) -> impl Iterator<Item = &Topic> {
        self.by_topic.iter().filter(move |(_, of)| **of == outcome).map(|(topic, _)| topic)
    }

    /// What became of what a command wrote in that batch.
    pub(in crate::writer) fn of(&self, queued: &Queued) -> Outcome {
        let of_ride = |ride: &RideId| self.by_topic.get(&Topic::ride(ride)).copied();
        self.all.or_else(|| queued.needs.only_chat().and_then(of_ride)).unwrap_or(Outcome::NotStored)
    }
}

/// Looks up what became of batches. Their topics are locked.
pub(super) async fn look_up(session: &Session, doubts: &[Doubt]) -> Result<Vec<Outcomes>, StoreError> {
    if doubts.is_empty() {
        return Ok(Vec::new());
    }
    let firsts = || doubts.iter().flat_map(|doubt| doubt.firsts().map(|first| (doubt.ledger.batch(), first)));
    let topics: Vec<_> = firsts().map(|(_, (topic, _))| topic.as_str()).collect();
    let seqs: Vec<_> = firsts().map(|(_, (_, seq))| seq).collect();
    let batches: Vec<_> = firsts().map(|(batch, _)| batch).collect();
    let rows = session.query(sql::EVENTS_OUTCOME, &[&topics, &seqs, &batches]).await?;
    let found = rows.iter().map(found).collect::<Result<HashMap<_, _>, _>>()?;
    Ok(doubts.iter().map(|doubt| doubt.outcomes(&found)).collect())
}

fn found(row: &Row) -> Result<((BatchId, Topic), Found), StoreError> {
    let found = match row.try_get("outcome")? {
        "stored" => Found::Stored,
        "superseded" => Found::Superseded,
        "absent" => Found::Absent,
        "trimmed" => Found::Trimmed,
        _ => return Err(StoreError::Corrupt("outcome")),
    };
    Ok(((row.try_get("batch")?, Topic::from_stored(row.try_get("topic")?)), found))
}
