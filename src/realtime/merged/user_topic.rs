//! Events of the user topic about rides that come and go.

use serde::Deserialize;

use super::sources::next_of_user_topic;
use super::{MergedEvent, MergedReader};
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

/// The change of a ride that an event of the user topic reports.
enum RideChange {
    Assigned(RideId, Seq),
    Closed(RideId, Seq),
}

impl RideChange {
    fn of(event: &Event) -> Option<Self> {
        match event.kind {
            // Both name the seq from which the ride is read.
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

impl MergedReader {
    /// Returns the queued events of the user topic, up to the first one that has to wait.
    pub(super) fn take_ready_events(&mut self) -> Vec<MergedEvent> {
        let mut ready = Vec::new();
        while let Some(event) = self.queued.pop_front() {
            let change = RideChange::of(&event);
            if let Some(RideChange::Closed(ride, last_seq)) = &change
                && self.must_wait(event.seq, ride, *last_seq)
            {
                self.queued.push_front(event);
                break;
            }
            self.cursor.user_seq = event.seq;
            match change {
                Some(RideChange::Assigned(ride, from_seq)) => self.on_assigned(ride, from_seq),
                Some(RideChange::Closed(ride, last_seq)) => self.on_closed(&ride, last_seq),
                None => {}
            }
            ready.push(MergedEvent { event, cursor: self.cursor.encode() });
        }
        if self.queued.is_empty()
            && let Some(subscription) = self.user_topic.take()
        {
            self.sources.push(Box::pin(next_of_user_topic(subscription)));
        }
        ready
    }

    /// Returns whether more of the ride must be delivered before its closing event.
    fn must_wait(&mut self, event: Seq, ride: &RideId, last_seq: Seq) -> bool {
        let delivered = self.cursor.of(ride);
        if let Some(followed) = self.rides.get(ride) {
            let is_same_interval = followed.from_seq <= last_seq;
            return is_same_interval && delivered.is_none_or(|seq| seq < last_seq);
        }
        // The ride closed while it was omitted, or while the client was disconnected. Its remaining events are read once: all of them,
        // if the cursor had no room for the ride.
        let delivered = delivered.unwrap_or(0);
        let has_rest = delivered < last_seq && self.reopened_for != event;
        if has_rest {
            self.reopened_for = event;
            self.start_ride(ride.clone(), delivered + 1, delivered);
        }
        has_rest
    }

    pub(super) fn on_assigned(&mut self, ride: RideId, from_seq: Seq) {
        let was_deferred = self.deferred.remove(&ride).is_some();
        if let Some(followed) = self.rides.get_mut(&ride) {
            if followed.from_seq < from_seq {
                followed.next_from = Some(from_seq);
            }
            return;
        }
        self.cursor.advance(&ride, from_seq - 1);
        if was_deferred || self.has_room() {
            self.omitted.retain(|omitted| *omitted != ride);
            // Events of the ride before this assignment may have been delivered already.
            let after = self.cursor.of(&ride).unwrap_or(from_seq - 1);
            self.start_ride(ride, from_seq, after);
        } else {
            self.omit(ride);
        }
    }

    fn on_closed(&mut self, ride: &RideId, last_seq: Seq) {
        if self.rides.get(ride).is_none_or(|followed| followed.from_seq <= last_seq) {
            self.request_refresh();
            // Events after the closing were delivered, so the ride may have been reopened. Its position and its reader are then kept.
            // The reader ends by itself if the ride is closed.
            if self.cursor.of(ride).is_some_and(|seq| seq > last_seq) {
                return;
            }
            let next_from = self.rides.remove(ride).and_then(|followed| followed.next_from);
            self.cursor.remove(ride);
            self.omitted.retain(|omitted| omitted != ride);
            if let Some(from_seq) = next_from.filter(|from_seq| *from_seq > last_seq) {
                self.on_assigned(ride.clone(), from_seq);
            }
        }
    }

    /// Opens the rides that were assigned while the client was disconnected and that the user topic did not report, once the topic is
    /// delivered up to its head at that time.
    pub(super) fn open_deferred(&mut self) {
        if !self.has_replayed() {
            return;
        }
        self.cursor.remove_others(&std::mem::take(&mut self.former_rides), self.rides.keys());
        for (ride, after) in self.deferred.clone() {
            self.on_assigned(ride, after + 1);
        }
    }

    /// Returns whether the user topic has been delivered up to its head at the time of opening.
    pub(super) fn has_replayed(&self) -> bool {
        self.cursor.user_seq >= self.replay_end && self.queued.is_empty()
    }
}
