//! Whether a driver takes rides.

use serde::Serialize;

use super::{EventType, Position, Signal, Time, Topic, UserId};

/// What was last said of a driver.
#[derive(Debug, Clone, PartialEq)]
pub struct DriverState {
    /// Who.
    pub driver: UserId,
    /// Whether they take rides.
    pub available: bool,
    /// Where they are, if they said so.
    pub position: Option<Position>,
    /// When they said it, or ceased to be there.
    pub at: Time,
}

/// The same as it is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriverView<'a> {
    driver_id: &'a UserId,
    available: bool,
    lat: Option<f64>,
    lng: Option<f64>,
    at: Time,
}

impl DriverState {
    /// As it is sent.
    pub fn view(&self) -> DriverView<'_> {
        let Self { driver, available, position, at } = self;
        let (lat, lng) = position.map(|position| (position.lat, position.lng)).unzip();
        DriverView { driver_id: driver, available: *available, lat, lng, at: *at }
    }

    /// As it is told on the drivers' topic.
    pub fn signal(&self, version: i64) -> Result<Signal, serde_json::Error> {
        let (kind, user) = (EventType::DriverAvailability, self.driver.clone());
        let data = serde_json::to_string(&self.view())?;
        Ok(Signal { topic: Topic::drivers(), kind, user, version, seq: 0, data })
    }
}
