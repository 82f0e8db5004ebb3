//! A ride as far as messaging needs it: who is on it, how far it is, and whether its chat is open.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Result, RideId, Seq, Time, UserId};

/// How far a ride is: `requested → accepted → arrived → in_progress → completed`, or `cancelled` from any
/// before completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, salvo::oapi::ToSchema)]
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

/// Whether a ride's people may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, salvo::oapi::ToSchema)]
#[serde(rename_all = "camelCase")]
#[salvo(schema(name = "Chat"))]
pub enum Chat {
    /// Not accepted yet (or never was): there is nobody to write to.
    None,
    /// Open, until the grace after the ride's end has passed.
    Open,
    /// The grace has passed: what was said stays to be read.
    ReadOnly,
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
    /// Whether it was ever accepted: what opens its chat.
    pub accepted: bool,
    /// When it was completed or cancelled.
    pub ended_at: Option<Time>,
    /// When the grace after that had passed and its people were told.
    pub closed_at: Option<Time>,
    /// When it became known here.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl Ride {
    /// Takes the ride one step on. `Ok(false)` when it is there already; nothing changes then.
    pub fn advance(&mut self, next: Status, now: Time) -> Result<bool> {
        if self.status == next {
            return Ok(false);
        }
        if !self.status.may_become(next) {
            return Err(Error::InvalidTransition { from: self.status, to: next });
        }
        self.enter(next, now);
        Ok(true)
    }

    /// Puts the ride into `status`, whatever it was before: for a ride that begins there.
    pub fn enter(&mut self, status: Status, now: Time) {
        self.status = status;
        self.updated_at = now;
        self.accepted |= !matches!(status, Status::Requested | Status::Cancelled);
        self.ended_at = status.is_ended().then_some(now);
    }

    /// The moment from which nothing happens on this ride any more: its end and the grace after it.
    pub fn closes_at(&self, grace: Duration) -> Option<Time> {
        self.ended_at.map(|ended| ended.plus(grace))
    }

    /// Whether the grace after the ride's end has passed.
    pub fn is_closed(&self, now: Time, grace: Duration) -> bool {
        self.closes_at(grace).is_some_and(|at| at <= now)
    }

    /// Whether its people may write now.
    pub fn chat(&self, now: Time, grace: Duration) -> Chat {
        if !self.accepted {
            Chat::None
        } else if self.is_closed(now, grace) {
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
    /// The ride as it is sent.
    pub fn view(&self, now: Time, grace: Duration) -> RideView<'_> {
        RideView {
            ride_id: &self.id,
            status: self.status,
            rider_id: &self.rider,
            driver_id: self.driver.as_ref(),
            chat: self.chat(now, grace),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn ride(status: Status) -> Ride {
        let now = Time::from_unix_seconds(0).unwrap();
        let mut ride = Ride {
            id: RideId::parse("r").unwrap(),
            status,
            rider: UserId::parse("u").unwrap(),
            driver: None,
            accepted: false,
            ended_at: None,
            closed_at: None,
            created_at: now,
            updated_at: now,
        };
        ride.enter(status, now);
        ride
    }

    #[test]
    fn a_ride_takes_one_step_at_a_time_and_can_be_cancelled_until_completed() {
        use Status::*;
        let line = [Requested, Accepted, Arrived, InProgress, Completed];
        for (i, from) in line.into_iter().enumerate() {
            for (j, to) in line.into_iter().enumerate() {
                let taken = ride(from).advance(to, Time::now());
                match j.checked_sub(i) {
                    Some(0) => assert_eq!(taken, Ok(false)),
                    Some(1) => assert_eq!(taken, Ok(true)),
                    _ => assert_eq!(taken, Err(Error::InvalidTransition { from, to })),
                }
            }
            assert_eq!(ride(from).advance(Cancelled, Time::now()).is_ok(), from != Completed);
            assert!(ride(Cancelled).advance(from, Time::now()).is_err());
        }
    }

    #[test]
    fn the_chat_opens_with_acceptance_and_closes_a_grace_after_the_end() {
        let at = |seconds| Time::from_unix_seconds(seconds).unwrap();
        assert_eq!(ride(Status::Requested).chat(at(0), GRACE), Chat::None);
        assert_eq!(ride(Status::Cancelled).chat(at(0), GRACE), Chat::None);
        assert_eq!(ride(Status::Accepted).chat(at(1_000_000), GRACE), Chat::Open);
        let over = ride(Status::Completed);
        assert_eq!(over.chat(at(59), GRACE), Chat::Open);
        assert_eq!(over.chat(at(60), GRACE), Chat::ReadOnly);
    }
}
