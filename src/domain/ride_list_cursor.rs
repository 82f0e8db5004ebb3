//! The cursor of a list of rides, with which a client requests the next page.

use std::fmt;

use super::RideId;

/// The position of a ride in a list that is ordered by time, then by id, newest first. It contains both, so it stays valid even if the ride is
/// deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RideListCursor {
    /// When the ride was created or joined, in microseconds since 1970.
    pub at: i64,
    /// The ride.
    pub ride: RideId,
}

impl RideListCursor {
    /// Parses the displayed form. `~` never occurs in a ride id, and needs no escaping in a URL.
    pub fn parse(text: &str) -> Option<Self> {
        let (at, ride) = text.split_once('~')?;
        let is_number = !at.is_empty() && at.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { at: at.parse().ok().filter(|_| is_number)?, ride: RideId::parse(ride).ok()? })
    }
}

impl fmt::Display for RideListCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.at, self.ride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_display_and_parsing() {
        let text = "1764230400123000~ride_7";
        assert_eq!(RideListCursor::parse(text).unwrap().to_string(), text);
        for wrong in ["", "ride_7", "~ride_7", "1~", "-1~ride_7", "+1~ride_7", "1~a b", "99999999999999999999~ride_7"] {
            assert_eq!(RideListCursor::parse(wrong), None, "{wrong}");
        }
    }
}
