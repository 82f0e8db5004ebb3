//! The location of a ride's driver.

use serde::Serialize;

use super::{RideId, Time, UserId};

/// Coordinates on the globe (WGS 84).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates {
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lng: f64,
}

impl Coordinates {
    /// Accepts a latitude of -90 to 90 and a longitude of -180 to 180 degrees. The error is the invalid field's pointer and
    /// detail.
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

/// The location of a driver at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// The ride.
    pub ride: RideId,
    /// The ride's driver.
    pub driver: UserId,
    /// The coordinates.
    pub coordinates: Coordinates,
    /// Degrees clockwise from north: 0 to 360.
    pub heading: Option<f64>,
    /// Metres per second.
    pub speed: Option<f64>,
    /// The radius of uncertainty, in metres.
    pub accuracy: Option<f64>,
    /// The time of the location.
    pub at: Time,
}

/// The JSON form of a [`Location`].
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
    /// Returns the JSON form.
    pub fn view(&self) -> LocationView<'_> {
        LocationView {
            ride_id: &self.ride,
            driver_id: &self.driver,
            lat: self.coordinates.lat,
            lng: self.coordinates.lng,
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
    fn coordinates_are_within_their_ranges() {
        assert!(Coordinates::parse(-90.0, 180.0).is_ok());
        assert_eq!(Coordinates::parse(91.0, 0.0).unwrap_err().0, "/lat");
        assert_eq!(Coordinates::parse(f64::NAN, 0.0).unwrap_err().0, "/lat");
        assert_eq!(Coordinates::parse(0.0, -180.1).unwrap_err().0, "/lng");
    }
}
