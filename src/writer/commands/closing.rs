//! What a user is told of the rides that become theirs and cease to be; the closing of a ride, and its reopening.

use std::time::Duration;

use serde::Serialize;

use crate::domain::{
    Caller, ClosedReason, Error, EventType, Result, Ride, RideClosed, RideId, RideSnapshot, RideView, Seq, Time, UserId,
};
use crate::writer::{Command, Ledger, Needs};

/// `ride:assigned`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned<'a> {
    ride: RideView<'a>,
    from_seq: Seq,
}

/// Tells somebody that a ride is theirs now, from `from_seq` on.
pub(super) fn tell_assigned(ledger: &mut Ledger, user: &UserId, ride: &Ride, from_seq: Seq) -> Result<()> {
    let view = ride.view(ride.chat(ledger.now()));
    ledger.tell(user, EventType::RideAssigned, &Assigned { ride: view, from_seq })
}

/// Tells somebody that a ride is no longer theirs: of its log they have what goes up to `last_seq`.
pub(super) fn tell_removed(ledger: &mut Ledger, user: &UserId, ride: &RideId, last_seq: Seq) -> Result<()> {
    ledger.tell(user, EventType::RideClosed, &RideClosed { ride_id: ride, last_seq, reason: ClosedReason::Removed })
}

/// Closes a ride and tells its people, once the chat window has passed for everyone.
#[derive(Debug)]
pub struct CloseRide {
    /// Which.
    pub ride: RideId,
}

impl Command for CloseRide {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<()> {
        let snapshot = ledger.ride(&self.ride)?;
        // Every replica finds the same rides to close: whoever comes second finds it done.
        if !snapshot.is_to_be_closed() {
            return Ok(());
        }
        let mut ride = snapshot.ride.clone();
        let last_seq = snapshot.head;
        let people: Vec<UserId> = snapshot.present().map(|person| person.user.clone()).collect();
        ride.closed_at = Some(ledger.now());
        ride.closed_seq = Some(last_seq);
        ledger.change_ride(ride)?;
        let closed = RideClosed { ride_id: &self.ride, last_seq, reason: ClosedReason::RideOver };
        people.iter().try_for_each(|user| ledger.tell(user, EventType::RideClosed, &closed))
    }
}

/// The longest time for which a ride is opened again.
const LONGEST_REOPENING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Opens the chat of a ride that has ended again, until a time.
#[derive(Debug)]
pub struct ReopenRide {
    /// Who: support, service.
    pub caller: Caller,
    /// Which.
    pub ride: RideId,
    /// Until when.
    pub until: Time,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// `ride:reopened`. On a user's topic it says from where on the ride is followed again.
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

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<RideSnapshot> {
        if !self.caller.role.is_staff() {
            return Err(Error::Forbidden("only support and the service may reopen a ride"));
        }
        let (now, snapshot) = (ledger.now(), ledger.ride(&self.ride)?);
        if self.until <= now || self.until > now.plus(LONGEST_REOPENING) {
            return Err(Error::invalid("/until", "must be in the future, at most 30 days ahead"));
        }
        if !snapshot.ride.status.is_ended() {
            return Err(Error::RideConflict("the ride has not ended"));
        }
        let before = snapshot.ride.clone();
        let mut ride = before.clone();
        ride.reopen(self.until, now);
        // The same again changes nothing.
        if before.has_opened && before.closed_at.is_none() && before.closes == ride.closes {
            return ledger.answer(&self.ride);
        }
        let people: Vec<UserId> = snapshot.present().map(|person| person.user.clone()).collect();
        ledger.change_ride(ride.clone())?;
        let view = || ride.view(ride.chat(now));
        let (by, until, reason) = (&self.caller.user, self.until, self.reason.as_deref());
        let told = Reopened { ride: view(), by, until, reason, from_seq: None };
        let seq = ledger.append(&self.ride, EventType::RideReopened, None, |_| told)?;
        // What was written to the log while the ride was closed (deletions, receipts) belongs to those who follow it again.
        let last = before.closed_at.and(before.closed_seq).unwrap_or(seq - 1);
        let told = Reopened { ride: view(), by, until, reason, from_seq: Some(last + 1) };
        people.iter().try_for_each(|user| ledger.tell(user, EventType::RideReopened, &told))?;
        ledger.answer(&self.ride)
    }
}
