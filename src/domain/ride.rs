//! A ride as far as messaging needs it: who is on it, how far it is, and whether its chat is open.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Chat, ChatPolicy, Error, Result, RideId, RideRole, Seq, Time, UserId, Window};

/// How far a ride is: `requested → accepted → arrived → in_progress → completed`, or `cancelled` from any
/// before completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, salvo::oapi::ToSchema)]
// By way of a string: serde would take `{"requested": null}` for a variant as well.
#[serde(rename_all = "snake_case", try_from = "String")]
#[salvo(schema(name = "RideStatus", rename_all = "snake_case"))]
pub enum Status {
    /// Booked; no driver has taken it.
    Requested,
    /// A driver is on the way.
    Accepted,
    /// The driver is at the pick-up.
    Arrived,
    /// Rider and driver are under way.
    InProgress,
    /// Over, as planned.
    Completed,
    /// Over, before it was completed.
    Cancelled,
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Requested, Self::Accepted, Self::Arrived, Self::InProgress, Self::Completed, Self::Cancelled];

    /// The status as it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Accepted => "accepted",
            Self::Arrived => "arrived",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Parses what [`Status::as_str`] says.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the ride is over.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    /// Whether `next` is the one step onward, or the way out.
    fn may_become(self, next: Self) -> bool {
        match next {
            Self::Requested => false,
            Self::Accepted => self == Self::Requested,
            Self::Arrived => self == Self::Accepted,
            Self::InProgress => self == Self::Arrived,
            Self::Completed => self == Self::InProgress,
            Self::Cancelled => !self.is_ended(),
        }
    }
}

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("must be one of {names}")
        })
    }
}

/// A ride.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ride {
    /// Its identifier, given by the platform.
    pub id: RideId,
    /// How far it is.
    pub status: Status,
    /// Who booked it; never changes.
    pub rider: UserId,
    /// Who drives it now.
    pub driver: Option<UserId>,
    /// When its chat opens and closes; `None` for the default.
    pub chat_policy: Option<ChatPolicy>,
    /// Whether its chat window has opened.
    pub has_opened: bool,
    /// When it was completed or cancelled; of one that was reopened, when that ends: what retention counts from.
    pub ended_at: Option<Time>,
    /// Until when its people may write: decided once, when it ends, by the database's clock. `None` before that.
    pub closes: Option<Window>,
    /// When its chat window had passed for everyone and its people were told, and where its log ended then.
    pub closed_at: Option<Time>,
    /// Where its log ended when it was last closed.
    pub closed_seq: Option<Seq>,
    /// When it became known here.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl Ride {
    /// Takes the ride one step on. `Ok(false)` when it is there already; nothing changes then. `grace` is the default for
    /// both, where the ride has no policy of its own.
    pub fn advance(&mut self, next: Status, now: Time, grace: Duration) -> Result<bool> {
        if self.status == next {
            return Ok(false);
        }
        if !self.status.may_become(next) {
            return Err(Error::InvalidTransition { from: self.status, to: next });
        }
        self.enter(next, now, grace);
        Ok(true)
    }

    /// The same with as many steps at once: for the platform, which owns the ride's life.
    pub fn skip_to(&mut self, next: Status, now: Time, grace: Duration) -> Result<bool> {
        let is_later = next > self.status && !self.status.is_ended() && next != Status::Cancelled;
        if is_later {
            self.enter(next, now, grace);
            return Ok(true);
        }
        self.advance(next, now, grace)
    }

    /// Puts the ride into `status`, whatever it was before: for a ride that begins there.
    pub fn enter(&mut self, status: Status, now: Time, grace: Duration) {
        self.status = status;
        self.updated_at = now;
        // One that is cancelled before its chat opened has none.
        if status != Status::Cancelled {
            self.has_opened = status >= self.opens_at();
        }
        self.ended_at = status.is_ended().then_some(now);
        self.closes = self.ended_at.map(|ended| match self.chat_policy {
            Some(policy) => policy.closes(ended),
            None => Window { rider: ended.plus(grace), driver: ended.plus(grace) },
        });
    }

    /// Takes the driver off. A ride that has not ended looks for another: it is requested again.
    pub fn remove_driver(&mut self, now: Time, grace: Duration) {
        self.driver = None;
        self.updated_at = now;
        if !self.status.is_ended() {
            self.enter(Status::Requested, now, grace);
        }
    }

    /// Gives the chat another policy, or the default. When a ride that has ended closes is decided already.
    pub fn set_chat_policy(&mut self, policy: Option<ChatPolicy>, now: Time) {
        self.chat_policy = policy;
        self.updated_at = now;
        if !self.status.is_ended() {
            self.has_opened = self.status >= self.opens_at();
        }
    }

    /// Opens the chat of a ride that has ended again, for its people, until a time.
    pub fn reopen(&mut self, until: Time, now: Time) {
        self.has_opened = true;
        self.ended_at = Some(until);
        self.closes = Some(Window { rider: until, driver: until });
        self.closed_at = None;
        self.updated_at = now;
    }

    fn opens_at(&self) -> Status {
        self.chat_policy.map_or(Status::Accepted, |policy| policy.opens_at.status())
    }

    /// When the chat window has passed for everyone: from then on the ride is to be closed.
    pub fn closes_at(&self) -> Option<Time> {
        self.closes.map(|window| window.rider.max(window.driver))
    }

    /// Whether any of its people may write now.
    pub fn chat(&self, now: Time) -> Chat {
        self.chat_until(self.closes_at(), now)
    }

    /// Whether somebody with this role may write now. Support and the platform may as long as anybody may.
    pub fn chat_of(&self, role: RideRole, now: Time) -> Chat {
        let until = match role {
            RideRole::Rider => self.closes.map(|window| window.rider),
            RideRole::Driver => self.closes.map(|window| window.driver),
            RideRole::Support | RideRole::System => self.closes_at(),
        };
        self.chat_until(until, now)
    }

    fn chat_until(&self, until: Option<Time>, now: Time) -> Chat {
        if !self.has_opened {
            Chat::None
        } else if self.closed_at.is_some() || until.is_some_and(|until| until <= now) {
            Chat::ReadOnly
        } else {
            Chat::Open
        }
    }
}

/// A ride as it is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RideView<'a> {
    ride_id: &'a RideId,
    status: Status,
    rider_id: &'a UserId,
    driver_id: Option<&'a UserId>,
    chat: Chat,
    chat_policy: Option<ChatPolicy>,
    created_at: Time,
    updated_at: Time,
}

/// What `ride:closed` says: the ride is no longer somebody's, who has its log up to `last_seq`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RideClosed<'a> {
    /// The ride.
    pub ride_id: &'a RideId,
    /// The last seq that is theirs.
    pub last_seq: Seq,
    /// Why.
    pub reason: ClosedReason,
}

/// Why a ride is no longer somebody's.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedReason {
    /// They were taken off it.
    Removed,
    /// The grace after its end has passed.
    RideOver,
}

impl Ride {
    /// The ride as it is sent to somebody for whom its chat is `chat`.
    pub fn view(&self, chat: Chat) -> RideView<'_> {
        RideView {
            ride_id: &self.id,
            status: self.status,
            rider_id: &self.rider,
            driver_id: self.driver.as_ref(),
            chat,
            chat_policy: self.chat_policy,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GraceSeconds, OpensAt};
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn ride(status: Status) -> Ride {
        let now = Time::from_unix_seconds(0).unwrap();
        let mut ride = Ride {
            id: RideId::parse("r").unwrap(),
            status,
            rider: UserId::parse("u").unwrap(),
            driver: None,
            chat_policy: None,
            has_opened: false,
            ended_at: None,
            closes: None,
            closed_at: None,
            closed_seq: None,
            created_at: now,
            updated_at: now,
        };
        ride.enter(status, now, GRACE);
        ride
    }

    #[test]
    fn a_ride_takes_one_step_at_a_time_and_can_be_cancelled_until_completed() {
        use Status::*;
        let line = [Requested, Accepted, Arrived, InProgress, Completed];
        for (i, from) in line.into_iter().enumerate() {
            for (j, to) in line.into_iter().enumerate() {
                let taken = ride(from).advance(to, Time::now(), GRACE);
                match j.checked_sub(i) {
                    Some(0) => assert_eq!(taken, Ok(false)),
                    Some(1) => assert_eq!(taken, Ok(true)),
                    _ => assert_eq!(taken, Err(Error::InvalidTransition { from, to })),
                }
            }
            assert_eq!(ride(from).advance(Cancelled, Time::now(), GRACE).is_ok(), from != Completed);
            assert!(ride(Cancelled).advance(from, Time::now(), GRACE).is_err());
        }
    }

    fn at(seconds: i64) -> Time {
        Time::from_unix_seconds(seconds).unwrap()
    }

    #[test]
    fn the_platform_may_skip_steps_and_goes_back_by_none() {
        use Status::*;
        assert_eq!(ride(Requested).skip_to(Completed, at(1), GRACE), Ok(true));
        assert_eq!(ride(Arrived).skip_to(Arrived, at(1), GRACE), Ok(false));
        assert!(ride(Arrived).skip_to(Accepted, at(1), GRACE).is_err());
        assert!(ride(Completed).skip_to(Cancelled, at(1), GRACE).is_err());
        assert!(ride(Cancelled).skip_to(Completed, at(1), GRACE).is_err());
        assert_eq!(ride(InProgress).skip_to(Cancelled, at(1), GRACE), Ok(true));
    }

    #[test]
    fn the_chat_opens_with_acceptance_and_closes_a_grace_after_the_end() {
        assert_eq!(ride(Status::Requested).chat(at(0)), Chat::None);
        assert_eq!(ride(Status::Cancelled).chat(at(0)), Chat::None);
        assert_eq!(ride(Status::Accepted).chat(at(1_000_000)), Chat::Open);
        let over = ride(Status::Completed);
        assert_eq!(over.chat(at(59)), Chat::Open);
        assert_eq!(over.chat(at(60)), Chat::ReadOnly);
    }

    #[test]
    fn a_policy_opens_and_closes_it_for_each_and_counts_until_the_end() {
        let policy = |opens_at| Some(ChatPolicy { opens_at, grace_seconds: GraceSeconds { rider: 10, driver: 20 } });
        let mut ride = ride(Status::Accepted);
        ride.set_chat_policy(policy(OpensAt::Arrived), at(0));
        assert_eq!(ride.chat(at(0)), Chat::None);
        ride.enter(Status::Arrived, at(0), GRACE);
        assert_eq!(ride.chat(at(0)), Chat::Open);
        ride.enter(Status::Cancelled, at(0), GRACE);
        ride.set_chat_policy(None, at(1));
        let of = |ride: &Ride, now| {
            [RideRole::Rider, RideRole::Driver, RideRole::Support].map(|role| ride.chat_of(role, at(now)))
        };
        assert_eq!(of(&ride, 9), [Chat::Open; 3]);
        assert_eq!(of(&ride, 10), [Chat::ReadOnly, Chat::Open, Chat::Open]);
        assert_eq!(of(&ride, 20), [Chat::ReadOnly; 3]);
        ride.closed_at = Some(at(20));
        ride.reopen(at(90), at(30));
        assert_eq!((of(&ride, 89), of(&ride, 90)), ([Chat::Open; 3], [Chat::ReadOnly; 3]));
    }

    #[test]
    fn without_its_driver_a_ride_waits_for_its_window_again() {
        let mut ride = ride(Status::InProgress);
        ride.remove_driver(at(1), GRACE);
        assert_eq!((ride.status, ride.chat(at(1))), (Status::Requested, Chat::None));
        let mut over = self::ride(Status::Completed);
        over.remove_driver(at(1), GRACE);
        assert_eq!((over.status, over.chat(at(1))), (Status::Completed, Chat::Open));
    }
}
