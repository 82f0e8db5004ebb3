//! Whether drivers take rides: written many at a time, the last that each has said alone.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::pool::{Pool, Session, Store};
use super::presence::{Change, Holder, Presence, if_committed};
use super::{StoreError, sql};
use crate::domain::{DriverState, Position, Signal, Time, Topic, UserId};

/// What a driver says, and for how long it counts as their presence.
#[derive(Debug)]
pub(super) struct NewState {
    state: DriverState,
    expires_after: Duration,
}

impl Store {
    /// Keeps what a driver says; `None` where that was known. One who is available counts as present for as long as `expires_after`,
    /// even without a connection.
    pub async fn put_driver(&self, state: DriverState, expires_after: Duration) -> Result<Option<Signal>, StoreError> {
        self.drivers.ask(NewState { state, expires_after }).await
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
pub(super) async fn put(pool: Pool, news: Vec<NewState>) -> Result<Vec<Option<Signal>>, StoreError> {
    // A statement may touch a row once: of several words of a driver the last one counts.
    let last: HashMap<&UserId, &DriverState> =
        news.iter().map(|NewState { state, .. }| (&state.driver, state)).collect();
    let rows: Vec<_> = last.into_values().collect();
    let expires_after = news.iter().map(|new| new.expires_after).max().unwrap_or_default();
    let put = match put_once(&pool, &rows, expires_after).await {
        // Whatever was committed of it is no news the second time, and found by the fallback.
        Err(error) if error.is_connection_lost() && !matches!(error, StoreError::Timeout) => {
            put_once(&pool, &rows, expires_after).await?
        }
        put => put?,
    };
    let told = put.iter().map(driver_signal).collect::<Result<Vec<_>, _>>()?;
    let mut told: HashMap<_, _> = told.into_iter().map(|signal| (signal.user.clone(), signal)).collect();
    // Whoever asked several times is told once.
    Ok(news.iter().map(|new| told.remove(&new.state.driver)).collect())
}

/// In one transaction, and one write: a driver who is available is registered on the drivers' topic, for a time and by nobody, so
/// that this ends like every other registration, whatever becomes of this replica. One who is not has not said that they are
/// there.
async fn put_once(pool: &Pool, rows: &[&DriverState], expires_after: Duration) -> Result<Vec<Row>, StoreError> {
    let (came, gone): (Vec<_>, Vec<_>) = rows.iter().partition(|state| state.available);
    let presence = |state: &DriverState| -> Presence { (Topic::drivers(), state.driver.clone()) };
    let came: Vec<_> = came.into_iter().map(presence).collect();
    let gone: Vec<_> = gone.into_iter().map(presence).collect();
    let change = Change::new(&came, &gone);
    let drivers: Vec<_> = rows.iter().map(|state| state.driver.as_str()).collect();
    let available: Vec<_> = rows.iter().map(|state| state.available).collect();
    let lats: Vec<_> = rows.iter().map(|state| state.position.map(|position| position.lat)).collect();
    let lngs: Vec<_> = rows.iter().map(|state| state.position.map(|position| position.lng)).collect();
    let times: Vec<_> = rows.iter().map(|state| state.at.timestamp()).collect();
    let session = Session::get(pool).await?;
    session.prepare(&Change::STATEMENTS).await?;
    session.prepare(&[sql::DRIVERS_PUT]).await?;
    let (begun, registered, put, settled, committed) = tokio::join!(
        biased;
        session.begin(""),
        change.register(&session, Holder::Expiry(expires_after)),
        async { session.query(sql::DRIVERS_PUT, &[&drivers, &available, &lats, &lngs, &times]).await },
        change.settle(&session),
        session.batch_execute("commit"),
    );
    // Nothing is told of drivers but their availability.
    let done = begun.and(registered).and(put).and_then(|put| settled.map(|_| put));
    if_committed(session, done.and_then(|put| committed.map(|()| put))).await
}
