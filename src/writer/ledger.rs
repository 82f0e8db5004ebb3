//! What a batch knows and changes, in memory, between loading and storing.
//!
//! Commands are judged one after the other against the ledger, each seeing what those before it did; so two of
//! one batch that are the same message, or two that want the same ride, meet here as they would meet in two
//! transactions. Nothing here touches the database.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use crate::domain::{
    BatchId, ClientMessageId, Error, EventType, Labels, LeftAs, Message, MessageId, NewEvent, Participant, Receipt,
    Result, Ride, RideId, RideRole, RideSnapshot, Seq, Time, Topic, TraceContext, UserId,
};
use crate::store::StoreError;
use crate::store::hints::Hints;

/// Where a watermark may stand: the last message of somebody else at or before some seq.
pub(super) type Marks = HashMap<(RideId, UserId, Seq), (Seq, MessageId)>;

/// The state of everything that a batch is about.
#[derive(Debug)]
pub struct Ledger {
    batch: BatchId,
    /// Which batch wrote the end of each ride's log that commands are judged at.
    judged_at: HashMap<RideId, BatchId>,
    now: Time,
    chat_grace: Duration,
    rides: HashMap<RideId, RideSnapshot>,
    messages: HashMap<MessageId, Message>,
    sent: HashMap<(RideId, UserId, ClientMessageId), MessageId>,
    marks: Marks,
    /// Where the command that is being judged is traced.
    pub(super) trace: Option<TraceContext>,
    pub(super) changes: Changes,
}

/// What a batch has to store.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) events: Vec<NewEvent>,
    /// What users are told on topics of their own, which are locked once it is known whose they are; not numbered yet.
    pub(super) told: Vec<(Topic, EventType, String, Option<TraceContext>)>,
    pub(super) rides: BTreeSet<RideId>,
    pub(super) receipts: BTreeMap<(RideId, UserId), Receipt>,
    pub(super) new_messages: Vec<MessageId>,
    pub(super) changed_messages: BTreeSet<MessageId>,
    pub(super) erased_messages: BTreeSet<MessageId>,
    pub(super) erased_reactions: Vec<(MessageId, UserId)>,
    pub(super) flags: Vec<Flag>,
}

/// A message that was flagged, for the feed.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) message: MessageId,
    pub(super) topic: Topic,
    pub(super) seq: Seq,
    pub(super) labels: Labels,
}

impl Ledger {
    /// `rides` are each with the batch that wrote the end of its log.
    pub(super) fn new(
        now: Time,
        chat_grace: Duration,
        rides: impl IntoIterator<Item = (RideSnapshot, BatchId)>,
        messages: impl IntoIterator<Item = Message>,
        marks: Marks,
    ) -> Self {
        let messages: HashMap<_, _> = messages.into_iter().map(|message| (message.id, message)).collect();
        let name = |message: &Message| {
            let name = message.client_message_id.clone()?;
            Some(((message.ride.clone(), message.sender.clone(), name), message.id))
        };
        let rides = rides.into_iter();
        let (judged_at, rides) = rides
            .map(|(snapshot, batch)| {
                // Times are compared with that of this batch, whenever the rest was read.
                let snapshot = RideSnapshot { read_at: now, ..snapshot };
                ((snapshot.ride.id.clone(), batch), (snapshot.ride.id.clone(), snapshot))
            })
            .unzip();
        Self {
            // None is 0: that is what a topic has before its first event.
            batch: fastrand::i64(1..),
            judged_at,
            now,
            chat_grace,
            rides,
            sent: messages.values().filter_map(name).collect(),
            messages,
            marks,
            trace: None,
            changes: Changes::default(),
        }
    }

    /// The time of this batch: the database's, younger than its locks.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How long a chat stays open after its ride's end, where the ride has no policy of its own.
    pub fn chat_grace(&self) -> Duration {
        self.chat_grace
    }

    /// A ride as it is now, if there is one.
    pub fn find_ride(&self, id: &RideId) -> Option<&RideSnapshot> {
        self.rides.get(id)
    }

    /// A ride as it is now.
    pub fn ride(&self, id: &RideId) -> Result<&RideSnapshot> {
        self.find_ride(id).ok_or(Error::RideNotFound)
    }

    /// A ride as it is after what was judged so far, for an answer.
    pub fn answer(&self, id: &RideId) -> Result<RideSnapshot> {
        self.ride(id).cloned()
    }

    /// A message as it is now.
    pub fn message(&self, id: MessageId) -> Result<&Message> {
        self.messages.get(&id).ok_or(Error::MessageNotFound)
    }

    /// The message that a sender has named so before.
    pub fn sent(&self, ride: &RideId, sender: &UserId, name: &ClientMessageId) -> Option<&Message> {
        let id = self.sent.get(&(ride.clone(), sender.clone(), name.clone()))?;
        self.messages.get(id)
    }

    /// The last message of somebody else at or before `up_to`, as far as a command has asked for it.
    pub fn last_of_others(&self, ride: &RideId, user: &UserId, up_to: Seq) -> Option<(Seq, MessageId)> {
        self.marks.get(&(ride.clone(), user.clone(), up_to)).copied()
    }

    /// Appends an event to a ride's log. `data` is given the event's seq.
    pub fn append<D: Serialize>(
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

    /// Tells a user something on their own topic. Its seq comes later: whom a batch has something to tell is known
    /// when it has been judged, and only then are their topics locked.
    pub fn tell(&mut self, user: &UserId, kind: EventType, data: &impl Serialize) -> Result<()> {
        let data = serde_json::to_string(data).map_err(|_| Error::Internal)?;
        self.changes.told.push((Topic::user(user), kind, data, self.trace));
        Ok(())
    }

    /// What the last event of a ride says, as it was encoded.
    pub fn last_data(&self) -> Result<&str> {
        self.changes.events.last().map(|event| event.data.as_str()).ok_or(Error::Internal)
    }

    /// Begins the log of a ride that was not there.
    pub fn open_ride(&mut self, ride: Ride) {
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

    /// Puts a ride's new state in place of the old.
    pub fn change_ride(&mut self, ride: Ride) -> Result<()> {
        let snapshot = self.rides.get_mut(&ride.id).ok_or(Error::RideNotFound)?;
        self.changes.rides.insert(ride.id.clone());
        snapshot.ride = ride;
        Ok(())
    }

    /// Brings people onto a ride and takes others off, both at the event `seq`, which is the last for those who
    /// leave and the first for those who join.
    pub fn change_participants(&mut self, ride: &RideId, seq: Seq, joined: &[(UserId, RideRole)], left: &[UserId]) {
        let Some(snapshot) = self.rides.get_mut(ride) else { return };
        self.changes.rides.insert(ride.clone());
        let Ride { status, updated_at, chat_policy, .. } = snapshot.ride;
        let left_as = LeftAs { status, updated_at, chat_policy };
        for participant in &mut snapshot.participants {
            if participant.until_seq.is_none() && left.contains(&participant.user) {
                participant.until_seq = Some(seq);
                participant.left_as = Some(left_as);
            }
        }
        let joined = joined.iter().cloned();
        snapshot.participants.extend(joined.map(|(user, role)| Participant {
            user,
            role,
            from_seq: seq,
            until_seq: None,
            presence: None,
            left_as: None,
        }));
    }

    /// Adds a message that was just appended.
    pub fn add_message(&mut self, message: Message) {
        if let Some(name) = message.client_message_id.clone() {
            self.sent.insert((message.ride.clone(), message.sender.clone(), name), message.id);
        }
        self.changes.new_messages.push(message.id);
        self.messages.insert(message.id, message);
    }

    /// Puts a message's new state in place of the old.
    pub fn change_message(&mut self, message: Message) {
        if message.deleted_at.is_some() {
            self.changes.erased_messages.insert(message.id);
        }
        self.changes.changed_messages.insert(message.id);
        self.messages.insert(message.id, message);
    }

    /// Takes a user who is erased out of the reactions that earlier events of a message tell of.
    pub fn erase_reactions(&mut self, message: MessageId, user: UserId) {
        self.changes.erased_reactions.push((message, user));
    }

    /// Notes for the feed that a message, which was just added or changed, is flagged.
    pub fn flag_message(&mut self, id: MessageId) {
        let Some(message) = self.messages.get(&id) else { return };
        let Some(labels) = message.labels.clone() else { return };
        // A new message is stored without its labels, since hardly any has some: they are added to it as to an edited one.
        self.changes.changed_messages.insert(id);
        self.changes.flags.push(Flag { message: id, topic: Topic::ride(&message.ride), seq: message.seq, labels });
    }

    /// Moves a user's marks.
    pub fn change_receipt(&mut self, ride: &RideId, receipt: Receipt) {
        let Some(snapshot) = self.rides.get_mut(ride) else { return };
        let receipts = &mut snapshot.receipts.0;
        receipts.retain(|known| known.user != receipt.user);
        receipts.push(receipt.clone());
        self.changes.receipts.insert((ride.clone(), receipt.user.clone()), receipt);
    }
}

/// What the transaction stores.
impl Ledger {
    /// What this attempt to commit the batch is told by.
    pub(super) fn batch(&self) -> BatchId {
        self.batch
    }

    /// Which batch wrote the end of a topic's log that commands were judged at, where one was loaded.
    pub(super) fn judged_at(&self, topic: &Topic) -> Option<BatchId> {
        self.judged_at.get(topic.ride_id()?).copied()
    }

    /// Whether there is nothing to store.
    pub(super) fn is_unchanged(&self) -> bool {
        self.changes.events.is_empty() && self.changes.told.is_empty()
    }

    /// The topics of those who are told something, from a place in what they are told on.
    pub(super) fn told_since(&self, place: usize) -> Vec<Topic> {
        self.changes.told.iter().skip(place).map(|(topic, ..)| topic.clone()).collect()
    }

    /// The topics of those who are told something, in order.
    pub(super) fn told_topics(&self) -> BTreeSet<&Topic> {
        self.changes.told.iter().map(|(topic, ..)| topic).collect()
    }

    /// Appends what users are told to their logs, which are locked now and end at `heads`.
    pub(super) fn number_told(&mut self, mut heads: HashMap<Topic, Seq>) -> Result<(), StoreError> {
        for (topic, kind, data, trace) in std::mem::take(&mut self.changes.told) {
            let head = heads.get_mut(&topic).ok_or(StoreError::Corrupt("a topic that was just made"))?;
            *head += 1;
            self.changes.events.push(NewEvent { topic, seq: *head, kind, data, message: None, trace });
        }
        Ok(())
    }

    /// How much the commands have said so far: one that says nothing leaves this as it was.
    pub(super) fn said(&self) -> usize {
        self.changes.events.len() + self.changes.told.len()
    }

    /// Whether somebody is told something on a topic of their own.
    pub(super) fn tells(&self) -> bool {
        !self.changes.told.is_empty()
    }

    /// Forgets what was not stored.
    pub(super) fn keep_only(&mut self, topics: &HashSet<Topic>) {
        self.changes.events.retain(|event| topics.contains(&event.topic));
        self.rides.retain(|ride, _| topics.contains(&Topic::ride(ride)));
    }

    /// The events, once they are stored.
    pub(super) fn take_events(&mut self) -> Vec<NewEvent> {
        std::mem::take(&mut self.changes.events)
    }

    /// The rides as the batch has left them, each with the batch that wrote the end of its log; but those whose people or state
    /// it has changed are better loaded anew. Nor those that have ended: until when their people may write, the database's clock
    /// decides, and the event of their closing is not in their log. So whoever writes there takes the locks.
    pub(super) fn take_settled(&mut self) -> Vec<(RideSnapshot, BatchId)> {
        let rides = std::mem::take(&mut self.rides);
        let ends = self.ends();
        let is_settled = |snapshot: &RideSnapshot| {
            !self.changes.rides.contains(&snapshot.ride.id) && !snapshot.ride.status.is_ended()
        };
        let settled = rides.into_values().filter(is_settled);
        let settled = settled.filter_map(|snapshot| {
            let topic = Topic::ride(&snapshot.ride.id);
            let batch = if ends.contains_key(&topic) { self.batch } else { self.judged_at(&topic)? };
            Some((snapshot, batch))
        });
        settled.collect()
    }

    /// The first and the last event that each topic is given.
    pub(super) fn ends(&self) -> BTreeMap<&Topic, (Seq, Seq)> {
        let mut ends = BTreeMap::new();
        for event in &self.changes.events {
            ends.entry(&event.topic).or_insert((event.seq, event.seq)).1 = event.seq;
        }
        ends
    }

    /// Where logs end then.
    pub(super) fn hints(&self) -> Hints {
        let heads = self.ends().into_iter().map(|(topic, (_, last))| (topic.clone(), last));
        Hints { heads: heads.collect(), ..Hints::default() }
    }

    pub(super) fn changed_rides(&self) -> impl Iterator<Item = &RideSnapshot> {
        self.changes.rides.iter().filter_map(|id| self.rides.get(id))
    }

    pub(super) fn new_messages(&self) -> impl Iterator<Item = &Message> {
        self.changes.new_messages.iter().filter_map(|id| self.messages.get(id))
    }

    pub(super) fn changed_messages(&self) -> impl Iterator<Item = &Message> {
        self.changes.changed_messages.iter().filter_map(|id| self.messages.get(id))
    }

    /// Deleted messages, and what their events shall say from now on.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = (&Message, String)> {
        let erased = self.changes.erased_messages.iter().filter_map(|id| self.messages.get(id));
        erased.filter_map(|message| {
            let receipts = &self.rides.get(&message.ride)?.receipts;
            Some((message, message.to_json(receipts)))
        })
    }
}
