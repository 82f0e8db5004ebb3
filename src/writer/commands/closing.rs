//! The closing and reopening of a ride; and the events on a user's topic when a ride becomes theirs or ceases to be.

use std::time::Duration;

use serde::Serialize;

use crate::domain::{
    Caller, ClosedReason, Error, EventType, Result, Ride, RideClosed, RideId, RideSnapshot, RideView, Seq, Time, UserId,
};
use crate::writer::{BatchState, Command, ReadSet};

/// The data of `ride:assigned`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned<'a> {
    ride: RideView<'a>,
    from_seq: Seq,
}

/// Notifies a user that a ride is theirs from `from_seq` on.
pub(super) fn append_assigned(state: &mut BatchState, user: &UserId, ride: &Ride, from_seq: Seq) -> Result<()> {
    let view = ride.view(ride.chat(state.now()));
    state.append_user_event(user, &ride.id, EventType::RideAssigned, &Assigned { ride: view, from_seq })
}

/// Notifies a user that a ride is no longer theirs. They can read its log up to `last_seq`.
pub(super) fn append_removed(state: &mut BatchState, user: &UserId, ride: &RideId, last_seq: Seq) -> Result<()> {
    state.append_user_event(
        user,
        ride,
        EventType::RideClosed,
        &RideClosed { ride_id: ride, last_seq, reason: ClosedReason::Removed },
    )
}

/// Closes a ride after its chat window has passed for everyone, and notifies its participants.
#[derive(Debug)]
pub struct CloseRide {
    /// The ride.
    pub ride: RideId,
}

impl Command for CloseRide {
    type Output = ();

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
    }

    fn apply(&self, state: &mut BatchState) -> Result<()> {
        let snapshot = state.ride(&self.ride)?;
        // Every replica finds the same rides to close. The first one closes the ride.
        if !snapshot.is_due_to_close() {
            return Ok(());
        }
        let mut ride = snapshot.ride.clone();
        let last_seq = snapshot.head;
        let participants: Vec<UserId> =
            snapshot.current_participants().map(|participant| participant.user.clone()).collect();
        ride.closed_at = Some(state.now());
        ride.closed_seq = Some(last_seq);
        state.change_ride(ride)?;
        let closed = RideClosed { ride_id: &self.ride, last_seq, reason: ClosedReason::RideOver };
        participants
            .iter()
            .try_for_each(|user| state.append_user_event(user, &self.ride, EventType::RideClosed, &closed))
    }
}

/// The longest time for which a ride can be reopened.
const LONGEST_REOPENING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Reopens the chat of an ended ride until a given time.
#[derive(Debug)]
pub struct ReopenRide {
    /// Support or the service.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
    /// When the chat closes again.
    pub until: Time,
    /// The reason, for the participants.
    pub reason: Option<String>,
}

/// The data of `ride:reopened`. On a user's topic, `from_seq` is where the user's access to the ride's log begins again.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reopened<'a> {
    ride: RideView<'a>,
    by: &'a UserId,
    until: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_seq: Option<Seq>,
}

impl Command for ReopenRide {
    type Output = RideSnapshot;

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
    }

    fn apply(&self, state: &mut BatchState) -> Result<RideSnapshot> {
        if !self.caller.role.is_staff() {
            return Err(Error::Forbidden("only the `support` and `service` roles can reopen a ride"));
        }
        let (now, snapshot) = (state.now(), state.ride(&self.ride)?);
        if self.until <= now || self.until > now.plus(LONGEST_REOPENING) {
            return Err(Error::invalid("/until", "must be in the future, at most 30 days ahead"));
        }
        if !snapshot.ride.status.is_ended() {
            return Err(Error::RideConflict("the ride has not ended"));
        }
        let before = snapshot.ride.clone();
        let mut ride = before.clone();
        ride.reopen(self.until, now);
        // A repeated request changes nothing.
        if before.has_opened && before.closed_at.is_none() && before.closing_times == ride.closing_times {
            return state.ride_snapshot(&self.ride);
        }
        let participants: Vec<UserId> =
            snapshot.current_participants().map(|participant| participant.user.clone()).collect();
        state.change_ride(ride.clone())?;
        let view = || ride.view(ride.chat(now));
        let (by, until, reason) = (&self.caller.user, self.until, self.reason.as_deref());
        let event = Reopened { ride: view(), by, until, reason, from_seq: None };
        let seq = state.append_ride_event(&self.ride, EventType::RideReopened, None, |_| event)?;
        // Events that were appended while the ride was closed (deletions, receipts) belong to the participants again.
        let last = before.closed_at.and(before.closed_seq).unwrap_or(seq - 1);
        let event = Reopened { ride: view(), by, until, reason, from_seq: Some(last + 1) };
        participants
            .iter()
            .try_for_each(|user| state.append_user_event(user, &self.ride, EventType::RideReopened, &event))?;
        state.ride_snapshot(&self.ride)
    }
}
