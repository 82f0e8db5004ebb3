//! The availability of a driver.

use serde::Serialize;

use super::{Coordinates, EventType, StateUpdate, Time, Topic, UserId};

/// The latest availability of a driver.
#[derive(Debug, Clone, PartialEq)]
pub struct DriverState {
    /// The driver.
    pub driver: UserId,
    /// Whether the driver accepts rides.
    pub available: bool,
    /// The driver's coordinates, where the driver has sent them.
    pub coordinates: Option<Coordinates>,
    /// When the driver set this state or went offline.
    pub at: Time,
}

/// The JSON form of a [`DriverState`].
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
    /// Returns the JSON form.
    pub fn view(&self) -> DriverView<'_> {
        let Self { driver, available, coordinates, at } = self;
        let (lat, lng) = coordinates.map(|coordinates| (coordinates.lat, coordinates.lng)).unzip();
        DriverView { driver_id: driver, available: *available, lat, lng, at: *at }
    }

    /// Returns the latest-only value for the drivers' topic.
    pub fn to_update(&self, version: i64) -> Result<StateUpdate, serde_json::Error> {
        let (kind, user) = (EventType::DriverAvailability, self.driver.clone());
        let data = serde_json::to_string(&self.view())?;
        Ok(StateUpdate { topic: Topic::drivers(), kind, user, version, seq: 0, data })
    }
}
