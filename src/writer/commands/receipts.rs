//! Read and delivery receipts: the watermarks up to which a user has received and read the messages of a ride.

use serde::Serialize;

use crate::domain::{Caller, Error, EventType, MessageId, Receipt, Result, RideId, RideRole, Seq, Time, UserId};
use crate::writer::{BatchState, Command, ReadSet};

/// Which of the two watermarks to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptKind {
    /// The message has reached the user's device.
    Delivered,
    /// The user has read the message. It is also delivered then.
    Read,
}

/// Moves a watermark forward, up to a seq. A watermark that is already there or beyond does not move.
#[derive(Debug)]
pub struct UpdateReceipt {
    /// The user whose watermark moves.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
    /// The watermark.
    pub kind: ReceiptKind,
    /// The watermark moves to the last message of another user at or before this seq that the caller may see.
    pub up_to: Seq,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptUpdated<'a> {
    ride_id: &'a RideId,
    user_id: &'a UserId,
    seq: Seq,
    message_id: MessageId,
    at: Time,
}

impl Command for UpdateReceipt {
    type Output = Receipt;

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
        read_set.last_of_others.push((self.ride.clone(), self.caller.user.clone(), self.up_to));
    }

    fn apply(&self, state: &mut BatchState) -> Result<Receipt> {
        let snapshot = state.ride(&self.ride)?;
        let access = snapshot.require_access(&self.caller)?;
        if access.role == RideRole::System {
            return Err(Error::Forbidden("the `service` role has no receipts"));
        }
        let mut receipt = snapshot.receipts.of(&self.caller.user, access.role);
        receipt.role = access.role;
        let Some((seq, message)) = state.last_of_others(&self.ride, &self.caller.user, self.up_to) else {
            return Ok(receipt);
        };
        let (watermark, event) = match self.kind {
            ReceiptKind::Delivered => (&mut receipt.delivered_seq, EventType::MessageDelivered),
            ReceiptKind::Read => (&mut receipt.read_seq, EventType::MessageRead),
        };
        // A message that the caller may not see cannot have reached them: the same batch may have added or removed them as a participant.
        // A watermark that does not move creates no event.
        if seq <= *watermark || !snapshot.access_intervals(&self.caller).contains(seq) {
            return Ok(receipt);
        }
        *watermark = seq;
        receipt.delivered_seq = receipt.delivered_seq.max(receipt.read_seq);
        let at = state.now();
        state.append_ride_event(&self.ride, event, None, |_| ReceiptUpdated {
            ride_id: &self.ride,
            user_id: &self.caller.user,
            seq,
            message_id: message,
            at,
        })?;
        state.change_receipt(&self.ride, receipt.clone());
        Ok(receipt)
    }
}
