//! A schedule: the steps of one run and their text form.
//!
//! Every operation, gate and reader has a number in the schedule, and none depends on what happens in a run. So a schedule means the same
//! in each run, and is still valid when steps are removed from it.

use std::fmt;

use crate::classify::MessageKind;
use crate::gate::Direction;

/// One of the two replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Replica {
    A,
    B,
}

impl Replica {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn index(self) -> usize {
        usize::from(self == Self::B)
    }

    pub(crate) fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }
}

/// A user. The user ids are unique per run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Actor {
    Rider,
    /// The first driver.
    FirstDriver,
    /// The driver who may replace the first one.
    SecondDriver,
    /// Support, who may also become a driver.
    Support,
    /// The platform's backend.
    Service,
}

impl Actor {
    /// The actors that open streams.
    pub(crate) const READERS: [Self; 4] = [Self::Rider, Self::FirstDriver, Self::SecondDriver, Self::Support];

    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Rider, "rider"),
        (Self::FirstDriver, "old"),
        (Self::SecondDriver, "new"),
        (Self::Support, "support"),
        (Self::Service, "service"),
    ];

    pub(crate) fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// A request to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Sends a message, with or without a `clientMessageId`.
    Send {
        actor: Actor,
        named: bool,
    },
    /// Sends the message of another operation again.
    Retry {
        of: usize,
    },
    /// Edits the message of another operation.
    Edit {
        of: usize,
    },
    /// Deletes the message of another operation, as its sender or as support.
    Delete {
        of: usize,
        by_support: bool,
    },
    /// Marks the last message of another user as delivered or read.
    UpdateReceipt {
        actor: Actor,
        read: bool,
    },
    /// Assigns a driver.
    Assign {
        driver: Actor,
    },
    /// Removes the driver.
    Unassign,
    Complete,
    Cancel,
    /// Reopens an ended ride.
    Reopen,
    /// Updates the location, as the ride's driver.
    Locate {
        actor: Actor,
    },
    Type {
        actor: Actor,
    },
    Poll {
        actor: Actor,
    },
    History {
        actor: Actor,
    },
}

impl Action {
    /// Returns the operation whose message this action is about.
    pub(crate) fn about(self) -> Option<usize> {
        match self {
            Self::Retry { of } | Self::Edit { of } | Self::Delete { of, .. } => Some(of),
            _ => None,
        }
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Opens a reader's stream of a ride, or its merged stream.
    OpenStream { reader: usize, actor: Actor, ride: Option<usize>, at: Replica },
    /// Closes a reader's stream, and opens it again at its last cursor.
    Resume { reader: usize, at: Replica },
    /// Starts an operation.
    Start { op: usize, action: Action, ride: usize, at: Replica },
    /// Waits until an operation is done, or nothing moves any more.
    Wait { op: usize },
    /// Adds a gate, which will hold the nth message of a kind.
    AddGate { gate: usize, at: Replica, kind: MessageKind, direction: Direction, nth: usize },
    /// Waits until a gate holds its message, or nothing moves any more.
    Reach { gate: usize },
    /// Forwards a held message.
    Release { gate: usize },
    /// Loses a held message, and cuts its connection.
    Cut { gate: usize },
    /// Cuts the replica's side of a held message's connection. Postgres gets the message when the gate is released.
    DeliverLate { gate: usize },
    /// Runs the fallback poll.
    FallbackPoll { at: Replica },
    /// Kills a replica, and lets its lease expire.
    Kill { at: Replica },
    /// Starts a killed replica again.
    Restart { at: Replica },
    /// Runs retention.
    Retain { at: Replica },
    /// From here on, a standby does not receive the writes to a ride.
    DetachStandby { ride: usize },
    /// Postgres fails over to that standby.
    FailOver { ride: usize },
}

/// A ride that has expired, so that retention may delete it.
pub(crate) const OLD_RIDE: usize = 4;

/// The steps of one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Schedule(pub(crate) Vec<Step>);

fn name_of<T: PartialEq>(names: &[(T, &'static str)], wanted: T) -> &'static str {
    names.iter().find(|(value, _)| *value == wanted).map_or("?", |(_, name)| name)
}

fn named<T: Copy>(names: &[(T, &'static str)], wanted: &str) -> Option<T> {
    names.iter().find(|(_, name)| *name == wanted).map(|(value, _)| *value)
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::A { "a" } else { "b" })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OpenStream { reader, actor, ride, at } => {
                let ride = ride.map_or("all".to_owned(), |ride| ride.to_string());
                write!(f, "read:{reader}:{}:{ride}@{at}", actor.name())
            }
            Self::Resume { reader, at } => write!(f, "resume:{reader}@{at}"),
            Self::Start { op, action, ride, at } => {
                write!(f, "{op}=")?;
                match action {
                    Action::Send { actor, named } => {
                        write!(f, "{}:{}", if named { "named" } else { "send" }, actor.name())
                    }
                    Action::Retry { of } => write!(f, "retry:{of}"),
                    Action::Edit { of } => write!(f, "edit:{of}"),
                    Action::Delete { of, by_support } => {
                        write!(f, "{}:{of}", if by_support { "remove" } else { "delete" })
                    }
                    Action::UpdateReceipt { actor, read } => {
                        write!(f, "{}:{}", if read { "seen" } else { "delivered" }, actor.name())
                    }
                    Action::Assign { driver } => write!(f, "assign:{}", driver.name()),
                    Action::Unassign => f.write_str("unassign:service"),
                    Action::Complete => f.write_str("complete:service"),
                    Action::Cancel => f.write_str("cancel:service"),
                    Action::Reopen => f.write_str("reopen:support"),
                    Action::Locate { actor } => write!(f, "locate:{}", actor.name()),
                    Action::Type { actor } => write!(f, "type:{}", actor.name()),
                    Action::Poll { actor } => write!(f, "poll:{}", actor.name()),
                    Action::History { actor } => write!(f, "history:{}", actor.name()),
                }?;
                write!(f, ":{ride}@{at}")
            }
            Self::Wait { op } => write!(f, "wait:{op}"),
            Self::AddGate { gate, at, kind, direction, nth } => {
                let direction = if direction == Direction::Request { "request" } else { "response" };
                write!(f, "hold:{gate}:{}:{direction}:{nth}@{at}", name_of(&MessageKind::ALL, kind))
            }
            Self::Reach { gate } => write!(f, "reach:{gate}"),
            Self::Release { gate } => write!(f, "release:{gate}"),
            Self::Cut { gate } => write!(f, "cut:{gate}"),
            Self::DeliverLate { gate } => write!(f, "late:{gate}"),
            Self::FallbackPoll { at } => write!(f, "look@{at}"),
            Self::Kill { at } => write!(f, "kill@{at}"),
            Self::Restart { at } => write!(f, "start@{at}"),
            Self::Retain { at } => write!(f, "retain@{at}"),
            Self::DetachStandby { ride } => write!(f, "lag:{ride}"),
            Self::FailOver { ride } => write!(f, "failover:{ride}"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&steps.join(" "))
    }
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        let (rest, at) = match text.split_once('@') {
            Some((rest, at)) => (rest, Some(if at == "a" { Replica::A } else { Replica::B })),
            None => (text, None),
        };
        if let Some((op, action)) = rest.split_once('=') {
            return Self::parse_operation(op.parse().ok()?, action, at?);
        }
        let parts: Vec<_> = rest.split(':').collect();
        let number = |index: usize| parts.get(index).and_then(|part| part.parse::<usize>().ok());
        Some(match parts[0] {
            "read" => {
                let actor = named(&Actor::ALL, parts.get(2)?)?;
                let ride = if *parts.get(3)? == "all" { None } else { Some(number(3)?) };
                Self::OpenStream { reader: number(1)?, actor, ride, at: at? }
            }
            "resume" => Self::Resume { reader: number(1)?, at: at? },
            "wait" => Self::Wait { op: number(1)? },
            "hold" => {
                let direction = if *parts.get(3)? == "request" { Direction::Request } else { Direction::Response };
                let kind = named(&MessageKind::ALL, parts.get(2)?)?;
                Self::AddGate { gate: number(1)?, at: at?, kind, direction, nth: number(4)? }
            }
            "reach" => Self::Reach { gate: number(1)? },
            "release" => Self::Release { gate: number(1)? },
            "cut" => Self::Cut { gate: number(1)? },
            "late" => Self::DeliverLate { gate: number(1)? },
            "look" => Self::FallbackPoll { at: at? },
            "kill" => Self::Kill { at: at? },
            "start" => Self::Restart { at: at? },
            "retain" => Self::Retain { at: at? },
            "lag" => Self::DetachStandby { ride: number(1)? },
            "failover" => Self::FailOver { ride: number(1)? },
            _ => return None,
        })
    }

    fn parse_operation(op: usize, action: &str, at: Replica) -> Option<Self> {
        let parts: Vec<_> = action.split(':').collect();
        let [name, about, ride] = parts[..] else { return None };
        let actor = || named(&Actor::ALL, about);
        let of = || about.parse().ok();
        let action = match name {
            "send" => Action::Send { actor: actor()?, named: false },
            "named" => Action::Send { actor: actor()?, named: true },
            "retry" => Action::Retry { of: of()? },
            "edit" => Action::Edit { of: of()? },
            "delete" => Action::Delete { of: of()?, by_support: false },
            "remove" => Action::Delete { of: of()?, by_support: true },
            "delivered" => Action::UpdateReceipt { actor: actor()?, read: false },
            "seen" => Action::UpdateReceipt { actor: actor()?, read: true },
            "assign" => Action::Assign { driver: actor()? },
            "unassign" => Action::Unassign,
            "complete" => Action::Complete,
            "cancel" => Action::Cancel,
            "reopen" => Action::Reopen,
            "locate" => Action::Locate { actor: actor()? },
            "type" => Action::Type { actor: actor()? },
            "poll" => Action::Poll { actor: actor()? },
            "history" => Action::History { actor: actor()? },
            _ => return None,
        };
        Some(Self::Start { op, action, ride: ride.parse().ok()?, at })
    }
}

impl Schedule {
    /// Parses the text form of a schedule.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.split_whitespace().map(Step::parse).collect::<Option<Vec<_>>>().map(Self)
    }
}
