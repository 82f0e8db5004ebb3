//! A schedule: the steps of one run, and how they are written.
//!
//! Everything in it is named, nothing is counted from what happens, so that a schedule means the same each time, and still
//! means something when steps are left out of it.

use std::fmt;

use crate::gate::Side;
use crate::label::Point;

/// One of the two.
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

/// Somebody. Their names are made unique for each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Rider,
    /// The first driver.
    Old,
    /// Who may replace the first driver.
    New,
    /// Support, who may drive as well.
    Support,
    /// The platform.
    Service,
}

impl Who {
    /// Those who read.
    pub(crate) const READERS: [Self; 4] = [Self::Rider, Self::Old, Self::New, Self::Support];

    const ALL: [(Self, &'static str); 5] = [
        (Self::Rider, "rider"),
        (Self::Old, "old"),
        (Self::New, "new"),
        (Self::Support, "support"),
        (Self::Service, "service"),
    ];

    pub(crate) fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// Something that somebody asks of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// Sends a message, under a name or without.
    Send {
        who: Who,
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
    /// Deletes the message of another operation: its sender, or support.
    Delete {
        of: usize,
        by_support: bool,
    },
    /// Marks the last message of others as delivered, or read.
    Mark {
        who: Who,
        read: bool,
    },
    /// Assigns a driver.
    Assign {
        driver: Who,
    },
    /// Removes the driver.
    Unassign,
    Complete,
    Cancel,
    /// Reopens a ride that has ended.
    Reopen,
    /// Posts a location, as the ride's driver.
    Locate {
        who: Who,
    },
    Type {
        who: Who,
    },
    Poll {
        who: Who,
    },
    History {
        who: Who,
    },
}

impl What {
    /// The operation that this is about another of.
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
    /// Opens a reader's stream of a ride, or of everything.
    Read { reader: usize, who: Who, ride: Option<usize>, at: Replica },
    /// Cuts a reader's stream, and opens it again where it ended.
    Resume { reader: usize, at: Replica },
    /// Begins an operation.
    Start { op: usize, what: What, ride: usize, at: Replica },
    /// Waits until an operation has ended, or nothing more can happen.
    Wait { op: usize },
    /// Puts up a gate.
    Hold { gate: usize, at: Replica, point: Point, side: Side, nth: usize },
    /// Waits until a gate holds its message, or nothing more can happen.
    Reach { gate: usize },
    /// Lets a message go on.
    Release { gate: usize },
    /// Cuts the connection of a message, which is lost.
    Cut { gate: usize },
    /// Cuts the connection of a message for the replica; Postgres gets it when it is released.
    Late { gate: usize },
    /// The fallback poll.
    Look { at: Replica },
    /// Kills a replica; its lease runs out.
    Kill { at: Replica },
    /// Starts it again.
    Restart { at: Replica },
    /// Takes away what retention no longer keeps.
    Retain { at: Replica },
    /// A standby gets nothing more that is written to a ride.
    Lag { ride: usize },
    /// Postgres fails over to that standby.
    FailOver { ride: usize },
}

/// The ride that retention may take away.
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
            Self::Read { reader, who, ride, at } => {
                let ride = ride.map_or("all".to_owned(), |ride| ride.to_string());
                write!(f, "read:{reader}:{}:{ride}@{at}", who.name())
            }
            Self::Resume { reader, at } => write!(f, "resume:{reader}@{at}"),
            Self::Start { op, what, ride, at } => {
                write!(f, "{op}=")?;
                match what {
                    What::Send { who, named } => write!(f, "{}:{}", if named { "named" } else { "send" }, who.name()),
                    What::Retry { of } => write!(f, "retry:{of}"),
                    What::Edit { of } => write!(f, "edit:{of}"),
                    What::Delete { of, by_support } => {
                        write!(f, "{}:{of}", if by_support { "remove" } else { "delete" })
                    }
                    What::Mark { who, read } => write!(f, "{}:{}", if read { "seen" } else { "delivered" }, who.name()),
                    What::Assign { driver } => write!(f, "assign:{}", driver.name()),
                    What::Unassign => f.write_str("unassign:service"),
                    What::Complete => f.write_str("complete:service"),
                    What::Cancel => f.write_str("cancel:service"),
                    What::Reopen => f.write_str("reopen:support"),
                    What::Locate { who } => write!(f, "locate:{}", who.name()),
                    What::Type { who } => write!(f, "type:{}", who.name()),
                    What::Poll { who } => write!(f, "poll:{}", who.name()),
                    What::History { who } => write!(f, "history:{}", who.name()),
                }?;
                write!(f, ":{ride}@{at}")
            }
            Self::Wait { op } => write!(f, "wait:{op}"),
            Self::Hold { gate, at, point, side, nth } => {
                let side = if side == Side::Request { "request" } else { "response" };
                write!(f, "hold:{gate}:{}:{side}:{nth}@{at}", name_of(&Point::ALL, point))
            }
            Self::Reach { gate } => write!(f, "reach:{gate}"),
            Self::Release { gate } => write!(f, "release:{gate}"),
            Self::Cut { gate } => write!(f, "cut:{gate}"),
            Self::Late { gate } => write!(f, "late:{gate}"),
            Self::Look { at } => write!(f, "look@{at}"),
            Self::Kill { at } => write!(f, "kill@{at}"),
            Self::Restart { at } => write!(f, "start@{at}"),
            Self::Retain { at } => write!(f, "retain@{at}"),
            Self::Lag { ride } => write!(f, "lag:{ride}"),
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
        if let Some((op, what)) = rest.split_once('=') {
            return Self::parse_operation(op.parse().ok()?, what, at?);
        }
        let parts: Vec<_> = rest.split(':').collect();
        let number = |index: usize| parts.get(index).and_then(|part| part.parse::<usize>().ok());
        Some(match parts[0] {
            "read" => {
                let who = named(&Who::ALL, parts.get(2)?)?;
                let ride = if *parts.get(3)? == "all" { None } else { Some(number(3)?) };
                Self::Read { reader: number(1)?, who, ride, at: at? }
            }
            "resume" => Self::Resume { reader: number(1)?, at: at? },
            "wait" => Self::Wait { op: number(1)? },
            "hold" => {
                let side = if *parts.get(3)? == "request" { Side::Request } else { Side::Response };
                let point = named(&Point::ALL, parts.get(2)?)?;
                Self::Hold { gate: number(1)?, at: at?, point, side, nth: number(4)? }
            }
            "reach" => Self::Reach { gate: number(1)? },
            "release" => Self::Release { gate: number(1)? },
            "cut" => Self::Cut { gate: number(1)? },
            "late" => Self::Late { gate: number(1)? },
            "look" => Self::Look { at: at? },
            "kill" => Self::Kill { at: at? },
            "start" => Self::Restart { at: at? },
            "retain" => Self::Retain { at: at? },
            "lag" => Self::Lag { ride: number(1)? },
            "failover" => Self::FailOver { ride: number(1)? },
            _ => return None,
        })
    }

    fn parse_operation(op: usize, what: &str, at: Replica) -> Option<Self> {
        let parts: Vec<_> = what.split(':').collect();
        let [kind, about, ride] = parts[..] else { return None };
        let who = || named(&Who::ALL, about);
        let of = || about.parse().ok();
        let what = match kind {
            "send" => What::Send { who: who()?, named: false },
            "named" => What::Send { who: who()?, named: true },
            "retry" => What::Retry { of: of()? },
            "edit" => What::Edit { of: of()? },
            "delete" => What::Delete { of: of()?, by_support: false },
            "remove" => What::Delete { of: of()?, by_support: true },
            "delivered" => What::Mark { who: who()?, read: false },
            "seen" => What::Mark { who: who()?, read: true },
            "assign" => What::Assign { driver: who()? },
            "unassign" => What::Unassign,
            "complete" => What::Complete,
            "cancel" => What::Cancel,
            "reopen" => What::Reopen,
            "locate" => What::Locate { who: who()? },
            "type" => What::Type { who: who()? },
            "poll" => What::Poll { who: who()? },
            "history" => What::History { who: who()? },
            _ => return None,
        };
        Some(Self::Start { op, what, ride: ride.parse().ok()?, at })
    }
}

impl Schedule {
    /// Reads what was printed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.split_whitespace().map(Step::parse).collect::<Option<Vec<_>>>().map(Self)
    }
}
