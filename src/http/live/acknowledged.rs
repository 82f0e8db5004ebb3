//! What a poll has acknowledged itself: the deliveries that its own cursor stands for. An event that says no more than that
//! is nothing to wake its caller for.

use std::collections::HashMap;

use serde::Deserialize;

use super::reader::{Cursor, Handed};
use crate::domain::{Caller, EventType, RideId, RideSnapshot, Seq, UserId};
use crate::http::pages::PAGE_BYTES;

/// What a poll has acknowledged, ride by ride.
pub(super) struct Acknowledged {
    by: UserId,
    rides: HashMap<RideId, Delivered>,
}

struct Delivered {
    up_to: Seq,
    /// Where the log ended before: what it had then, an earlier request has acknowledged.
    head: Seq,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    ride_id: &'a str,
    user_id: &'a str,
    seq: Seq,
}

impl Acknowledged {
    /// Nothing yet, by this caller.
    pub(super) fn by(caller: &Caller) -> Self {
        Self { by: caller.user.clone(), rides: HashMap::new() }
    }

    /// Notes what a cursor has acknowledged on a ride, as it was before.
    pub(super) fn note(&mut self, snapshot: &RideSnapshot, up_to: Seq) {
        self.rides.insert(snapshot.ride.id.clone(), Delivered { up_to, head: snapshot.head });
    }

    /// Whether an event says this and nothing else.
    pub(super) fn is_all_of(&self, Handed { event, .. }: &Handed) -> bool {
        if event.kind != EventType::MessageDelivered || self.rides.is_empty() {
            return false;
        }
        let Ok(Data { ride_id, user_id, seq }) = serde_json::from_str(event.data()) else { return false };
        let delivered = RideId::parse(ride_id).ok().and_then(|ride| self.rides.get(&ride));
        user_id == self.by.as_str()
            && delivered.is_some_and(|delivered| seq <= delivered.up_to && event.seq > delivered.head)
    }
}

/// Events for an answer, and whether any of them is worth one.
#[derive(Default)]
pub(super) struct Page {
    pub(super) events: Vec<Handed>,
    /// Where the reader was before the first of them.
    before: Option<Cursor>,
    wakes: bool,
    bytes: usize,
}

impl Page {
    /// Whether the poll is to be answered.
    pub(super) fn wakes(&self) -> bool {
        self.wakes
    }

    /// Notes where the reader is, while there is nothing.
    pub(super) fn begin(&mut self, cursor: impl FnOnce() -> Cursor) {
        if self.events.is_empty() {
            self.before = Some(cursor());
        }
    }

    /// Takes an event that the poll asks for, or notes that one was passed.
    pub(super) fn take(&mut self, handed: Handed, passes: bool, acknowledged: &Acknowledged) {
        if passes {
            self.wakes |= !acknowledged.is_all_of(&handed);
            self.bytes += handed.bytes();
            self.events.push(handed);
        } else if self.events.is_empty() {
            self.before = Some(handed.cursor);
        }
    }

    /// Whether it has as many bytes as a response holds.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= PAGE_BYTES
    }

    /// Leaves events that a response does not hold to the next poll: where that begins, if there are any.
    pub(super) fn cut(&mut self) -> Option<Cursor> {
        let mut bytes = 0;
        let over = self.events.iter().position(|handed| {
            bytes += handed.bytes();
            bytes > PAGE_BYTES
        });
        // At least one, however large.
        let kept = over?.max(1);
        if kept == self.events.len() {
            return None;
        }
        self.events.truncate(kept);
        self.events.last().map(|last| last.cursor.clone())
    }

    /// Leaves events that are worth no answer to the next poll: where that begins, if there are any.
    pub(super) fn leave(&mut self) -> Option<Cursor> {
        if self.wakes || self.events.is_empty() {
            return None;
        }
        self.events.clear();
        self.before.take()
    }
}
