//! Where drivers are: written many at a time, the last of each ride alone.

use std::collections::HashMap;

use super::pool::{Pool, Store, read};
use super::rows::ride_id;
use super::{StoreError, sql};
use crate::domain::{EventType, Location, RideId, Seq, Signal, Time, Topic, UserId};

/// A position to be kept.
#[derive(Debug)]
pub(super) struct NewLocation {
    ride: RideId,
    driver: UserId,
    seq: Seq,
    at: Time,
    data: String,
}

impl Store {
    /// Keeps a driver's position, unless a later one is known: then `None`. `seq` is the head of the ride's log.
    pub async fn put_location(&self, location: &Location, seq: Seq) -> Result<Option<Signal>, StoreError> {
        let data = serde_json::to_string(&location.view()).map_err(|_| StoreError::Corrupt("location"))?;
        let (ride, driver) = (location.ride.clone(), location.driver.clone());
        self.locations.ask(NewLocation { ride, driver, seq, at: location.at, data }).await
    }

    /// The positions of these topics' rides that are newer than what is known here.
    pub async fn newer_locations(&self, known: &[(&Topic, i64)]) -> Result<Vec<Signal>, StoreError> {
        let rides: Vec<_> = known.iter().map(|(topic, _)| topic.ride_id().unwrap_or_default()).collect();
        let versions: Vec<_> = known.iter().map(|(_, version)| *version).collect();
        let rows = self.read(sql::LOCATIONS_NEWER, &[&rides, &versions]).await?;
        let signal = |row: &tokio_postgres::Row| {
            let ride = ride_id(row.try_get("ride_id")?)?;
            Ok(Signal {
                topic: Topic::ride(&ride),
                kind: EventType::RideLocation,
                user: UserId::parse(row.try_get("driver_id")?).map_err(|_| StoreError::Corrupt("driver_id"))?,
                version: row.try_get("version")?,
                seq: row.try_get("seq")?,
                data: row.try_get("data")?,
            })
        };
        rows.iter().map(signal).collect()
    }
}

/// Keeps a batch of positions. Each is answered with what is to be told of it, if anything.
pub(super) async fn put(pool: Pool, news: Vec<NewLocation>) -> Result<Vec<Option<Signal>>, StoreError> {
    // A statement may touch a row once: of several positions of a ride the latest counts.
    let mut latest: HashMap<&RideId, &NewLocation> = HashMap::new();
    for location in &news {
        let known = latest.entry(&location.ride).or_insert(location);
        if location.at >= known.at {
            *known = location;
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
    let answer = |location: &NewLocation| {
        let kept = latest.get(&location.ride).is_some_and(|kept| std::ptr::eq(*kept, location));
        let version = *versions.get(location.ride.as_str()).filter(|_| kept)?;
        Some(Signal {
            topic: Topic::ride(&location.ride),
            kind: EventType::RideLocation,
            user: location.driver.clone(),
            version,
            seq: location.seq,
            data: location.data.clone(),
        })
    };
    Ok(news.iter().map(answer).collect())
}
