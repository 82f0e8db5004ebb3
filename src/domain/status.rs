//! The status of a ride, and the changes that are permitted.

use serde::{Deserialize, Serialize, Serializer};

use super::UnknownName;

/// The status of a ride: `requested → accepted → arrived → in_progress → completed`, or `cancelled` from any status before
/// `completed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
// Deserialized from a string, because serde would also accept `{"requested": null}` for a variant.
#[serde(try_from = "String")]
pub enum Status {
    /// The ride is booked and has no driver.
    Requested,
    /// A driver has accepted the ride and is on the way to the rider.
    Accepted,
    /// The driver has arrived at the pick-up point.
    Arrived,
    /// The rider and the driver are on the way to the destination.
    InProgress,
    /// The ride ended as planned.
    Completed,
    /// The ride ended before it was completed.
    Cancelled,
    /// A status of a newer version. It has not ended, and this version permits only a cancellation.
    Other(UnknownName),
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Requested, Self::Accepted, Self::Arrived, Self::InProgress, Self::Completed, Self::Cancelled];

    /// Returns the form that is stored and sent.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Requested => "requested",
            Self::Accepted => "accepted",
            Self::Arrived => "arrived",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Other(name) => name.as_str(),
        }
    }

    /// Parses a status that this version defines.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Reads a stored status. Returns `None` where it is longer than 31 bytes or not printable ASCII.
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| UnknownName::parse(text).map(Self::Other))
    }

    /// Returns whether the ride has ended.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    /// Returns whether `next` is the next status, or a permitted cancellation.
    pub(super) fn may_become(self, next: Self) -> bool {
        match next {
            Self::Requested => false,
            Self::Accepted => self == Self::Requested,
            Self::Arrived => self == Self::Accepted,
            Self::InProgress => self == Self::Arrived,
            Self::Completed => self == Self::InProgress,
            Self::Cancelled => !self.is_ended(),
            Self::Other(_) => false,
        }
    }
}

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).ok_or_else(|| {
            let names = Self::ALL.each_ref().map(Self::as_str).join(", ");
            format!("must be one of {names}")
        })
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_a_newer_version_is_kept_and_can_only_be_cancelled() {
        let boarding = Status::from_stored("boarding").unwrap();
        assert_eq!(
            (boarding.as_str(), serde_json::to_string(&boarding).unwrap().as_str()),
            ("boarding", "\"boarding\"")
        );
        assert!(!boarding.is_ended() && boarding.may_become(Status::Cancelled));
        assert!(!Status::ALL[..5].iter().any(|next| boarding.may_become(*next)));
        assert!(!Status::Accepted.may_become(boarding));
        // Clients cannot set it, and what cannot be sent in a frame is rejected.
        assert_eq!((Status::parse("boarding"), Status::from_stored("a b")), (None, None));
        assert!(Status::ALL.iter().all(|status| Status::from_stored(status.as_str()) == Some(*status)));
    }
}
