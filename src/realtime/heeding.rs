//! Who else is told of what other replicas have written.

use std::fmt;

use tokio::time::Instant;

use crate::domain::{Seq, Topic};
use crate::store::StoredEvent;
use crate::store::hints::Heads;

/// What has come of the other replicas' writes.
#[derive(Debug, Clone, Copy)]
pub enum Heard<'a> {
    /// Where logs are said to end.
    Heads(&'a Heads),
    /// What a log has after some place, as the database said when it was asked.
    Events {
        /// Whose log.
        topic: &'a Topic,
        /// The place.
        after: Seq,
        /// The next there are.
        events: &'a [StoredEvent],
        /// Not after the moment of asking.
        asked: Instant,
    },
}

/// Is told of it.
pub struct Heeding(Box<dyn Fn(Heard<'_>) + Send + Sync>);

impl Heeding {
    /// Calls this with all that comes.
    pub fn new(heeding: impl Fn(Heard<'_>) + Send + Sync + 'static) -> Self {
        Self(Box::new(heeding))
    }

    pub(super) fn heed(&self, heard: Heard<'_>) {
        (self.0)(heard);
    }
}

impl fmt::Debug for Heeding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heeding")
    }
}
