//! A ride, with the data that messaging needs: its participants, its status and its chat window.

use std::time::Duration;

use serde::Serialize;

use super::{Chat, ChatPolicy, ClosingTimes, Error, Result, RideId, RideRole, Seq, Status, Time, UserId};

/// A ride.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ride {
    /// The id, chosen by the platform.
    pub id: RideId,
    /// The status.
    pub status: Status,
    /// The rider, who never changes.
    pub rider: UserId,
    /// The current driver.
    pub driver: Option<UserId>,
    /// When the chat opens and closes. `None` for the default.
    pub chat_policy: Option<ChatPolicy>,
    /// Whether the chat window has opened.
    pub has_opened: bool,
    /// When the ride was completed or cancelled. For a reopened ride: when the reopening ends. Retention counts from this time.
    pub ended_at: Option<Time>,
    /// When the chat closes. Decided once, when the ride ends, by the database's clock. `None` before that.
    pub closing_times: Option<ClosingTimes>,
    /// When the ride was closed, after its chat window had passed for everyone.
    pub closed_at: Option<Time>,
    /// The head of the ride's log when the ride was last closed.
    pub closed_seq: Option<Seq>,
    /// When the ride was created in this database.
    pub created_at: Time,
    /// When the ride last changed.
    pub updated_at: Time,
}

impl Ride {
    /// Changes the status by one step. Returns `Ok(false)` where the ride has that status already; nothing changes then. `grace`
    /// is the default grace period for both participants, for a ride without a chat policy.
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

    /// Like [`Self::advance`], but may skip steps. For the platform, which owns the ride's lifecycle.
    pub fn skip_to(&mut self, next: Status, now: Time, grace: Duration) -> Result<bool> {
        let is_later = next > self.status && !self.status.is_ended() && next != Status::Cancelled;
        if is_later {
            self.enter(next, now, grace);
            return Ok(true);
        }
        self.advance(next, now, grace)
    }

    /// Sets the status without checking the transition, and the closing times with it.
    pub fn enter(&mut self, status: Status, now: Time, grace: Duration) {
        self.status = status;
        self.updated_at = now;
        // The chat of a ride that is cancelled before the chat opened never opens.
        if status != Status::Cancelled {
            self.has_opened = status >= self.opens_at();
        }
        self.ended_at = status.is_ended().then_some(now);
        self.closing_times = self.ended_at.map(|ended| match self.chat_policy {
            Some(policy) => policy.closing_times(ended),
            None => ClosingTimes { rider: ended.plus(grace), driver: ended.plus(grace) },
        });
    }

    /// Removes the driver. A ride that has not ended becomes `requested` again.
    pub fn remove_driver(&mut self, now: Time, grace: Duration) {
        self.driver = None;
        self.updated_at = now;
        if !self.status.is_ended() {
            self.enter(Status::Requested, now, grace);
        }
    }

    /// Sets the chat policy; `None` is the default. The closing times of an ended ride do not change.
    pub fn set_chat_policy(&mut self, policy: Option<ChatPolicy>, now: Time) {
        self.chat_policy = policy;
        self.updated_at = now;
        if !self.status.is_ended() {
            self.has_opened = self.status >= self.opens_at();
        }
    }

    /// Reopens the chat of an ended ride for its participants until the given time.
    pub fn reopen(&mut self, until: Time, now: Time) {
        self.has_opened = true;
        self.ended_at = Some(until);
        self.closing_times = Some(ClosingTimes { rider: until, driver: until });
        self.closed_at = None;
        self.updated_at = now;
    }

    fn opens_at(&self) -> Status {
        self.chat_policy.map_or(Status::Accepted, |policy| policy.opens_at.status())
    }

    /// Returns when the chat window passes for everyone. From this time on, the ride is due to close.
    pub fn closes_at(&self) -> Option<Time> {
        self.closing_times.map(|times| times.rider.max(times.driver))
    }

    /// Returns the chat's state for all participants: open while any participant may write.
    pub fn chat(&self, now: Time) -> Chat {
        self.chat_until(self.closes_at(), now)
    }

    /// Returns the chat's state for a role. Support and the platform may write while any participant may.
    pub fn chat_for(&self, role: RideRole, now: Time) -> Chat {
        let until = match role {
            RideRole::Rider => self.closing_times.map(|times| times.rider),
            RideRole::Driver => self.closing_times.map(|times| times.driver),
            RideRole::Support | RideRole::System => self.closes_at(),
            // What this version knows of the role does not permit to write.
            RideRole::Other(_) => return Chat::ReadOnly,
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

/// The JSON form of a [`Ride`].
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

/// The data of `ride:closed`: the user's access to the ride ends at `last_seq`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RideClosed<'a> {
    /// The ride.
    pub ride_id: &'a RideId,
    /// The last seq that the user may read.
    pub last_seq: Seq,
    /// The reason.
    pub reason: ClosedReason,
}

/// Why a user's access to a ride ends.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedReason {
    /// The user was removed from the ride.
    Removed,
    /// The ride is closed: the grace period after its end has passed.
    RideOver,
}

impl Ride {
    /// Returns the JSON form for a reader for whom the chat's state is `chat`.
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
            closing_times: None,
            closed_at: None,
            closed_seq: None,
            created_at: now,
            updated_at: now,
        };
        ride.enter(status, now, GRACE);
        ride
    }

    #[test]
    fn a_status_changes_one_step_at_a_time_and_can_be_cancelled_until_completed() {
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
    fn the_platform_may_skip_steps_but_not_go_back() {
        use Status::*;
        assert_eq!(ride(Requested).skip_to(Completed, at(1), GRACE), Ok(true));
        assert_eq!(ride(Arrived).skip_to(Arrived, at(1), GRACE), Ok(false));
        assert!(ride(Arrived).skip_to(Accepted, at(1), GRACE).is_err());
        assert!(ride(Completed).skip_to(Cancelled, at(1), GRACE).is_err());
        assert!(ride(Cancelled).skip_to(Completed, at(1), GRACE).is_err());
        assert_eq!(ride(InProgress).skip_to(Cancelled, at(1), GRACE), Ok(true));
    }

    #[test]
    fn the_chat_opens_when_the_ride_is_accepted_and_closes_after_the_grace_period() {
        assert_eq!(ride(Status::Requested).chat(at(0)), Chat::None);
        assert_eq!(ride(Status::Cancelled).chat(at(0)), Chat::None);
        assert_eq!(ride(Status::Accepted).chat(at(1_000_000)), Chat::Open);
        let over = ride(Status::Completed);
        assert_eq!(over.chat(at(59)), Chat::Open);
        assert_eq!(over.chat(at(60)), Chat::ReadOnly);
    }

    #[test]
    fn a_chat_policy_applies_per_participant_until_the_ride_ends() {
        let policy = |opens_at| Some(ChatPolicy { opens_at, grace_seconds: GraceSeconds { rider: 10, driver: 20 } });
        let mut ride = ride(Status::Accepted);
        ride.set_chat_policy(policy(OpensAt::Arrived), at(0));
        assert_eq!(ride.chat(at(0)), Chat::None);
        ride.enter(Status::Arrived, at(0), GRACE);
        assert_eq!(ride.chat(at(0)), Chat::Open);
        ride.enter(Status::Cancelled, at(0), GRACE);
        ride.set_chat_policy(None, at(1));
        let of = |ride: &Ride, now| {
            [RideRole::Rider, RideRole::Driver, RideRole::Support].map(|role| ride.chat_for(role, at(now)))
        };
        assert_eq!(of(&ride, 9), [Chat::Open; 3]);
        assert_eq!(of(&ride, 10), [Chat::ReadOnly, Chat::Open, Chat::Open]);
        assert_eq!(of(&ride, 20), [Chat::ReadOnly; 3]);
        ride.closed_at = Some(at(20));
        ride.reopen(at(90), at(30));
        assert_eq!((of(&ride, 89), of(&ride, 90)), ([Chat::Open; 3], [Chat::ReadOnly; 3]));
    }

    #[test]
    fn a_ride_without_a_driver_has_no_chat_until_the_window_opens_again() {
        let mut ride = ride(Status::InProgress);
        ride.remove_driver(at(1), GRACE);
        assert_eq!((ride.status, ride.chat(at(1))), (Status::Requested, Chat::None));
        let mut over = self::ride(Status::Completed);
        over.remove_driver(at(1), GRACE);
        assert_eq!((over.status, over.chat(at(1))), (Status::Completed, Chat::Open));
    }
}
