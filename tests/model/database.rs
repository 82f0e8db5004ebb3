//! Postgres as the batch protocol uses it: the log of each ride with its head, and the rows of rides and messages.

use std::collections::BTreeSet;

/// A ride and its topic.
pub(crate) type Ride = u8;
/// A command of the replica whose protocol is checked.
pub(crate) type Command = u8;
/// A seq in a log.
pub(crate) type Seq = u8;

/// The number of rides.
pub(crate) const RIDES: Ride = 2;
/// The maximum number of commands in a scenario.
pub(crate) const COMMANDS: usize = 3;

/// The database, as a transaction sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) rides: [RideState; RIDES as usize],
    /// The effects of each command. The protocol does not read them. The checker compares them.
    pub(crate) effects: [Effects; COMMANDS],
}

/// A row of `rides`, and the row of `topics` with its events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RideState {
    pub(crate) row: Row,
    pub(crate) topic: Option<Topic>,
}

/// A row of `rides`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    /// The ride does not exist.
    Absent,
    /// Participants may send.
    Open,
    /// No participant may send any more.
    Closed,
    /// Retention has deleted the log.
    Trimmed,
}

/// A row of `topics` with its rows of `events`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    /// `last_seq`.
    pub(crate) head: Seq,
    /// The last event. The topic keeps its id after retention has deleted the event.
    pub(crate) last: EventId,
    /// In commit order.
    pub(crate) events: Vec<Event>,
}

/// A row of `events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    pub(crate) id: EventId,
    /// The message that it is about, if it is a message of this writer.
    pub(crate) message: Command,
    /// Whether an erasure has replaced its data.
    pub(crate) is_erased: bool,
}

/// The identity of an event, independent of its data. It is unique, even if a failover has lost the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventId {
    /// An event of a run of this writer. In another run, the same command gets another id.
    Run { command: Command, run: u8 },
    /// An event of another replica.
    Other(u8),
}

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The ride was created (`ride:participants`): the first event of its log.
    Created,
    /// A message (`message:new`).
    Message,
    /// A message was edited (`message:edited`).
    Edited,
    /// A message was deleted (`message:deleted`).
    Deleted,
    /// The ride's chat is closed (`ride:status`): the ride has ended, or its driver was removed.
    Closed,
    /// The ride's chat is open again (`ride:reopened`, `ride:accept`).
    Reopened,
}

/// The effects of a command on the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Effects {
    /// How often it was stored, even if its event was deleted since.
    pub(crate) stored: u8,
    /// Whether the row of its message exists and has content.
    pub(crate) has_content: bool,
    /// Whether its message was deleted.
    pub(crate) was_erased: bool,
}

/// An event that a run appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) request: Request,
    /// One more than the head to which the request was applied.
    pub(crate) seq: Seq,
    /// The event at that head.
    pub(crate) after: EventId,
    /// Whether its transaction has created the topic.
    pub(crate) creates_topic: bool,
}

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) ride: Ride,
    /// The type of the event that it appends.
    pub(crate) kind: Kind,
    /// The message that is sent, edited or deleted, identified by the command that sends it.
    pub(crate) message: Command,
}

/// No message of this writer.
pub(crate) const NO_MESSAGE: Command = Command::MAX;

/// The last event of an empty log.
pub(crate) const NO_EVENT: EventId = EventId::Other(u8::MAX);

impl Database {
    /// Two rides with one event each.
    pub(crate) fn new() -> Self {
        let mut topic = Topic::new();
        topic.push(Kind::Created, EventId::Other(u8::MAX - 1), NO_MESSAGE);
        let ride = RideState { row: Row::Open, topic: Some(topic) };
        Self { rides: [ride.clone(), ride], effects: Default::default() }
    }

    pub(crate) fn ride(&self, ride: Ride) -> &RideState {
        &self.rides[usize::from(ride)]
    }

    pub(crate) fn ride_mut(&mut self, ride: Ride) -> &mut RideState {
        &mut self.rides[usize::from(ride)]
    }

    pub(crate) fn effects(&self, command: Command) -> &Effects {
        &self.effects[usize::from(command)]
    }

    pub(crate) fn effects_mut(&mut self, command: Command) -> &mut Effects {
        &mut self.effects[usize::from(command)]
    }

    /// Appends a run's events to each topic whose head is the one that the run has read, and that no other transaction has `locked`
    /// (`sql/events/append.sql`). Returns the rides of these topics.
    pub(crate) fn append(
        &mut self,
        run: u8,
        writes: &[Write],
        locked: &BTreeSet<Ride>,
        compares_ids: bool,
    ) -> BTreeSet<Ride> {
        let mut rides = BTreeSet::new();
        for (index, write) in writes.iter().enumerate() {
            let ride = write.request.ride;
            let is_first = writes[..index].iter().all(|earlier| earlier.request.ride != ride);
            let state = self.ride_mut(ride);
            if write.creates_topic {
                state.topic.get_or_insert_with(Topic::new);
            }
            let is_unmoved =
                |topic: &Topic| topic.head + 1 == write.seq && (!compares_ids || topic.last == write.after);
            if is_first && !locked.contains(&ride) && state.topic.as_ref().is_some_and(is_unmoved) {
                rides.insert(ride);
            }
            if rides.contains(&ride) {
                self.store(run, &write.request);
            }
        }
        rides
    }

    /// Stores an event of a run with its effects.
    pub(crate) fn store(&mut self, run: u8, request: &Request) {
        let id = EventId::Run { command: request.command, run };
        match request.kind {
            Kind::Message => self.effects_mut(request.message).has_content = true,
            Kind::Deleted => self.erase(request.ride, request.message),
            Kind::Created | Kind::Edited | Kind::Closed | Kind::Reopened => {}
        }
        self.effects_mut(request.command).stored += 1;
        self.ride_mut(request.ride).append(request.kind, id, request.message);
    }

    /// Erases a message: the content of its row, and the data of its events.
    pub(crate) fn erase(&mut self, ride: Ride, message: Command) {
        let effects = self.effects_mut(message);
        (effects.has_content, effects.was_erased) = (false, true);
        for event in self.ride_mut(ride).topic.iter_mut().flat_map(|topic| &mut topic.events) {
            event.is_erased |= event.has_content_of(message);
        }
    }
}

impl RideState {
    /// Appends an event of a transaction that has locked the topic.
    pub(crate) fn append(&mut self, kind: Kind, id: EventId, message: Command) {
        self.topic.iter_mut().for_each(|topic| topic.push(kind, id, message));
    }
}

impl Topic {
    pub(crate) fn new() -> Self {
        Self { head: 0, last: NO_EVENT, events: Vec::new() }
    }

    fn push(&mut self, kind: Kind, id: EventId, message: Command) {
        self.head += 1;
        self.last = id;
        self.events.push(Event { seq: self.head, kind, id, message, is_erased: false });
    }

    pub(crate) fn event(&self, seq: Seq) -> Option<&Event> {
        self.events.iter().find(|event| event.seq == seq)
    }
}

impl EventId {
    pub(crate) fn is_of_run(self, run: u8) -> bool {
        matches!(self, Self::Run { run: own, .. } if own == run)
    }

    pub(crate) fn is_of_command(self, command: Command) -> bool {
        matches!(self, Self::Run { command: own, .. } if own == command)
    }
}

impl Event {
    /// Whether its data contains the content of a message.
    pub(crate) fn has_content_of(&self, message: Command) -> bool {
        self.message == message && matches!(self.kind, Kind::Message | Kind::Edited)
    }
}
