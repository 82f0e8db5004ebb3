//! Where a ride's driver is.

use serde::Serialize;

use super::{RideId, Time, UserId};

/// A position on the globe, WGS 84.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lng: f64,
}

impl Position {
    /// A latitude of -90 to 90 and a longitude of -180 to 180 degrees; else which of the two is wrong, and why.
    pub fn parse(lat: f64, lng: f64) -> Result<Self, (&'static str, &'static str)> {
        if !(-90.0..=90.0).contains(&lat) {
            return Err(("/lat", "must be -90 to 90 degrees"));
        }
        if !(-180.0..=180.0).contains(&lng) {
            return Err(("/lng", "must be -180 to 180 degrees"));
        }
        Ok(Self { lat, lng })
    }
}

/// A driver's position at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// The ride.
    pub ride: RideId,
    /// Its driver.
    pub driver: UserId,
    /// Where.
    pub position: Position,
    /// Degrees clockwise from north: 0 to 360.
    pub heading: Option<f64>,
    /// Metres a second.
    pub speed: Option<f64>,
    /// Metres within which the position is right.
    pub accuracy: Option<f64>,
    /// When.
    pub at: Time,
}

/// A location as it is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationView<'a> {
    ride_id: &'a RideId,
    driver_id: &'a UserId,
    lat: f64,
    lng: f64,
    heading: Option<f64>,
    speed: Option<f64>,
    accuracy: Option<f64>,
    at: Time,
}

impl Location {
    /// The location as it is sent.
    pub fn view(&self) -> LocationView<'_> {
        LocationView {
            ride_id: &self.ride,
            driver_id: &self.driver,
            lat: self.position.lat,
            lng: self.position.lng,
            heading: self.heading,
            speed: self.speed,
            accuracy: self.accuracy,
            at: self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_on_the_globe() {
        assert!(Position::parse(-90.0, 180.0).is_ok());
        assert_eq!(Position::parse(91.0, 0.0).unwrap_err().0, "/lat");
        assert_eq!(Position::parse(f64::NAN, 0.0).unwrap_err().0, "/lat");
        assert_eq!(Position::parse(0.0, -180.1).unwrap_err().0, "/lng");
    }
}
