//! A ride with its participants, receipts and location, read at one position of its log; and access to the log.

use serde_json::value::RawValue;

use super::{
    BatchId, Caller, Chat, ChatPolicy, Error, LastPresence, Result, Ride, RideRole, RideView, Role, Seq, Status, Time,
    UserId,
};

/// A user's participation in a ride. It lasts from the event that added the user to the event that removed the user, both
/// included. A user may participate several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// The user.
    pub user: UserId,
    /// The user's role.
    pub role: RideRole,
    /// The first seq that the user may read.
    pub from_seq: Seq,
    /// The last seq that the user may read. `None` while they participate.
    pub until_seq: Option<Seq>,
    /// The latest presence, where one was ever published.
    pub presence: Option<LastPresence>,
    /// The ride when the user left. Set only in the batch in which they leave; the writer stores it.
    pub ride_at_leave: Option<RideAtLeave>,
}

/// The state of a ride when a participant left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RideAtLeave {
    /// The status.
    pub status: Status,
    /// When the ride had last changed.
    pub updated_at: Time,
    /// The chat policy, where the log still has it.
    pub chat_policy: Option<ChatPolicy>,
}

/// A user's delivered and read watermarks on a ride. Each is the seq of another user's message, or 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The user.
    pub user: UserId,
    /// The user's role. Watermarks of support do not make a message delivered or read.
    pub role: RideRole,
    /// The delivered watermark.
    pub delivered_seq: Seq,
    /// The read watermark. It is never past `delivered_seq`.
    pub read_seq: Seq,
}

/// All receipts of a ride, including those of past participants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipts(pub Vec<Receipt>);

impl Receipts {
    /// Returns the receipt of a user, with zeros where the user has none yet.
    pub fn of(&self, user: &UserId, role: RideRole) -> Receipt {
        let existing = self.0.iter().find(|receipt| receipt.user == *user).cloned();
        existing.unwrap_or_else(|| Receipt { user: user.clone(), role, delivered_seq: 0, read_seq: 0 })
    }

    /// Returns the highest delivered and read watermarks of riders and drivers other than `sender`.
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

/// A caller's access to a ride's log: their role and the interval that they may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The caller's role on the ride.
    pub role: RideRole,
    /// The first seq that the caller may read.
    pub from_seq: Seq,
    /// The last seq that the caller may read, where their access has ended.
    pub until_seq: Option<Seq>,
}

/// All intervals of a ride's log that a caller may read, in log order. An event that refers to a message is visible only if the
/// message's seq is in one of the intervals, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessIntervals(Vec<(Seq, Option<Seq>)>);

impl AccessIntervals {
    /// Returns whether an interval contains this seq.
    pub fn contains(&self, seq: Seq) -> bool {
        self.0.iter().any(|(from, until)| seq >= *from && until.is_none_or(|until| seq <= until))
    }

    /// Returns whether there is one interval that begins with the log. No event in it can refer to a message outside of it.
    pub fn covers_whole_log(&self) -> bool {
        matches!(self.0.as_slice(), [(from, _)] if *from <= 1)
    }
}

/// A ride, the head of its log, its participants and their receipts, all read in one snapshot.
#[derive(Debug, Clone)]
pub struct RideSnapshot {
    /// The seq of the last event.
    pub head: Seq,
    /// The ride.
    pub ride: Ride,
    /// Current and past participants, ordered by `from_seq`.
    pub participants: Vec<Participant>,
    /// The receipts.
    pub receipts: Receipts,
    /// The driver's latest location.
    pub location: Option<LatestValue>,
    /// The time of the snapshot, by the database's clock. Other times are compared with it.
    pub read_at: Time,
    /// The batch that wrote the last event. It distinguishes logs that end at the same seq, as after a restore. 0 where it was not
    /// read.
    pub last_batch: BatchId,
}

/// A latest-only value.
#[derive(Debug, Clone)]
pub struct LatestValue {
    /// The version, which grows with each value.
    pub version: i64,
    /// The head of the ride's log when the value was set.
    pub seq: Seq,
    /// The value as it is sent: one line of JSON.
    pub data: Box<RawValue>,
}

impl Access {
    /// Returns whether a latest-only value that was set at this log position may be seen.
    pub fn covers(&self, seq: Seq) -> bool {
        seq >= self.from_seq && self.until_seq.is_none_or(|until| seq < until)
    }
}

impl RideSnapshot {
    /// Returns the current participants.
    pub fn current_participants(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter().filter(|participant| participant.until_seq.is_none())
    }

    /// Returns the caller's access, or `None` where they never had any. A past participant keeps access up to the seq at which
    /// they left. Of several intervals, the last one is returned.
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

    /// Returns the interval in which a reader at `cursor` continues: the first one that ends after the cursor, or the last one.
    pub fn access_after(&self, caller: &Caller, cursor: Seq) -> Option<Access> {
        let last = self.access(caller)?;
        let is_staff = matches!(last.role, RideRole::Support | RideRole::System);
        let continues =
            |own: &&Participant| own.user == caller.user && own.until_seq.is_none_or(|until| until > cursor);
        let next = self.participants.iter().find(continues).filter(|_| !is_staff);
        Some(next.map_or(last, |own| Access { role: own.role, from_seq: own.from_seq, until_seq: own.until_seq }))
    }

    /// Returns all intervals of the log that the caller may read.
    pub fn access_intervals(&self, caller: &Caller) -> AccessIntervals {
        match self.access(caller).map(|access| access.role) {
            Some(RideRole::Support | RideRole::System) => AccessIntervals(vec![(1, None)]),
            Some(RideRole::Rider | RideRole::Driver | RideRole::Other(_)) | None => {
                let own = self.participants.iter().filter(|participant| participant.user == caller.user);
                AccessIntervals(own.map(|own| (own.from_seq, own.until_seq)).collect())
            }
        }
    }

    /// Returns the seq at which the caller's access ended, if it has ended. The access of staff never ends.
    pub fn left_at(&self, caller: &Caller) -> Option<Seq> {
        self.access(caller)?.until_seq
    }

    /// Returns the chat's state for the caller. It is `none` for a past participant, so that clients can distinguish this from a
    /// closed chat.
    pub fn chat(&self, caller: &Caller) -> Chat {
        match self.access(caller).filter(|access| access.until_seq.is_none()) {
            Some(access) => self.ride.chat_for(access.role, self.read_at),
            None => Chat::None,
        }
    }

    /// Returns the JSON form of the ride for the caller.
    pub fn view(&self, caller: &Caller) -> RideView<'_> {
        self.ride.view(self.chat(caller))
    }

    /// Returns an error unless users with this role may write now.
    pub fn require_open_chat(&self, role: RideRole) -> Result<()> {
        match self.ride.chat_for(role, self.read_at) {
            Chat::Open => Ok(()),
            Chat::None if !self.ride.status.is_ended() => Err(Error::ChatNotOpen),
            // A chat that has not opened when its ride ends never opens.
            Chat::None | Chat::ReadOnly => Err(Error::ChatClosed),
        }
    }

    /// Returns whether the chat window has passed for everyone and the ride is not closed yet.
    pub fn is_due_to_close(&self) -> bool {
        self.ride.closed_at.is_none() && self.ride.closes_at().is_some_and(|at| at <= self.read_at)
    }

    /// Returns the ride as it was when a participant left it at `until`, because they may not see its later state. Where that
    /// state is unknown (retention deleted it before it was stored), the status is `accepted`.
    pub fn as_of_leave(mut self, until: Seq, ride_at_leave: Option<RideAtLeave>) -> Self {
        let RideAtLeave { status, updated_at, chat_policy } = ride_at_leave.unwrap_or(RideAtLeave {
            status: Status::Accepted,
            updated_at: self.ride.created_at,
            chat_policy: None,
        });
        self.ride =
            Ride { status, updated_at, chat_policy, ended_at: None, closing_times: None, closed_at: None, ..self.ride };
        self.participants.retain(|participant| participant.from_seq <= until);
        for participant in &mut self.participants {
            participant.until_seq = participant.until_seq.filter(|last| *last <= until);
            participant.presence = None;
        }
        let driver = self.current_participants().find(|participant| participant.role == RideRole::Driver);
        self.ride.driver = driver.map(|participant| participant.user.clone());
        self.head = until;
        self.location = None;
        self.receipts.0.clear();
        self
    }

    /// Returns the access of a current participant or of staff. For other callers, the ride does not exist.
    pub fn require_access(&self, caller: &Caller) -> Result<Access> {
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
        Participant { user: user(name), role, from_seq, until_seq, presence: None, ride_at_leave: None }
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
                closing_times: None,
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
    fn access_depends_on_the_ride_and_begins_at_from_seq() {
        let ride = snapshot();
        let access = |name, role| ride.access(&caller(name, role)).map(|a| (a.role, a.from_seq, a.until_seq));
        assert_eq!(access("rider", Role::Rider), Some((RideRole::Rider, 1, None)));
        assert_eq!(access("rider", Role::Driver), Some((RideRole::Rider, 1, None)));
        assert_eq!(access("first", Role::Driver), Some((RideRole::Driver, 1, Some(9))));
        assert_eq!(access("second", Role::Driver), Some((RideRole::Driver, 9, None)));
        assert_eq!(access("help", Role::Support), Some((RideRole::Support, 1, None)));
        assert_eq!(access("dispatch", Role::Service), Some((RideRole::System, 1, None)));
        assert_eq!(access("stranger", Role::Driver), None);
        assert_eq!(ride.require_access(&caller("first", Role::Driver)), Err(Error::RideNotFound));
        assert!(ride.require_access(&caller("second", Role::Driver)).is_ok());
    }

    #[test]
    fn a_participant_who_was_removed_and_added_again_reads_both_intervals_in_order() {
        let mut ride = snapshot();
        ride.participants.push(participant("first", RideRole::Driver, 15, None));
        let after =
            |cursor| ride.access_after(&caller("first", Role::Driver), cursor).map(|a| (a.from_seq, a.until_seq));
        assert_eq!(after(0), Some((1, Some(9))));
        assert_eq!(after(8), Some((1, Some(9))));
        assert_eq!(after(9), Some((15, None)), "10 to 14 are in no interval");
        assert_eq!(after(20), Some((15, None)));
        let intervals = |name, role| ride.access_intervals(&caller(name, role));
        let own = intervals("first", Role::Driver);
        assert_eq!([1, 9, 10, 14, 15, 99].map(|seq| own.contains(seq)), [true, true, false, false, true, true]);
        assert!(!own.covers_whole_log() && !intervals("second", Role::Driver).covers_whole_log());
        assert!(!intervals("stranger", Role::Driver).contains(5));
        assert!(intervals("rider", Role::Rider).covers_whole_log());
        assert!(intervals("help", Role::Support).covers_whole_log());
        let support = ride.access_after(&caller("help", Role::Support), 0).map(|a| (a.from_seq, a.until_seq));
        assert_eq!(support, Some((1, None)));
        assert_eq!(ride.access_after(&caller("stranger", Role::Driver), 0), None);
        assert_eq!(snapshot().access_after(&caller("first", Role::Driver), 9).map(|a| a.until_seq), Some(Some(9)));
    }

    #[test]
    fn staff_as_participant_has_access_only_to_their_intervals() {
        let mut ride = snapshot();
        let support = caller("help", Role::Support).as_participant();
        assert_eq!(ride.access(&support), None);
        ride.participants.push(participant("help", RideRole::Driver, 9, Some(15)));
        let access = ride.access_after(&support, 8).unwrap();
        assert_eq!((access.from_seq, access.until_seq), (9, Some(15)));
        assert!(!access.covers(8), "a location from before");
        let intervals = ride.access_intervals(&support);
        assert_eq!([8, 9, 15, 16].map(|seq| intervals.contains(seq)), [false, true, true, false]);
        assert_eq!(ride.left_at(&support), Some(15));
        assert_eq!(ride.left_at(&caller("help", Role::Support)), None);
    }

    #[test]
    fn a_participant_sees_the_messages_of_each_of_their_intervals_and_staff_sees_all() {
        let mut ride = snapshot();
        ride.participants.push(participant("first", RideRole::Driver, 15, None));
        let seen = |name, role| {
            let caller = caller(name, role);
            let intervals = ride.access_intervals(&caller);
            [2, 9, 10, 14, 15].map(|seq| intervals.contains(seq))
        };
        assert_eq!(seen("first", Role::Driver), [true, true, false, false, true]);
        assert_eq!(seen("second", Role::Driver), [false, true, true, true, true]);
        assert_eq!(seen("rider", Role::Rider), [true; 5]);
        assert_eq!(seen("help", Role::Support), [true; 5]);
    }

    #[test]
    fn a_message_is_delivered_when_another_participant_has_it_and_support_does_not_count() {
        let receipts = snapshot().receipts;
        assert_eq!(receipts.reached_by_others(&user("rider")), (8, 5));
        assert_eq!(receipts.reached_by_others(&user("second")), (12, 12));
    }
}
