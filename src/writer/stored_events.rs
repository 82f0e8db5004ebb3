//! The events of a commit, and their positions on the feed.

use std::collections::HashMap;

use crate::domain::{NewEvent, Seq, Time, Topic};

/// The positions on the feed that a batch has assigned, to its own events and possibly to those of other batches.
#[derive(Debug)]
pub struct Relayed {
    /// The end of the feed.
    pub(super) last: Seq,
    /// When the batch's own events were committed, as in their log.
    pub at: Time,
    /// Whether other batches may wait for positions.
    pub(super) has_more: bool,
    /// For each topic of the batch, the seq and the position of its first event. The others follow without holes.
    pub(super) first_positions: HashMap<Topic, (Seq, Seq)>,
}

impl Relayed {
    /// Returns the position of an event of the batch, if it has one.
    pub fn position(&self, event: &NewEvent) -> Option<Seq> {
        let (first_seq, first_position) = self.first_positions.get(&event.topic)?;
        Some(first_position + event.seq - first_seq)
    }
}

/// The events of a commit that was not published yet.
#[derive(Debug, Default)]
pub(super) struct StoredEvents {
    pub(super) events: Vec<NewEvent>,
    pub(super) relayed: Option<Relayed>,
    pub(super) has_outbox_rows: bool,
}
