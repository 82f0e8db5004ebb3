//! The roles on a ride.

use serde::{Serialize, Serializer};

use super::UnknownName;

/// A user's role on a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RideRole {
    /// The user who booked the ride.
    Rider,
    /// The user who drives the ride.
    Driver,
    /// Support, on any ride.
    Support,
    /// The platform.
    System,
    /// A role of a newer version. It has no access beyond the user's own intervals of the log.
    Other(UnknownName),
}

impl RideRole {
    const ALL: [Self; 4] = [Self::Rider, Self::Driver, Self::Support, Self::System];

    /// Returns the form that is stored and sent.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Rider => "rider",
            Self::Driver => "driver",
            Self::Support => "support",
            Self::System => "system",
            Self::Other(name) => name.as_str(),
        }
    }

    /// Reads a stored role. Returns `None` where it is longer than 31 bytes or not printable ASCII.
    pub fn from_stored(text: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.or_else(|| UnknownName::parse(text).map(Self::Other))
    }
}

impl Serialize for RideRole {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
