//! Postgres, as far as the batch protocol sees it: the log of each ride with its head, and the rows of rides and messages.

use std::collections::BTreeSet;

/// A ride, and the topic that holds its log.
pub(crate) type Ride = u8;
/// A command of the replica whose protocol is checked.
pub(crate) type Command = u8;
/// A position in a log.
pub(crate) type Seq = u8;

/// How many rides there are.
pub(crate) const RIDES: Ride = 2;
/// The most commands of a scenario.
pub(crate) const COMMANDS: usize = 3;

/// The database: what a transaction sees, and what a failover may lose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) rides: [RideState; RIDES as usize],
    /// What each command has left behind. The protocol does not read this: it is what the checker compares.
    pub(crate) traces: [Trace; COMMANDS],
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
    /// There is no such ride.
    Absent,
    /// Participants may send.
    Open,
    /// Nobody may send any more.
    Closed,
    /// Retention has deleted the log.
    Trimmed,
}

/// A row of `topics`, and the rows of `events` that belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    /// `last_seq`.
    pub(crate) head: Seq,
    /// The event there, which the topic remembers when retention has deleted it.
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
    /// The message that it is about, if it is one of the writer's.
    pub(crate) message: Command,
    /// Whether an erasure has replaced its data.
    pub(crate) is_erased: bool,
}

/// What identifies an event whatever becomes of its data. No two events have the same id, also where a failover has lost
/// one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventId {
    /// It is of a run of the writer: the same command gets another id in another run.
    Run { command: Command, run: u8 },
    /// It is of another replica.
    Other(u8),
}

/// What an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The ride exists (`ride:participants`): the first event of its log.
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

/// What a command has left behind in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trace {
    /// How often it was stored, whatever has become of it since.
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
    /// One more than the head that the request was applied at.
    pub(crate) seq: Seq,
    /// The event at that head.
    pub(crate) after: EventId,
    /// Whether its transaction has created the topic.
    pub(crate) creates_topic: bool,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) ride: Ride,
    /// The event that it appends.
    pub(crate) kind: Kind,
    /// The message that is sent, edited or deleted: the command that sends it.
    pub(crate) message: Command,
}

/// What is no message of the writer's.
pub(crate) const NO_MESSAGE: Command = Command::MAX;

/// The id of no event: what a log without events ends with.
pub(crate) const NO_EVENT: EventId = EventId::Other(u8::MAX);

impl Database {
    /// Two rides with one event each.
    pub(crate) fn new() -> Self {
        let mut topic = Topic::new();
        topic.push(Kind::Created, EventId::Other(u8::MAX - 1), NO_MESSAGE);
        let ride = RideState { row: Row::Open, topic: Some(topic) };
        Self { rides: [ride.clone(), ride], traces: Default::default() }
    }

    pub(crate) fn ride(&self, ride: Ride) -> &RideState {
        &self.rides[usize::from(ride)]
    }

    pub(crate) fn ride_mut(&mut self, ride: Ride) -> &mut RideState {
        &mut self.rides[usize::from(ride)]
    }

    pub(crate) fn trace(&self, command: Command) -> &Trace {
        &self.traces[usize::from(command)]
    }

    pub(crate) fn trace_mut(&mut self, command: Command) -> &mut Trace {
        &mut self.traces[usize::from(command)]
    }

    /// Appends a run's events: to each topic whose head is where the run has read it, and that nobody else has `locked`; to
    /// no other (`sql/events/append.sql`). Returns the rides of these topics.
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

    /// Stores an event of a run, and what it reports.
    pub(crate) fn store(&mut self, run: u8, request: &Request) {
        let id = EventId::Run { command: request.command, run };
        match request.kind {
            Kind::Message => self.trace_mut(request.message).has_content = true,
            Kind::Deleted => self.erase(request.ride, request.message),
            Kind::Created | Kind::Edited | Kind::Closed | Kind::Reopened => {}
        }
        self.trace_mut(request.command).stored += 1;
        self.ride_mut(request.ride).append(request.kind, id, request.message);
    }

    /// Erases a message: the content of its row, and the data of its events.
    pub(crate) fn erase(&mut self, ride: Ride, message: Command) {
        let trace = self.trace_mut(message);
        (trace.has_content, trace.was_erased) = (false, true);
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
    /// Whether it is an event of a message that contains what the message says.
    pub(crate) fn has_content_of(&self, message: Command) -> bool {
        self.message == message && matches!(self.kind, Kind::Message | Kind::Edited)
    }
}
