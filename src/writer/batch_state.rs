//! The state of a batch: what it has loaded, and the changes that it will store.
//!
//! Commands are applied to this state one after the other, and each sees the changes of those before it. Two commands of one batch
//! for the same message or the same ride therefore conflict here as they would in two transactions. Nothing here accesses the
//! database.

mod user_events;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;

pub(super) use self::user_events::ReceivedRows;
use super::stored_events::{Relayed, StoredEvents};
use crate::domain::{
    BatchId, ClientMessageId, Error, EventType, Labels, LocalShard, Message, MessageId, NewEvent, Participant, Receipt,
    Result, Ride, RideAtLeave, RideId, RideRole, RideSnapshot, Seq, Time, Topic, TraceContext, UserId,
};
use crate::store::hints::Hints;
use crate::store::{OutboxEvent, RemoteRide};

/// The last message of another user at or before a seq, by ride, user and this seq. A watermark can only have such a value.
pub(super) type LastOfOthers = HashMap<(RideId, UserId, Seq), (Seq, MessageId)>;

/// What a batch decides by, beside the state of the database.
#[derive(Debug, Clone, Copy)]
pub struct BatchRules {
    /// How long a chat stays open after its ride's end, if the ride has no chat policy.
    pub chat_grace: Duration,
    /// The writer's shard.
    pub shard: LocalShard,
}

/// The loaded rides and messages of a batch, and its changes to them.
#[derive(Debug)]
pub struct BatchState {
    batch: BatchId,
    /// For each ride, the batch that wrote the last event of the log to which commands are applied.
    expected_batch: HashMap<RideId, BatchId>,
    now: Time,
    rules: BatchRules,
    rides: HashMap<RideId, RideSnapshot>,
    messages: HashMap<MessageId, Message>,
    by_client_id: HashMap<(RideId, UserId, ClientMessageId), MessageId>,
    last_of_others: LastOfOthers,
    /// What was loaded to receive the rows of other shards' outboxes.
    pub(super) received: ReceivedRows,
    /// The trace of the command that is being applied.
    pub(super) trace: Option<TraceContext>,
    pub(super) changes: Changes,
    /// The positions on the feed that the batch's transaction has assigned.
    pub(super) relayed: Option<Relayed>,
    /// Whether the transaction may have added rows to the outbox.
    pub(super) has_outbox_rows: bool,
}

/// The changes that a batch stores.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) events: Vec<NewEvent>,
    /// Events on user topics, without a seq. Their topics are locked after all commands are applied, because only then are they known.
    pub(super) user_events: Vec<(Topic, EventType, String, Option<TraceContext>)>,
    /// Events for users of other shards.
    pub(super) outbox_events: Vec<(RideId, UserId, OutboxEvent)>,
    /// Entries in the lists of this shard's users, about rides of other shards.
    pub(super) remote_rides: BTreeMap<(UserId, RideId), (i64, Option<RemoteRide>)>,
    pub(super) rides: BTreeSet<RideId>,
    pub(super) receipts: BTreeMap<(RideId, UserId), Receipt>,
    pub(super) new_messages: Vec<MessageId>,
    pub(super) changed_messages: BTreeSet<MessageId>,
    pub(super) erased_messages: BTreeSet<MessageId>,
    pub(super) erased_reactions: Vec<(MessageId, UserId)>,
    pub(super) flags: Vec<Flag>,
}

/// A message that moderation has flagged, for the feed.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) message: MessageId,
    pub(super) topic: Topic,
    pub(super) seq: Seq,
    pub(super) labels: Labels,
}

impl BatchState {
    /// Creates the state of a batch. Each of `rides` comes with the batch that wrote the last event of its log.
    pub(super) fn new(
        now: Time,
        rules: BatchRules,
        rides: impl IntoIterator<Item = (RideSnapshot, BatchId)>,
        messages: impl IntoIterator<Item = Message>,
        last_of_others: LastOfOthers,
    ) -> Self {
        let messages: HashMap<_, _> = messages.into_iter().map(|message| (message.id, message)).collect();
        let by_client_id = |message: &Message| {
            let client_id = message.client_message_id.clone()?;
            Some(((message.ride.clone(), message.sender.clone(), client_id), message.id))
        };
        let rides = rides.into_iter();
        let (expected_batch, rides) = rides
            .map(|(snapshot, batch)| {
                // Times are compared with the time of this batch, whenever the rest was read.
                let snapshot = RideSnapshot { read_at: now, ..snapshot };
                ((snapshot.ride.id.clone(), batch), (snapshot.ride.id.clone(), snapshot))
            })
            .unzip();
        Self {
            // 0 means none: a topic has it before its first event.
            batch: fastrand::i64(1..),
            expected_batch,
            now,
            rules,
            rides,
            by_client_id: messages.values().filter_map(by_client_id).collect(),
            messages,
            last_of_others,
            received: ReceivedRows::default(),
            trace: None,
            changes: Changes::default(),
            relayed: None,
            has_outbox_rows: false,
        }
    }

    /// Returns the time of this batch, by the database's clock. On the locking path it is later than the locks.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns how long a chat stays open after its ride's end, if the ride has no chat policy.
    pub fn chat_grace(&self) -> Duration {
        self.rules.chat_grace
    }

    /// Generates the id of a new message.
    pub fn new_message_id(&self) -> MessageId {
        self.rules.shard.new_message_id()
    }

    /// Returns the current state of a ride, if the ride exists.
    pub fn find_ride(&self, id: &RideId) -> Option<&RideSnapshot> {
        self.rides.get(id)
    }

    /// Returns the current state of a ride.
    pub fn ride(&self, id: &RideId) -> Result<&RideSnapshot> {
        self.find_ride(id).ok_or(Error::RideNotFound)
    }

    /// Returns a copy of the current state of a ride, for a response.
    pub fn ride_snapshot(&self, id: &RideId) -> Result<RideSnapshot> {
        self.ride(id).cloned()
    }

    /// Returns the current state of a message.
    pub fn message(&self, id: MessageId) -> Result<&Message> {
        self.messages.get(&id).ok_or(Error::MessageNotFound)
    }

    /// Returns the message that this sender has sent with this `clientMessageId`.
    pub fn message_by_client_id(
        &self,
        ride: &RideId,
        sender: &UserId,
        client_id: &ClientMessageId,
    ) -> Option<&Message> {
        let id = self.by_client_id.get(&(ride.clone(), sender.clone(), client_id.clone()))?;
        self.messages.get(id)
    }

    /// Returns the last message of another user at or before `up_to`, if a command has added it to the read set.
    pub fn last_of_others(&self, ride: &RideId, user: &UserId, up_to: Seq) -> Option<(Seq, MessageId)> {
        self.last_of_others.get(&(ride.clone(), user.clone(), up_to)).copied()
    }

    /// Appends an event to a ride's log. `data` receives the event's seq.
    pub fn append_ride_event<D: Serialize>(
        &mut self,
        ride: &RideId,
        kind: EventType,
        message: Option<MessageId>,
        data: impl FnOnce(Seq) -> D,
    ) -> Result<Seq> {
        let snapshot = self.rides.get_mut(ride).ok_or(Error::RideNotFound)?;
        let seq = snapshot.head + 1;
        let data = serde_json::to_string(&data(seq)).map_err(|_| Error::Internal)?;
        snapshot.head = seq;
        let (topic, trace) = (Topic::ride(ride), self.trace);
        self.changes.events.push(NewEvent { topic, seq, kind, data, message, trace });
        Ok(seq)
    }

    /// Returns the encoded data of the last event that was appended to a ride.
    pub fn last_event_data(&self) -> Result<&str> {
        self.changes.events.last().map(|event| event.data.as_str()).ok_or(Error::Internal)
    }

    /// Adds a new ride, with an empty log.
    pub fn create_ride(&mut self, ride: Ride) {
        let id = ride.id.clone();
        self.changes.rides.insert(id.clone());
        let snapshot = RideSnapshot {
            head: 0,
            ride,
            participants: Vec::new(),
            receipts: Default::default(),
            location: None,
            read_at: self.now,
            last_batch: 0,
        };
        self.rides.insert(id, snapshot);
    }

    /// Replaces the state of a ride.
    pub fn change_ride(&mut self, ride: Ride) -> Result<()> {
        let snapshot = self.rides.get_mut(&ride.id).ok_or(Error::RideNotFound)?;
        self.changes.rides.insert(ride.id.clone());
        snapshot.ride = ride;
        Ok(())
    }

    /// Adds and removes participants of a ride at the event `seq`. It is the last event for those who leave, and the first for those
    /// who join.
    pub fn change_participants(&mut self, ride: &RideId, seq: Seq, joined: &[(UserId, RideRole)], left: &[UserId]) {
        let Some(snapshot) = self.rides.get_mut(ride) else { return };
        self.changes.rides.insert(ride.clone());
        let Ride { status, updated_at, chat_policy, .. } = snapshot.ride;
        let ride_at_leave = RideAtLeave { status, updated_at, chat_policy };
        for participant in &mut snapshot.participants {
            if participant.until_seq.is_none() && left.contains(&participant.user) {
                participant.until_seq = Some(seq);
                participant.ride_at_leave = Some(ride_at_leave);
            }
        }
        let joined = joined.iter().cloned();
        snapshot.participants.extend(joined.map(|(user, role)| Participant {
            user,
            role,
            from_seq: seq,
            until_seq: None,
            presence: None,
            ride_at_leave: None,
        }));
    }

    /// Adds a message whose event was just appended.
    pub fn add_message(&mut self, message: Message) {
        if let Some(client_id) = message.client_message_id.clone() {
            self.by_client_id.insert((message.ride.clone(), message.sender.clone(), client_id), message.id);
        }
        self.changes.new_messages.push(message.id);
        self.messages.insert(message.id, message);
    }

    /// Replaces the state of a message.
    pub fn change_message(&mut self, message: Message) {
        if message.deleted_at.is_some() {
            self.changes.erased_messages.insert(message.id);
        }
        self.changes.changed_messages.insert(message.id);
        self.messages.insert(message.id, message);
    }

    /// Records that the user is to be erased from all earlier reaction events of a message.
    pub fn erase_reactions(&mut self, message: MessageId, user: UserId) {
        self.changes.erased_reactions.push((message, user));
    }

    /// Records for the feed that a message, which was just added or changed, is flagged, if it has labels.
    pub fn flag_message(&mut self, id: MessageId) {
        let Some(message) = self.messages.get(&id) else { return };
        let Some(labels) = message.labels.clone() else { return };
        // A new message is stored without labels, because few messages have any. They are stored like those of an edited message.
        self.changes.changed_messages.insert(id);
        self.changes.flags.push(Flag { message: id, topic: Topic::ride(&message.ride), seq: message.seq, labels });
    }

    /// Replaces a user's receipt, which has the user's watermarks.
    pub fn change_receipt(&mut self, ride: &RideId, receipt: Receipt) {
        let Some(snapshot) = self.rides.get_mut(ride) else { return };
        let receipts = &mut snapshot.receipts.0;
        receipts.retain(|old| old.user != receipt.user);
        receipts.push(receipt.clone());
        self.changes.receipts.insert((ride.clone(), receipt.user.clone()), receipt);
    }
}

/// What the transaction stores.
impl BatchState {
    /// Returns the id of this attempt to commit the batch.
    pub(super) fn batch(&self) -> BatchId {
        self.batch
    }

    /// Returns the batch that wrote the last event of the topic's log to which commands were applied, if the topic was loaded.
    pub(super) fn expected_batch(&self, topic: &Topic) -> Option<BatchId> {
        self.expected_batch.get(topic.ride_id()?).copied()
    }

    /// Whether there is nothing to store.
    pub(super) fn is_unchanged(&self) -> bool {
        let Changes { events, user_events, outbox_events, remote_rides, .. } = &self.changes;
        events.is_empty() && user_events.is_empty() && outbox_events.is_empty() && remote_rides.is_empty()
    }

    /// Returns the number of events that were appended so far. A command that changes nothing appends none.
    pub(super) fn event_count(&self) -> usize {
        self.changes.events.len() + self.changes.user_events.len()
    }

    /// Keeps only these topics, because the others were not stored.
    pub(super) fn retain_topics(&mut self, topics: &HashSet<Topic>) {
        self.changes.events.retain(|event| topics.contains(&event.topic));
        self.rides.retain(|ride, _| topics.contains(&Topic::ride(ride)));
    }

    /// Removes and returns the stored events.
    pub(super) fn take_events(&mut self) -> StoredEvents {
        let (events, has_outbox_rows) = (std::mem::take(&mut self.changes.events), self.has_outbox_rows);
        StoredEvents { events, relayed: self.relayed.take(), has_outbox_rows }
    }

    /// Removes the rides, and returns those that may be cached, each with the batch that wrote the last event of its log.
    ///
    /// - A ride whose state or participants this batch has changed is not cached. It is loaded again when it is next needed.
    /// - An ended ride is not cached. The database's clock decides until when its participants may write, and no event of its log
    ///   records the closing. So every write to it takes the locking path.
    pub(super) fn take_cacheable_rides(&mut self) -> Vec<(RideSnapshot, BatchId)> {
        let rides = std::mem::take(&mut self.rides);
        let ranges = self.event_ranges();
        let is_cacheable = |snapshot: &RideSnapshot| {
            !self.changes.rides.contains(&snapshot.ride.id) && !snapshot.ride.status.is_ended()
        };
        let cacheable = rides.into_values().filter(is_cacheable);
        let cacheable = cacheable.filter_map(|snapshot| {
            let topic = Topic::ride(&snapshot.ride.id);
            let batch = if ranges.contains_key(&topic) { self.batch } else { self.expected_batch(&topic)? };
            Some((snapshot, batch))
        });
        cacheable.collect()
    }

    /// Returns the seqs of the first and the last new event of each topic.
    pub(super) fn event_ranges(&self) -> BTreeMap<&Topic, (Seq, Seq)> {
        let mut ranges = BTreeMap::new();
        for event in &self.changes.events {
            ranges.entry(&event.topic).or_insert((event.seq, event.seq)).1 = event.seq;
        }
        ranges
    }

    /// Returns the new heads of the topics, as hints for other replicas.
    pub(super) fn hints(&self) -> Hints {
        let heads = self.event_ranges().into_iter().map(|(topic, (_, last))| (topic.clone(), last));
        Hints { heads: heads.collect(), ..Hints::default() }
    }

    pub(super) fn changed_rides(&self) -> impl Iterator<Item = &RideSnapshot> {
        self.changes.rides.iter().filter_map(|id| self.rides.get(id))
    }

    /// Returns the closed rides that have changed, or in which a user's watermarks have.
    pub(super) fn changed_closed_rides(&self) -> BTreeSet<&RideId> {
        let with_receipts = self.changes.receipts.keys().map(|(ride, _)| ride);
        let changed = self.changes.rides.iter().chain(with_receipts);
        changed.filter(|id| self.rides.get(*id).is_some_and(|snapshot| snapshot.ride.closed_at.is_some())).collect()
    }

    pub(super) fn new_messages(&self) -> impl Iterator<Item = &Message> {
        self.changes.new_messages.iter().filter_map(|id| self.messages.get(id))
    }

    pub(super) fn changed_messages(&self) -> impl Iterator<Item = &Message> {
        self.changes.changed_messages.iter().filter_map(|id| self.messages.get(id))
    }

    /// Returns the deleted messages, each with the data that replaces the data of its events.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = (&Message, String)> {
        let erased = self.changes.erased_messages.iter().filter_map(|id| self.messages.get(id));
        erased.filter_map(|message| {
            let receipts = &self.rides.get(&message.ride)?.receipts;
            Some((message, message.to_json(receipts)))
        })
    }
}
