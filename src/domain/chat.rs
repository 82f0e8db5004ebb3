//! A ride's chat window: when it opens and closes, and for whom.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Status, Time};

/// Whether somebody may write on a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, salvo::oapi::ToSchema)]
#[serde(rename_all = "camelCase")]
#[salvo(schema(name = "Chat"))]
pub enum Chat {
    /// The window has not opened yet, or never did.
    None,
    /// It is open: until the ride has ended and the grace after that has passed.
    Open,
    /// It has passed: what was said stays to be read.
    ReadOnly,
}

/// The status from which on a chat is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, salvo::oapi::ToSchema)]
#[serde(rename_all = "lowercase")]
#[salvo(schema(name = "OpensAt", rename_all = "lowercase"))]
pub enum OpensAt {
    /// From the beginning.
    Requested,
    /// When a driver has accepted the ride: the default.
    Accepted,
    /// When the driver has arrived.
    Arrived,
}

impl OpensAt {
    /// The status from which on the chat is open.
    pub fn status(self) -> Status {
        match self {
            Self::Requested => Status::Requested,
            Self::Accepted => Status::Accepted,
            Self::Arrived => Status::Arrived,
        }
    }

    /// As it is stored and sent.
    pub fn as_str(self) -> &'static str {
        self.status().as_str()
    }

    /// Parses what [`OpensAt::as_str`] returns.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Requested, Self::Accepted, Self::Arrived].into_iter().find(|one| one.as_str() == text)
    }
}

/// When a ride's chat opens, and how long after the ride's end it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatPolicy {
    /// The status from which on it is open.
    pub opens_at: OpensAt,
    /// How long after the ride's end.
    pub grace_seconds: GraceSeconds,
}

/// How long a chat stays open after its ride's end, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraceSeconds {
    /// For the rider.
    pub rider: u32,
    /// For the driver.
    pub driver: u32,
}

impl GraceSeconds {
    /// The longest grace: a year.
    pub const LONGEST: u32 = 365 * 24 * 60 * 60;
}

impl ChatPolicy {
    /// When the chat of a ride closes that ended then.
    pub fn closes(&self, ended: Time) -> Window {
        let after = |seconds: u32| ended.plus(Duration::from_secs(seconds.into()));
        Window { rider: after(self.grace_seconds.rider), driver: after(self.grace_seconds.driver) }
    }
}

/// Until when the people of a ride that has ended may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The rider.
    pub rider: Time,
    /// The driver.
    pub driver: Time,
}
