//! A place in a list of rides, by which the next page is asked for.

use std::fmt;

use super::RideId;

/// Where a ride is in a list that is newest first: by time, then by id. It says so itself, so it is good whatever becomes of
/// the ride.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RidePlace {
    /// Microseconds since 1970: when the ride was made, or joined.
    pub at: i64,
    /// The ride.
    pub ride: RideId,
}

impl RidePlace {
    /// Parses what is displayed. `~` is in no ride's id, and needs no escaping in a URL.
    pub fn parse(text: &str) -> Option<Self> {
        let (at, ride) = text.split_once('~')?;
        let is_number = !at.is_empty() && at.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { at: at.parse().ok().filter(|_| is_number)?, ride: RideId::parse(ride).ok()? })
    }
}

impl fmt::Display for RidePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.at, self.ride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_it_says() {
        let text = "1764230400123000~ride_7";
        assert_eq!(RidePlace::parse(text).unwrap().to_string(), text);
        for wrong in ["", "ride_7", "~ride_7", "1~", "-1~ride_7", "+1~ride_7", "1~a b", "99999999999999999999~ride_7"] {
            assert_eq!(RidePlace::parse(wrong), None, "{wrong}");
        }
    }
}
