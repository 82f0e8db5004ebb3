//! The locations of drivers: latest-only values, written in batches.

use std::collections::HashMap;

use super::batched::NewLocation;
use super::batcher::Responses;
use super::pool::{Pool, Store, read};
use super::rows::ride_id;
use super::{StoreError, sql};
use crate::domain::{EventType, Location, RideId, Seq, StateUpdate, Topic, UserId};

impl Store {
    /// Stores a driver's location; returns `None` if a later one is stored already. `seq` is the head of the ride's
    /// log.
    pub async fn put_location(&self, location: &Location, seq: Seq) -> Result<Option<StateUpdate>, StoreError> {
        let data = serde_json::to_string(&location.view()).map_err(|_| StoreError::Corrupt("location"))?;
        let (ride, driver) = (location.ride.clone(), location.driver.clone());
        self.locations.submit(NewLocation { ride, driver, seq, at: location.at, data }).await
    }

    /// Returns the locations of these topics' rides that are newer than the given versions.
    pub async fn newer_locations(&self, cached: &[(&Topic, i64)]) -> Result<Vec<StateUpdate>, StoreError> {
        let rides: Vec<_> = cached.iter().map(|(topic, _)| topic.ride_id().unwrap_or_default()).collect();
        let versions: Vec<_> = cached.iter().map(|(_, version)| *version).collect();
        let rows = self.read(sql::LOCATIONS_NEWER, &[&rides, &versions]).await?;
        let update = |row: &tokio_postgres::Row| {
            let ride = ride_id(row.try_get("ride_id")?)?;
            Ok(StateUpdate {
                topic: Topic::ride(&ride),
                kind: EventType::RideLocation,
                user: UserId::parse(row.try_get("driver_id")?).map_err(|_| StoreError::Corrupt("driver_id"))?,
                version: row.try_get("version")?,
                seq: row.try_get("seq")?,
                data: row.try_get("data")?,
            })
        };
        rows.iter().map(update).collect()
    }
}

/// Stores a batch of locations. The response to each request is the state update to publish, if any.
pub(super) async fn put(pool: Pool, requests: Vec<NewLocation>) -> Responses<Option<StateUpdate>> {
    // A statement may update a row only once, so the latest of several locations of a ride is stored.
    let mut latest: HashMap<&RideId, &NewLocation> = HashMap::new();
    for location in &requests {
        let newest = latest.entry(&location.ride).or_insert(location);
        if location.at >= newest.at {
            *newest = location;
        }
    }
    let rows: Vec<_> = latest.values().collect();
    let rides: Vec<_> = rows.iter().map(|location| location.ride.as_str()).collect();
    let drivers: Vec<_> = rows.iter().map(|location| location.driver.as_str()).collect();
    let seqs: Vec<_> = rows.iter().map(|location| location.seq).collect();
    let times: Vec<_> = rows.iter().map(|location| location.at.timestamp()).collect();
    let data: Vec<_> = rows.iter().map(|location| location.data.as_str()).collect();
    let put = read(&pool, sql::LOCATIONS_PUT, &[&rides, &drivers, &seqs, &times, &data]).await?;
    let versions = put.iter().map(|row| Ok((row.try_get("ride_id")?, row.try_get("version")?)));
    let versions: HashMap<String, i64> = versions.collect::<Result<_, StoreError>>()?;
    let update = |location: &NewLocation| {
        let kept = latest.get(&location.ride).is_some_and(|kept| std::ptr::eq(*kept, location));
        let version = *versions.get(location.ride.as_str()).filter(|_| kept)?;
        Some(StateUpdate {
            topic: Topic::ride(&location.ride),
            kind: EventType::RideLocation,
            user: location.driver.clone(),
            version,
            seq: location.seq,
            data: location.data.clone(),
        })
    };
    Ok(requests.iter().map(|location| Ok(update(location))).collect())
}
