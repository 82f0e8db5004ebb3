//! The events of a batch for users: on the topics of this shard's users, and in the outbox for users of other shards.
//!
//! Invariants:
//! - An event for a user of another shard is stored in the outbox by the transaction that stores the ride's events.
//! - A row of another shard's outbox is applied once: its id is compared with that of the last applied row of the same user and ride, under
//!   the lock of the other shard.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::BatchState;
use crate::domain::{Error, EventType, NewEvent, Result, RideId, Seq, ShardId, Topic, UserId};
use crate::store::{OutboxEvent, OutboxRow, StoreError};

/// What was loaded to receive the rows of other shards' outboxes.
#[derive(Debug, Default)]
pub(in crate::writer) struct ReceivedRows {
    /// The shards whose locks this transaction holds.
    pub(in crate::writer) locked: HashSet<ShardId>,
    /// The last row that was applied for a user and a ride.
    pub(in crate::writer) last_ids: HashMap<(UserId, RideId), i64>,
}

impl BatchState {
    /// Appends an event about a ride to a user's topic, or to the outbox if the topic is in another shard.
    pub fn append_user_event(
        &mut self,
        user: &UserId,
        ride: &RideId,
        kind: EventType,
        data: &impl Serialize,
    ) -> Result<()> {
        let data = serde_json::to_string(data).map_err(|_| Error::Internal)?;
        if self.rules.shard.other_of_user(user).is_some() {
            let event = OutboxEvent { kind, data, trace: self.trace };
            self.changes.outbox_events.push((ride.clone(), user.clone(), event));
        } else {
            self.push_user_event(user, OutboxEvent { kind, data, trace: self.trace });
        }
        Ok(())
    }

    /// Appends a notice to the topic of a user of this shard.
    pub fn append_notice(&mut self, user: &UserId, data: &impl Serialize) -> Result<()> {
        let data = serde_json::to_string(data).map_err(|_| Error::Internal)?;
        self.push_user_event(user, OutboxEvent { kind: EventType::Notice, data, trace: self.trace });
        Ok(())
    }

    /// Applies rows of another shard's outbox, except for those that were applied before.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`]: another transaction applies rows of the same shard at the moment.
    pub fn receive(&mut self, from: ShardId, rows: &[OutboxRow]) -> Result<()> {
        if !self.received.locked.contains(&from) {
            return Err(Error::Unavailable);
        }
        for row in rows {
            let key = (row.user.clone(), row.ride.clone());
            let last_id = self.received.last_ids.entry(key.clone()).or_default();
            if row.id <= *last_id {
                continue;
            }
            *last_id = row.id;
            if let Some(event) = row.event.clone() {
                self.push_user_event(&row.user, event);
            }
            self.changes.remote_rides.insert(key, (row.id, row.entry.clone()));
        }
        Ok(())
    }

    /// Appends an event to the topic of a user of this shard. It gets its seq later: user topics are locked after all commands are
    /// applied, when they are known.
    fn push_user_event(&mut self, user: &UserId, OutboxEvent { kind, data, trace }: OutboxEvent) {
        self.changes.user_events.push((Topic::user(user), kind, data, trace));
    }

    /// Returns the rides whose participants in other shards receive something, if there are other shards.
    pub(in crate::writer) fn reported_rides(&self) -> Vec<&str> {
        if self.rules.shard.map.count() == 1 {
            return Vec::new();
        }
        // Receipts change the entry of a closed ride, which says whether the user has read everything.
        let mut rides = self.changed_closed_rides();
        rides.extend(&self.changes.rides);
        rides.into_iter().map(RideId::as_str).collect()
    }

    /// Returns the shard of a user's topic, if it is not this one.
    pub(in crate::writer) fn other_shard_of(&self, user: &UserId) -> Option<i64> {
        self.rules.shard.other_of_user(user).map(|shard| i64::from(shard.number()))
    }

    /// Returns the topics of all user events from the index `first` on.
    pub(in crate::writer) fn user_topics_since(&self, first: usize) -> Vec<Topic> {
        self.changes.user_events.iter().skip(first).map(|(topic, ..)| topic.clone()).collect()
    }

    /// Returns the topics of all user events, in lock order.
    pub(in crate::writer) fn user_topics(&self) -> BTreeSet<&Topic> {
        self.changes.user_events.iter().map(|(topic, ..)| topic).collect()
    }

    /// Assigns seqs to the user events. Their topics are locked, and their logs end at `heads`.
    pub(in crate::writer) fn assign_seqs(&mut self, mut heads: HashMap<Topic, Seq>) -> Result<(), StoreError> {
        for (topic, kind, data, trace) in std::mem::take(&mut self.changes.user_events) {
            let head = heads.get_mut(&topic).ok_or(StoreError::Corrupt("topic"))?;
            *head += 1;
            self.changes.events.push(NewEvent { topic, seq: *head, kind, data, message: None, trace });
        }
        Ok(())
    }

    /// Whether any event is on a user topic.
    pub(in crate::writer) fn has_user_events(&self) -> bool {
        !self.changes.user_events.is_empty()
    }
}
