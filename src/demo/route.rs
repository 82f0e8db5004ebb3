//! The route of the simulated ride, the same that the console's map shows.

use std::f64::consts::TAU;

use serde::Deserialize;

use crate::domain::Coordinates;

/// Metres per degree of latitude.
const METRES_PER_DEGREE: f64 = 111_320.0;

/// Both legs of the route.
#[derive(Debug, Deserialize)]
pub(super) struct Route {
    /// To the pickup.
    pub(super) approach: Leg,
    /// From the pickup to the destination.
    pub(super) trip: Leg,
}

/// A polyline of latitudes and longitudes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Leg(Vec<(f64, f64)>);

impl Route {
    /// Parses `web/route.json`, which the console draws as well.
    pub(super) fn load() -> serde_json::Result<Self> {
        serde_json::from_str(include_str!("../../web/route.json"))
    }
}

impl Leg {
    /// Returns the length in metres.
    pub(super) fn length(&self) -> f64 {
        self.segments().map(|(from, to)| distance_and_heading(from, to).0).sum()
    }

    /// Returns the point `metres` along the leg and the heading there; the end, if the leg is shorter.
    pub(super) fn at(&self, metres: f64) -> Option<(Coordinates, f64)> {
        let mut left = metres.max(0.0);
        let mut last = None;
        for (from, to) in self.segments() {
            let (length, heading) = distance_and_heading(from, to);
            if length > left {
                let part = left / length;
                let (lat, lng) = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
                return Some((Coordinates { lat, lng }, heading));
            }
            left -= length;
            last = Some((Coordinates { lat: to.0, lng: to.1 }, heading));
        }
        last
    }

    fn segments(&self) -> impl Iterator<Item = ((f64, f64), (f64, f64))> {
        self.0.iter().copied().zip(self.0.iter().copied().skip(1))
    }
}

/// Returns the distance in metres, and the heading in degrees clockwise from north. Treats the surface as flat, which is exact
/// enough for a town.
fn distance_and_heading(from: (f64, f64), to: (f64, f64)) -> (f64, f64) {
    let north = (to.0 - from.0) * METRES_PER_DEGREE;
    let east = (to.1 - from.1) * METRES_PER_DEGREE * from.0.to_radians().cos();
    (north.hypot(east), east.atan2(north).rem_euclid(TAU).to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legs_join_and_their_points_are_in_order() {
        let Route { approach, trip } = Route::load().unwrap();
        let (end, _) = approach.at(f64::MAX).unwrap();
        assert_eq!(trip.at(0.0).unwrap().0, end);
        assert!(approach.length() > 100.0 && trip.length() > approach.length());
        let (halfway, heading) = trip.at(trip.length() / 2.0).unwrap();
        assert_ne!(halfway, end);
        assert!((0.0..360.0).contains(&heading));
    }

    #[test]
    fn headings_are_clockwise_from_north() {
        let heading = |to| distance_and_heading((0.0, 0.0), to).1.round() as i32;
        assert_eq!([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)].map(heading), [0, 90, 180, 270]);
    }
}
