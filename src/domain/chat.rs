//! A ride's chat window: when it opens, and when it closes for each participant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Status, Time};

/// Whether a user may write on a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, salvo::oapi::ToSchema)]
#[serde(rename_all = "camelCase")]
#[salvo(schema(name = "Chat"))]
pub enum Chat {
    /// The chat window has not opened yet, or the ride ended before it opened.
    None,
    /// The chat window is open. It closes when the grace period after the ride's end has passed.
    Open,
    /// The chat window has passed. Messages can still be read.
    ReadOnly,
}

/// The ride status at which the chat opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, salvo::oapi::ToSchema)]
#[serde(rename_all = "lowercase")]
#[salvo(schema(name = "OpensAt", rename_all = "lowercase"))]
pub enum OpensAt {
    /// When the ride is created.
    Requested,
    /// When a driver accepts the ride. This is the default.
    Accepted,
    /// When the driver arrives.
    Arrived,
}

impl OpensAt {
    /// Returns the ride status at which the chat opens.
    pub fn status(self) -> Status {
        match self {
            Self::Requested => Status::Requested,
            Self::Accepted => Status::Accepted,
            Self::Arrived => Status::Arrived,
        }
    }

    /// Returns the form that is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Accepted => "accepted",
            Self::Arrived => "arrived",
        }
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
    /// The ride status at which the chat opens.
    pub opens_at: OpensAt,
    /// How long the chat stays open after the ride's end.
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
    /// The maximum grace period: one year.
    pub const MAX: u32 = 365 * 24 * 60 * 60;
}

impl ChatPolicy {
    /// Returns the closing times of a ride that ended at `ended`.
    pub fn closing_times(&self, ended: Time) -> ClosingTimes {
        let after = |seconds: u32| ended.plus(Duration::from_secs(seconds.into()));
        ClosingTimes { rider: after(self.grace_seconds.rider), driver: after(self.grace_seconds.driver) }
    }
}

/// When the chat of an ended ride closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosingTimes {
    /// For the rider.
    pub rider: Time,
    /// For the driver.
    pub driver: Time,
}
