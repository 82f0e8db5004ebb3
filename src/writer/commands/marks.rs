//! Receipts: how far somebody has received and read a ride.

use serde::Serialize;

use crate::domain::{Caller, Error, EventType, MessageId, Receipt, Result, RideId, RideRole, Seq, Time, UserId};
use crate::writer::{Command, Ledger, Needs};

/// Which of the two watermarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// It has reached their device.
    Delivered,
    /// They have seen it; so it has reached them, too.
    Read,
}

/// Moves a watermark up to a place in the log; or leaves it, where it is further already.
#[derive(Debug)]
pub struct Mark {
    /// Whose.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
    /// Which.
    pub kind: MarkKind,
    /// Up to and including the last message of somebody else that is not past this and that the caller may see.
    pub up_to: Seq,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Marked<'a> {
    ride_id: &'a RideId,
    user_id: &'a UserId,
    seq: Seq,
    message_id: MessageId,
    at: Time,
}

impl Command for Mark {
    type Output = Receipt;

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.last_of_others.push((self.ride.clone(), self.caller.user.clone(), self.up_to));
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<Receipt> {
        let snapshot = ledger.ride(&self.ride)?;
        let access = snapshot.admit(&self.caller)?;
        if access.role == RideRole::System {
            return Err(Error::Forbidden("the platform itself has no receipts"));
        }
        let mut receipt = snapshot.receipts.of(&self.caller.user, access.role);
        receipt.role = access.role;
        let Some((seq, message)) = ledger.last_of_others(&self.ride, &self.caller.user, self.up_to) else {
            return Ok(receipt);
        };
        let (mark, event) = match self.kind {
            MarkKind::Delivered => (&mut receipt.delivered_seq, EventType::MessageDelivered),
            MarkKind::Read => (&mut receipt.read_seq, EventType::MessageRead),
        };
        // What is not theirs cannot have reached them (they may have been put on the ride or taken off it in this very batch),
        // and a mark that does not move says nothing.
        if seq <= *mark || !snapshot.parts(&self.caller).contains(seq) {
            return Ok(receipt);
        }
        *mark = seq;
        receipt.delivered_seq = receipt.delivered_seq.max(receipt.read_seq);
        let at = ledger.now();
        ledger.append(&self.ride, event, None, |_| Marked {
            ride_id: &self.ride,
            user_id: &self.caller.user,
            seq,
            message_id: message,
            at,
        })?;
        ledger.change_receipt(&self.ride, receipt.clone());
        Ok(receipt)
    }
}
