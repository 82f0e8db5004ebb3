//! Applying the rows of another shard's outbox.

use crate::domain::{Result, ShardId};
use crate::store::OutboxRow;
use crate::writer::{BatchState, Command, ReadSet};

/// Applies rows of another shard's outbox: appends their events to the topics of this shard's users, and updates the users' lists of
/// rides.
#[derive(Debug)]
pub struct ReceiveRows {
    /// The other shard.
    pub from: ShardId,
    /// The rows, in the order of their ids.
    pub rows: Vec<OutboxRow>,
}

impl Command for ReceiveRows {
    type Output = ();

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_outbox_rows(self.from, self.rows.iter().map(|row| (row.user.clone(), row.ride.clone())));
    }

    fn apply(&self, state: &mut BatchState) -> Result<()> {
        state.receive(self.from, &self.rows)
    }
}
