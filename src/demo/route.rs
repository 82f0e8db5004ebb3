//! The way that the driven ride takes: the one that the console's map shows.

use std::f64::consts::TAU;

use serde::Deserialize;

use crate::domain::Position;

/// Metres a degree of latitude.
const DEGREE: f64 = 111_320.0;

/// Both legs, each a line of latitudes and longitudes.
#[derive(Debug, Deserialize)]
pub(super) struct Route {
    /// To where the rider waits.
    pub(super) approach: Leg,
    /// From there to where they want to go.
    pub(super) trip: Leg,
}

/// A line through a town.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Leg(Vec<(f64, f64)>);

impl Route {
    /// The route in the file that the console draws.
    pub(super) fn of_the_map() -> serde_json::Result<Self> {
        serde_json::from_str(include_str!("../../web/route.json"))
    }
}

impl Leg {
    /// In metres.
    pub(super) fn length(&self) -> f64 {
        self.pieces().map(|(from, to)| course(from, to).0).sum()
    }

    /// The place that is so many metres along, and the heading there; the end, where it is no longer than that.
    pub(super) fn at(&self, metres: f64) -> Option<(Position, f64)> {
        let mut left = metres.max(0.0);
        let mut last = None;
        for (from, to) in self.pieces() {
            let (length, heading) = course(from, to);
            if length > left {
                let part = left / length;
                let (lat, lng) = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
                return Some((Position { lat, lng }, heading));
            }
            left -= length;
            last = Some((Position { lat: to.0, lng: to.1 }, heading));
        }
        last
    }

    fn pieces(&self) -> impl Iterator<Item = ((f64, f64), (f64, f64))> {
        self.0.iter().copied().zip(self.0.iter().copied().skip(1))
    }
}

/// Metres, and degrees clockwise from north, on a piece of the globe that is small enough to be flat.
fn course(from: (f64, f64), to: (f64, f64)) -> (f64, f64) {
    let north = (to.0 - from.0) * DEGREE;
    let east = (to.1 - from.1) * DEGREE * from.0.to_radians().cos();
    (north.hypot(east), east.atan2(north).rem_euclid(TAU).to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legs_join_and_are_driven_from_end_to_end() {
        let Route { approach, trip } = Route::of_the_map().unwrap();
        let (end, _) = approach.at(f64::MAX).unwrap();
        assert_eq!(trip.at(0.0).unwrap().0, end);
        assert!(approach.length() > 100.0 && trip.length() > approach.length());
        let (halfway, heading) = trip.at(trip.length() / 2.0).unwrap();
        assert_ne!(halfway, end);
        assert!((0.0..360.0).contains(&heading));
    }

    #[test]
    fn headings_are_clockwise_from_north() {
        let heading = |to| course((0.0, 0.0), to).1.round() as i32;
        assert_eq!([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)].map(heading), [0, 90, 180, 270]);
    }
}
