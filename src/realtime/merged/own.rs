//! What the reader's own topic says of rides that come and go.

use serde::Deserialize;

use super::turns::own_turn;
use super::{Merged, Placed};
use crate::domain::{EventType, RideId, Seq};
use crate::realtime::Event;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssignedData {
    ride: AssignedRide,
    from_seq: Seq,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssignedRide {
    ride_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClosedData {
    ride_id: String,
    last_seq: Seq,
}

/// What an event of the own topic says about a ride.
enum Change {
    Assigned(RideId, Seq),
    Closed(RideId, Seq),
}

impl Change {
    fn of(event: &Event) -> Option<Self> {
        match event.kind {
            // Both say from where on the ride is followed.
            EventType::RideAssigned | EventType::RideReopened => {
                let AssignedData { ride, from_seq } = serde_json::from_str(event.data()).ok()?;
                Some(Self::Assigned(RideId::parse(&ride.ride_id).ok()?, from_seq))
            }
            EventType::RideClosed => {
                let ClosedData { ride_id, last_seq } = serde_json::from_str(event.data()).ok()?;
                Some(Self::Closed(RideId::parse(&ride_id).ok()?, last_seq))
            }
            _ => None,
        }
    }
}

impl Merged {
    /// Hands out what is held of the own topic, as far as nothing has to wait.
    pub(super) fn release(&mut self) -> Vec<Placed> {
        let mut released = Vec::new();
        while let Some(event) = self.held.pop_front() {
            let change = Change::of(&event);
            if let Some(Change::Closed(ride, last_seq)) = &change
                && self.must_wait(event.seq, ride, *last_seq)
            {
                self.held.push_front(event);
                break;
            }
            self.places.own = event.seq;
            match change {
                Some(Change::Assigned(ride, from_seq)) => self.assigned(ride, from_seq),
                Some(Change::Closed(ride, last_seq)) => self.closed(&ride, last_seq),
                None => {}
            }
            released.push(Placed { event, cursor: self.places.encode() });
        }
        if self.held.is_empty()
            && let Some(own) = self.own.take()
        {
            self.turns.push(Box::pin(own_turn(own)));
        }
        released
    }

    /// Whether a ride has to be handed out further before its closing is.
    fn must_wait(&mut self, event: Seq, ride: &RideId, last_seq: Seq) -> bool {
        let place = self.places.of(ride);
        if let Some(followed) = self.rides.get(ride) {
            let is_of_that_time = followed.from_seq <= last_seq;
            return is_of_that_time && place.is_none_or(|place| place < last_seq);
        }
        // It closed while it was left out, or the reader away: the rest is fetched, once. All of it, where the cursor had no
        // room for the ride.
        let place = place.unwrap_or(0);
        let has_rest = place < last_seq && self.taken_up_for != event;
        if has_rest {
            self.taken_up_for = event;
            self.begin(ride.clone(), place + 1, place);
        }
        has_rest
    }

    pub(super) fn assigned(&mut self, ride: RideId, from_seq: Seq) {
        let has_place = self.later.remove(&ride).is_some();
        if let Some(followed) = self.rides.get_mut(&ride) {
            if followed.from_seq < from_seq {
                followed.again_from = Some(from_seq);
            }
            return;
        }
        self.places.advance(&ride, from_seq - 1);
        if has_place || self.has_room() {
            self.omitted.retain(|omitted| *omitted != ride);
            // Some of it may have been handed out before the event that this is.
            let after = self.places.of(&ride).unwrap_or(from_seq - 1);
            self.begin(ride, from_seq, after);
        } else {
            self.leave_out(ride);
        }
    }

    fn closed(&mut self, ride: &RideId, last_seq: Seq) {
        if self.rides.get(ride).is_none_or(|followed| followed.from_seq <= last_seq) {
            self.want_look();
            // What was handed out beyond its closing was written after that: the ride may have been reopened. Its place is kept
            // then, and so is its follower, which ends by itself where the ride is closed.
            if self.places.of(ride).is_some_and(|place| place > last_seq) {
                return;
            }
            let again_from = self.rides.remove(ride).and_then(|followed| followed.again_from);
            self.places.forget(ride);
            self.omitted.retain(|omitted| omitted != ride);
            if let Some(from_seq) = again_from.filter(|from_seq| *from_seq > last_seq) {
                self.assigned(ride.clone(), from_seq);
            }
        }
    }

    /// Follows the rides that came while the reader was away and whose assignment the own topic did not tell, once
    /// it is handed out up to where it ended then.
    pub(super) fn begin_rest(&mut self) {
        if !self.has_replayed() {
            return;
        }
        self.places.forget_others(&std::mem::take(&mut self.former), self.rides.keys());
        for (ride, after) in self.later.clone() {
            self.assigned(ride, after + 1);
        }
    }

    /// Whether the own topic has been handed out up to where it ended when this began.
    pub(super) fn has_replayed(&self) -> bool {
        self.places.own >= self.replayed_at && self.held.is_empty()
    }
}
