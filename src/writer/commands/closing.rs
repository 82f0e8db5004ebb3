//! What a user is told of the rides that become theirs and cease to be, and the end of a ride for good.

use serde::Serialize;

use crate::domain::{ClosedReason, EventType, Result, Ride, RideClosed, RideId, RideView, Seq, UserId};
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
    let view = ride.view(ledger.now(), ledger.chat_grace());
    ledger.tell(user, EventType::RideAssigned, &Assigned { ride: view, from_seq })
}

/// Tells somebody that a ride is no longer theirs: of its log they have what goes up to `last_seq`.
pub(super) fn tell_removed(ledger: &mut Ledger, user: &UserId, ride: &RideId, last_seq: Seq) -> Result<()> {
    ledger.tell(user, EventType::RideClosed, &RideClosed { ride_id: ride, last_seq, reason: ClosedReason::Removed })
}

/// Tells a ride's people that it is over for good, once the grace after its end has passed.
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
        if snapshot.ride.closed_at.is_some() || !snapshot.ride.is_closed(ledger.now(), ledger.chat_grace()) {
            return Ok(());
        }
        let mut ride = snapshot.ride.clone();
        let last_seq = snapshot.head;
        let people: Vec<UserId> = snapshot.present().map(|person| person.user.clone()).collect();
        ride.closed_at = Some(ledger.now());
        ledger.change_ride(ride)?;
        let closed = RideClosed { ride_id: &self.ride, last_seq, reason: ClosedReason::RideOver };
        people.iter().try_for_each(|user| ledger.tell(user, EventType::RideClosed, &closed))
    }
}
