//! The deliveries that a poll's own cursor has acknowledged. An event that only reports such a delivery does not end the poll's wait.

use std::collections::HashMap;

use serde::Deserialize;

use super::reader::{Cursor, EventWithCursor};
use crate::domain::{Caller, EventType, RideId, RideSnapshot, Seq, UserId};
use crate::http::page_size::PAGE_BYTES;

/// The deliveries that a poll has acknowledged, per ride.
pub(super) struct Acknowledged {
    by: UserId,
    rides: HashMap<RideId, Delivered>,
}

struct Delivered {
    up_to: Seq,
    /// The log's head before the acknowledgement. Events up to there were caused by an earlier request.
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
    /// Creates an empty set for this caller.
    pub(super) fn by(caller: &Caller) -> Self {
        Self { by: caller.user.clone(), rides: HashMap::new() }
    }

    /// Notes that a cursor has acknowledged delivery on a ride up to `up_to`. `snapshot` is the ride before that.
    pub(super) fn note(&mut self, snapshot: &RideSnapshot, up_to: Seq) {
        self.rides.insert(snapshot.ride.id.clone(), Delivered { up_to, head: snapshot.head });
    }

    /// Returns whether an event reports only such a delivery.
    pub(super) fn covers(&self, EventWithCursor { event, .. }: &EventWithCursor) -> bool {
        if event.kind != EventType::MessageDelivered || self.rides.is_empty() {
            return false;
        }
        let Ok(Data { ride_id, user_id, seq }) = serde_json::from_str(event.data()) else { return false };
        let delivered = RideId::parse(ride_id).ok().and_then(|ride| self.rides.get(&ride));
        user_id == self.by.as_str()
            && delivered.is_some_and(|delivered| seq <= delivered.up_to && event.seq > delivered.head)
    }
}

/// The events of a poll's response, and whether one of them ends the wait.
#[derive(Default)]
pub(super) struct Page {
    pub(super) events: Vec<EventWithCursor>,
    /// The reader's cursor before the first event.
    start: Option<Cursor>,
    ends_wait: bool,
    bytes: usize,
}

impl Page {
    /// Returns whether the poll must respond now.
    pub(super) fn ends_wait(&self) -> bool {
        self.ends_wait
    }

    /// Notes the reader's cursor, as long as there are no events.
    pub(super) fn note_cursor(&mut self, cursor: impl FnOnce() -> Cursor) {
        if self.events.is_empty() {
            self.start = Some(cursor());
        }
    }

    /// Adds an event if it passes the filter. Otherwise it only moves the cursor.
    pub(super) fn push(&mut self, event: EventWithCursor, passes: bool, acknowledged: &Acknowledged) {
        if passes {
            self.ends_wait |= !acknowledged.covers(&event);
            self.bytes += event.bytes();
            self.events.push(event);
        } else if self.events.is_empty() {
            self.start = Some(event.cursor);
        }
    }

    /// Returns whether the page has as many bytes as a response may have.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= PAGE_BYTES
    }

    /// Removes events that exceed the size of a response. Returns the cursor from which the next poll continues, if it has removed any.
    pub(super) fn truncate(&mut self) -> Option<Cursor> {
        let mut bytes = 0;
        let over = self.events.iter().position(|event| {
            bytes += event.bytes();
            bytes > PAGE_BYTES
        });
        // At least one event, however large.
        let kept = over?.max(1);
        if kept == self.events.len() {
            return None;
        }
        self.events.truncate(kept);
        self.events.last().map(|last| last.cursor.clone())
    }

    /// Removes events that do not end the wait. Returns the cursor from which the next poll continues, if it has removed any.
    pub(super) fn defer(&mut self) -> Option<Cursor> {
        if self.ends_wait || self.events.is_empty() {
            return None;
        }
        self.events.clear();
        self.start.take()
    }
}
