//! The part of a ride's log that a reader may see.

use crate::database_state::{DatabaseState, LoggedEvent};
use crate::record::RunRecord;
use crate::step::Actor;

/// The part of a ride's log that a reader may see.
pub(crate) struct VisibleLog<'a> {
    pub(crate) log: &'a [LoggedEvent],
    /// An interval without an end goes on to the head.
    pub(crate) intervals: Vec<(i64, Option<i64>)>,
    /// For support: events before this seq may be missing, because support was a participant later.
    optional_before: i64,
}

impl<'a> VisibleLog<'a> {
    /// Returns what a reader may see on a ride's own stream.
    pub(crate) fn of(record: &RunRecord, database: &'a DatabaseState, actor: Actor, ride: &str) -> Self {
        Self::for_stream(record, database, (actor, false), ride)
    }

    /// Returns what a reader may see on a ride's own stream or on a merged stream. On a merged stream, support is only a participant.
    pub(crate) fn for_stream(
        record: &RunRecord,
        database: &'a DatabaseState,
        (actor, is_merged): (Actor, bool),
        ride: &str,
    ) -> Self {
        let user = record.user(actor);
        let own: Vec<_> = database.intervals_of(ride, &user).map(|interval| (interval.from, interval.until)).collect();
        let log = database.log(ride);
        match actor {
            Actor::Support | Actor::Service if !is_merged => {
                let last = own.iter().filter(|(_, until)| until.is_none()).map(|(from, _)| *from).max();
                Self { log, intervals: vec![(1, None)], optional_before: last.unwrap_or(0) }
            }
            _ => Self { log, intervals: own, optional_before: 0 },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.intervals.iter().any(|(_, until)| until.is_none())
    }

    pub(crate) fn has(&self, seq: i64) -> bool {
        self.intervals.iter().any(|(from, until)| seq >= *from && until.is_none_or(|until| seq <= until))
    }

    /// Whether a value that was true between two seqs may be visible.
    pub(crate) fn may_contain_value(&self, low: i64, high: i64) -> bool {
        self.intervals.iter().any(|(from, until)| high >= *from && until.is_none_or(|until| low < until))
    }

    /// Whether an event may be missing: it is about a message that the reader may not see.
    fn is_optional(&self, event: &LoggedEvent) -> bool {
        if event.seq < self.optional_before {
            return true;
        }
        let message = match event.kind.as_str() {
            "message:edited" => event.data["id"].as_str(),
            "message:deleted" | "message:reaction" | "message:read" | "message:delivered" => {
                event.data["messageId"].as_str()
            }
            _ => return false,
        };
        let seq = self.log.iter().find(|event| event.kind == "message:new" && event.data["id"].as_str() == message);
        seq.is_none_or(|event| !self.has(event.seq))
    }

    /// Returns the visible events after a seq.
    pub(crate) fn after(&self, seq: i64) -> impl Iterator<Item = &'a LoggedEvent> {
        self.log.iter().filter(move |event| event.seq > seq && self.has(event.seq))
    }

    /// Returns the next event after a seq that matches. Only optional events may be skipped before it. An error contains the first event
    /// that must not be skipped.
    pub(crate) fn next(
        &self,
        after: i64,
        matches_item: impl Fn(&LoggedEvent) -> bool,
    ) -> Result<&'a LoggedEvent, Option<&'a LoggedEvent>> {
        for event in self.after(after) {
            if matches_item(event) {
                return Ok(event);
            }
            if !self.is_optional(event) {
                return Err(Some(event));
            }
        }
        Err(None)
    }

    /// Returns the first event after a seq that the reader must still receive.
    pub(crate) fn missing(&self, after: i64) -> Option<&'a LoggedEvent> {
        self.after(after).find(|event| !self.is_optional(event))
    }
}
