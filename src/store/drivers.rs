//! Whether drivers take rides: written many at a time, the last that each has said alone.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::pool::{Pool, Store, read};
use super::{StoreError, sql};
use crate::domain::{DriverState, Position, Signal, Time, UserId};

impl Store {
    /// Keeps what a driver says; `None` where that was known.
    pub async fn put_driver(&self, state: DriverState) -> Result<Option<Signal>, StoreError> {
        self.drivers.ask(state).await
    }

    /// Those who take rides now, by id, from the one after `after`; each as it is told.
    pub async fn available_drivers(&self, after: Option<&UserId>, limit: i64) -> Result<Vec<Signal>, StoreError> {
        let rows = self.read(sql::DRIVERS_AVAILABLE, &[&after.map(UserId::as_str), &limit]).await?;
        rows.iter().map(driver_signal).collect()
    }

    /// What may not have been heard of drivers, `known` being the last version that has been.
    pub async fn newer_drivers(&self, known: i64) -> Result<Vec<Signal>, StoreError> {
        self.read(sql::DRIVERS_NEWER, &[&known]).await?.iter().map(driver_signal).collect()
    }
}

/// What is told of a driver, from a row of `driver_state`.
pub(super) fn driver_signal(row: &Row) -> Result<Signal, StoreError> {
    let place = row.try_get::<_, Option<f64>>("lat")?.zip(row.try_get::<_, Option<f64>>("lng")?);
    let state = DriverState {
        driver: UserId::parse(row.try_get("driver_id")?).map_err(|_| StoreError::Corrupt("driver_id"))?,
        available: row.try_get("available")?,
        position: place.map(|(lat, lng)| Position { lat, lng }),
        at: Time::from(row.try_get::<_, Timestamp>("at")?),
    };
    state.signal(row.try_get("version")?).map_err(|_| StoreError::Corrupt("driver_state"))
}

/// Keeps a batch. Each is answered with what is to be told of it, if anything.
pub(super) async fn put(pool: Pool, news: Vec<DriverState>) -> Result<Vec<Option<Signal>>, StoreError> {
    // A statement may touch a row once: of several words of a driver the last one counts.
    let last: HashMap<&UserId, &DriverState> = news.iter().map(|state| (&state.driver, state)).collect();
    let rows: Vec<_> = last.values().collect();
    let drivers: Vec<_> = rows.iter().map(|state| state.driver.as_str()).collect();
    let available: Vec<_> = rows.iter().map(|state| state.available).collect();
    let lats: Vec<_> = rows.iter().map(|state| state.position.map(|position| position.lat)).collect();
    let lngs: Vec<_> = rows.iter().map(|state| state.position.map(|position| position.lng)).collect();
    let times: Vec<_> = rows.iter().map(|state| state.at.timestamp()).collect();
    let put = read(&pool, sql::DRIVERS_PUT, &[&drivers, &available, &lats, &lngs, &times]).await?;
    let told = put.iter().map(driver_signal).collect::<Result<Vec<_>, _>>()?;
    let mut told: HashMap<_, _> = told.into_iter().map(|signal| (signal.user.clone(), signal)).collect();
    // Whoever asked several times is told once.
    Ok(news.iter().map(|state| told.remove(&state.driver)).collect())
}
