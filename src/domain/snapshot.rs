//! A ride and all that is known of its people, at one moment of its log.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    BatchId, Caller, Chat, ChatPolicy, Error, LastPresence, Result, Ride, RideView, Role, Seq, Status, Time, UserId,
};

/// What somebody is on a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, salvo::oapi::ToSchema)]
#[serde(rename_all = "lowercase")]
#[salvo(schema(name = "RideRole"))]
pub enum RideRole {
    /// Who booked it.
    Rider,
    /// Who drives it.
    Driver,
    /// Support, in any ride.
    Support,
    /// The platform itself.
    System,
}

impl RideRole {
    const ALL: [Self; 4] = [Self::Rider, Self::Driver, Self::Support, Self::System];

    /// The role as it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rider => "rider",
            Self::Driver => "driver",
            Self::Support => "support",
            Self::System => "system",
        }
    }

    /// Parses what [`RideRole::as_str`] says.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A user's time on a ride, told by its log: from the event that brought them in to the one that took them
/// out, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: RideRole,
    /// The first seq that is theirs.
    pub from_seq: Seq,
    /// The last one; `None` while they are on the ride.
    pub until_seq: Option<Seq>,
    /// Whether they follow the ride, as far as was ever told.
    pub presence: Option<LastPresence>,
    /// How the ride was when they left it, where they leave it now: the writer stores that.
    pub left_as: Option<LeftAs>,
}

/// How a ride was when somebody left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftAs {
    /// How far it was.
    pub status: Status,
    /// When it had last changed.
    pub updated_at: Time,
    /// Its policy, as far as the log still has it.
    pub chat_policy: Option<ChatPolicy>,
}

/// How far a user has received and read a ride: watermarks, each the seq of another's message, or 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Who.
    pub user: UserId,
    /// As what; support's marks say nothing about a message's delivery to the other side.
    pub role: RideRole,
    /// Received up to here.
    pub delivered_seq: Seq,
    /// Read up to here; never past `delivered_seq`.
    pub read_seq: Seq,
}

/// All receipts of a ride, of those who left it too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipts(pub Vec<Receipt>);

impl Receipts {
    /// The receipt of one user; zeros for one who has none yet.
    pub fn of(&self, user: &UserId, role: RideRole) -> Receipt {
        let known = self.0.iter().find(|receipt| receipt.user == *user).cloned();
        known.unwrap_or_else(|| Receipt { user: user.clone(), role, delivered_seq: 0, read_seq: 0 })
    }

    /// The furthest that a rider or driver other than `sender` has received, and read.
    pub fn reached_by_others(&self, sender: &UserId) -> (Seq, Seq) {
        let others = self
            .0
            .iter()
            .filter(|receipt| receipt.user != *sender && matches!(receipt.role, RideRole::Rider | RideRole::Driver));
        others.fold((0, 0), |(delivered, read), receipt| {
            (delivered.max(receipt.delivered_seq), read.max(receipt.read_seq))
        })
    }
}

/// What a caller may see of a ride's log, and as what they act in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// As what they act.
    pub role: RideRole,
    /// The first seq that is theirs.
    pub from_seq: Seq,
    /// The last one, when their time on the ride has ended.
    pub until_seq: Option<Seq>,
}

/// The parts of a ride's log that are a caller's: their times on the ride, one after the other. Who sees an event sees what
/// it concerns, if that lies in one of them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts(Vec<(Seq, Option<Seq>)>);

impl Parts {
    /// Whether one of them has this seq.
    pub fn contains(&self, seq: Seq) -> bool {
        self.0.iter().any(|(from, until)| seq >= *from && until.is_none_or(|until| seq <= until))
    }

    /// Whether nothing that comes before a place in them is outside them: they are one, which begins with the log.
    pub fn is_whole(&self) -> bool {
        matches!(self.0.as_slice(), [(from, _)] if *from <= 1)
    }
}

/// A ride, the head of its log, its people and their marks, all of one moment.
#[derive(Debug, Clone)]
pub struct RideSnapshot {
    /// The seq of the last event.
    pub head: Seq,
    /// The ride.
    pub ride: Ride,
    /// Its people, past ones too, by `from_seq`.
    pub participants: Vec<Participant>,
    /// Their marks.
    pub receipts: Receipts,
    /// The driver's last position.
    pub location: Option<LastValue>,
    /// When this was so, by the database's clock: what times are compared with.
    pub read_at: Time,
    /// Which batch wrote the last event: it tells the log from another one that ends at the same seq, as after a restore. 0 where
    /// that was not read.
    pub last_batch: BatchId,
}

/// The last of a value that is kept beside the log.
#[derive(Debug, Clone)]
pub struct LastValue {
    /// Grows with each value.
    pub version: i64,
    /// The place in the ride's log that it was true at.
    pub seq: Seq,
    /// One line of JSON, as it is sent.
    pub data: Box<RawValue>,
}

impl Access {
    /// Whether what was true at this place in the log may be seen.
    pub fn covers(&self, seq: Seq) -> bool {
        seq >= self.from_seq && self.until_seq.is_none_or(|until| seq < until)
    }
}

impl RideSnapshot {
    /// Those who are on the ride.
    pub fn present(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter().filter(|participant| participant.until_seq.is_none())
    }

    /// What is the caller's of this ride's log, `None` where nothing is or ever was. Who was on the ride and
    /// left it still has the part up to there; of several times on the ride the last one counts.
    pub fn access(&self, caller: &Caller) -> Option<Access> {
        let own = self.participants.iter().rev().find(|participant| participant.user == caller.user);
        let own = own.map(|own| Access { role: own.role, from_seq: own.from_seq, until_seq: own.until_seq });
        let staff = match caller.role {
            Role::Support => Some(RideRole::Support),
            Role::Service => Some(RideRole::System),
            Role::Rider | Role::Driver => None,
        };
        let staff = staff.map(|role| Access { role, from_seq: 1, until_seq: None });
        own.filter(|access| access.until_seq.is_none()).or(staff).or(own)
    }

    /// What a reader at `cursor` reads on: of several times on the ride the first that does not end before it. The
    /// last, where all do.
    pub fn access_after(&self, caller: &Caller, cursor: Seq) -> Option<Access> {
        let last = self.access(caller)?;
        let is_staff = matches!(last.role, RideRole::Support | RideRole::System);
        let goes_on = |own: &&Participant| own.user == caller.user && own.until_seq.is_none_or(|until| until > cursor);
        let next = self.participants.iter().find(goes_on).filter(|_| !is_staff);
        Some(next.map_or(last, |own| Access { role: own.role, from_seq: own.from_seq, until_seq: own.until_seq }))
    }

    /// All that is the caller's of this ride's log, or was.
    pub fn parts(&self, caller: &Caller) -> Parts {
        match self.access(caller).map(|access| access.role) {
            Some(RideRole::Support | RideRole::System) => Parts(vec![(1, None)]),
            Some(RideRole::Rider | RideRole::Driver) | None => {
                let own = self.participants.iter().filter(|participant| participant.user == caller.user);
                Parts(own.map(|own| (own.from_seq, own.until_seq)).collect())
            }
        }
    }

    /// Where somebody's time on the ride has ended, if it has; staff's never does.
    pub fn left_at(&self, caller: &Caller) -> Option<Seq> {
        self.access(caller)?.until_seq
    }

    /// Whether the caller may write now. For who has left the ride there is no chat: clients tell by that that it is not closed.
    pub fn chat(&self, caller: &Caller) -> Chat {
        match self.access(caller).filter(|access| access.until_seq.is_none()) {
            Some(access) => self.ride.chat_of(access.role, self.read_at),
            None => Chat::None,
        }
    }

    /// The ride as it is sent to the caller.
    pub fn view(&self, caller: &Caller) -> RideView<'_> {
        self.ride.view(self.chat(caller))
    }

    /// Refuses unless somebody with this role may write now.
    pub fn require_open_chat(&self, role: RideRole) -> Result<()> {
        match self.ride.chat_of(role, self.read_at) {
            Chat::Open => Ok(()),
            Chat::None if !self.ride.status.is_ended() => Err(Error::ChatNotOpen),
            // One that never opened will not, once its ride has ended.
            Chat::None | Chat::ReadOnly => Err(Error::ChatClosed),
        }
    }

    /// Whether the chat window has passed for everyone and nobody has closed the ride yet.
    pub fn is_to_be_closed(&self) -> bool {
        self.ride.closed_at.is_none() && self.ride.closes_at().is_some_and(|at| at <= self.read_at)
    }

    /// The ride as somebody left it, who may not see what it has become. Where nobody knows how it was (retention had taken
    /// that before it was stored), it is one that a driver has.
    pub fn as_left(mut self, until: Seq, left_as: Option<LeftAs>) -> Self {
        let LeftAs { status, updated_at, chat_policy } =
            left_as.unwrap_or(LeftAs { status: Status::Accepted, updated_at: self.ride.created_at, chat_policy: None });
        self.ride =
            Ride { status, updated_at, chat_policy, ended_at: None, closes: None, closed_at: None, ..self.ride };
        self.participants.retain(|person| person.from_seq <= until);
        for person in &mut self.participants {
            person.until_seq = person.until_seq.filter(|last| *last <= until);
            person.presence = None;
        }
        let driver = self.present().find(|person| person.role == RideRole::Driver);
        self.ride.driver = driver.map(|person| person.user.clone());
        self.head = until;
        self.location = None;
        self.receipts.0.clear();
        self
    }

    /// The access of somebody who is on the ride now, or of staff; to everybody else there is no such ride.
    pub fn admit(&self, caller: &Caller) -> Result<Access> {
        self.access(caller).filter(|access| access.until_seq.is_none()).ok_or(Error::RideNotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RideId, Status, Time};
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn caller(name: &str, role: Role) -> Caller {
        Caller { user: user(name), role, issued_at: None, key: None, expires_at: Time::now() }
    }

    fn participant(name: &str, role: RideRole, from_seq: Seq, until_seq: Option<Seq>) -> Participant {
        Participant { user: user(name), role, from_seq, until_seq, presence: None, left_as: None }
    }

    fn snapshot() -> RideSnapshot {
        let now = Time::now();
        RideSnapshot {
            head: 20,
            ride: Ride {
                id: RideId::parse("ride").unwrap(),
                status: Status::Accepted,
                rider: user("rider"),
                driver: Some(user("second")),
                chat_policy: None,
                has_opened: true,
                ended_at: None,
                closes: None,
                closed_at: None,
                closed_seq: None,
                created_at: now,
                updated_at: now,
            },
            participants: vec![
                participant("rider", RideRole::Rider, 1, None),
                participant("first", RideRole::Driver, 1, Some(9)),
                participant("second", RideRole::Driver, 9, None),
            ],
            location: None,
            read_at: now,
            last_batch: 0,
            receipts: Receipts(vec![
                Receipt { user: user("first"), role: RideRole::Driver, delivered_seq: 8, read_seq: 5 },
                Receipt { user: user("help"), role: RideRole::Support, delivered_seq: 20, read_seq: 20 },
                Receipt { user: user("rider"), role: RideRole::Rider, delivered_seq: 12, read_seq: 12 },
            ]),
        }
    }

    #[test]
    fn the_ride_says_who_is_on_it_and_from_where() {
        let ride = snapshot();
        let access = |name, role| ride.access(&caller(name, role)).map(|a| (a.role, a.from_seq, a.until_seq));
        assert_eq!(access("rider", Role::Rider), Some((RideRole::Rider, 1, None)));
        assert_eq!(access("rider", Role::Driver), Some((RideRole::Rider, 1, None)));
        assert_eq!(access("first", Role::Driver), Some((RideRole::Driver, 1, Some(9))));
        assert_eq!(access("second", Role::Driver), Some((RideRole::Driver, 9, None)));
        assert_eq!(access("help", Role::Support), Some((RideRole::Support, 1, None)));
        assert_eq!(access("dispatch", Role::Service), Some((RideRole::System, 1, None)));
        assert_eq!(access("stranger", Role::Driver), None);
        assert_eq!(ride.admit(&caller("first", Role::Driver)), Err(Error::RideNotFound));
        assert!(ride.admit(&caller("second", Role::Driver)).is_ok());
    }

    #[test]
    fn who_comes_back_to_a_ride_reads_their_times_on_it_one_after_the_other() {
        let mut ride = snapshot();
        ride.participants.push(participant("first", RideRole::Driver, 15, None));
        let after =
            |cursor| ride.access_after(&caller("first", Role::Driver), cursor).map(|a| (a.from_seq, a.until_seq));
        assert_eq!(after(0), Some((1, Some(9))));
        assert_eq!(after(8), Some((1, Some(9))));
        assert_eq!(after(9), Some((15, None)), "10 to 14 are somebody else's");
        assert_eq!(after(20), Some((15, None)));
        let parts = |name, role| ride.parts(&caller(name, role));
        let own = parts("first", Role::Driver);
        assert_eq!([1, 9, 10, 14, 15, 99].map(|seq| own.contains(seq)), [true, true, false, false, true, true]);
        assert!(!own.is_whole() && !parts("second", Role::Driver).is_whole());
        assert!(!parts("stranger", Role::Driver).contains(5));
        assert!(parts("rider", Role::Rider).is_whole() && parts("help", Role::Support).is_whole());
        let support = ride.access_after(&caller("help", Role::Support), 0).map(|a| (a.from_seq, a.until_seq));
        assert_eq!(support, Some((1, None)));
        assert_eq!(ride.access_after(&caller("stranger", Role::Driver), 0), None);
        assert_eq!(snapshot().access_after(&caller("first", Role::Driver), 9).map(|a| a.until_seq), Some(Some(9)));
    }

    #[test]
    fn a_participant_sees_the_messages_of_each_of_their_times_and_staff_all() {
        let mut ride = snapshot();
        ride.participants.push(participant("first", RideRole::Driver, 15, None));
        let seen = |name, role| {
            let caller = caller(name, role);
            let parts = ride.parts(&caller);
            [2, 9, 10, 14, 15].map(|seq| parts.contains(seq))
        };
        assert_eq!(seen("first", Role::Driver), [true, true, false, false, true]);
        assert_eq!(seen("second", Role::Driver), [false, true, true, true, true]);
        assert_eq!(seen("rider", Role::Rider), [true; 5]);
        assert_eq!(seen("help", Role::Support), [true; 5]);
    }

    #[test]
    fn a_message_is_delivered_when_another_participant_has_it_and_support_is_none() {
        let receipts = snapshot().receipts;
        assert_eq!(receipts.reached_by_others(&user("rider")), (8, 5));
        assert_eq!(receipts.reached_by_others(&user("second")), (12, 12));
    }
}
