//! The availability of drivers: latest-only values (only the last one of a driver counts), written in batches.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;

use super::batched::NewDriverState;
use super::batcher::Responses;
use super::pool::{Pool, Session, Store};
use super::presence::{Holder, PresenceChange, TopicUser, finish_transaction};
use super::rows::driver_update;
use super::{StoreError, sql};
use crate::domain::{DriverState, StateUpdate, Topic, UserId};

impl Store {
    /// Stores a driver's availability; returns `None` if nothing changed. An available driver counts as present for
    /// `expires_after` even without a connection.
    pub async fn put_driver(
        &self,
        state: DriverState,
        expires_after: Duration,
    ) -> Result<Option<StateUpdate>, StoreError> {
        self.drivers.submit(NewDriverState { state, expires_after }).await
    }

    /// Returns the available drivers in order of id, after `after`, each as a state update.
    pub async fn available_drivers(&self, after: Option<&UserId>, limit: i64) -> Result<Vec<StateUpdate>, StoreError> {
        let rows = self.read(sql::DRIVERS_AVAILABLE, &[&after.map(UserId::as_str), &limit]).await?;
        rows.iter().map(driver_update).collect()
    }

    /// Returns the state updates of drivers that this replica may have missed. `last_version` is the last version that the
    /// replica has received.
    pub async fn newer_drivers(&self, last_version: i64) -> Result<Vec<StateUpdate>, StoreError> {
        self.read(sql::DRIVERS_NEWER, &[&last_version]).await?.iter().map(driver_update).collect()
    }
}

/// Stores a batch. The response to each request is the state update to publish, if any.
pub(super) async fn put(pool: Pool, requests: Vec<NewDriverState>) -> Responses<Option<StateUpdate>> {
    // A statement may update a row only once, so the last of several values of a driver is stored.
    let last: HashMap<&UserId, &DriverState> =
        requests.iter().map(|NewDriverState { state, .. }| (&state.driver, state)).collect();
    let rows: Vec<_> = last.into_values().collect();
    // One expiry for the batch, the longest: a driver may count as present a little longer than requested.
    let expires_after = requests.iter().map(|new| new.expires_after).max().unwrap_or_default();
    let rows_changed = match put_once(&pool, &rows, expires_after).await {
        // Retrying is safe. If the first attempt was committed, the second one changes and returns nothing. The fallback poll
        // of the hub (`newer_drivers`) then publishes the updates. A timeout is not retried: no time is left for it.
        Err(error) if error.is_connection_lost() && !matches!(error, StoreError::Timeout) => {
            put_once(&pool, &rows, expires_after).await?
        }
        rows => rows?,
    };
    let mut updates: HashMap<&str, _> = HashMap::new();
    for row in &rows_changed {
        updates.insert(row.try_get("driver_id")?, driver_update(row));
    }
    // An update is returned once, to the first of several requests for the same driver.
    Ok(requests.iter().map(|new| updates.remove(new.state.driver.as_str()).transpose()).collect())
}

/// Stores the availability in one transaction, sent in one write.
///
/// An available driver is registered on the topic `drivers` for a limited time and without a replica. So the
/// registration expires by the database's clock, even if this replica is killed. For an unavailable driver the
/// registration is removed. [`PresenceChange::reconcile`] then sets presence and availability from the registrations.
async fn put_once(pool: &Pool, rows: &[&DriverState], expires_after: Duration) -> Result<Vec<Row>, StoreError> {
    let (available, unavailable): (Vec<_>, Vec<_>) = rows.iter().partition(|state| state.available);
    let topic_user = |state: &DriverState| -> TopicUser { (Topic::drivers(), state.driver.clone()) };
    let to_register: Vec<_> = available.into_iter().map(topic_user).collect();
    let to_unregister: Vec<_> = unavailable.into_iter().map(topic_user).collect();
    let change = PresenceChange::new(&to_register, &to_unregister);
    let drivers: Vec<_> = rows.iter().map(|state| state.driver.as_str()).collect();
    let available: Vec<_> = rows.iter().map(|state| state.available).collect();
    let lats: Vec<_> = rows.iter().map(|state| state.coordinates.map(|coordinates| coordinates.lat)).collect();
    let lngs: Vec<_> = rows.iter().map(|state| state.coordinates.map(|coordinates| coordinates.lng)).collect();
    let times: Vec<_> = rows.iter().map(|state| state.at.timestamp()).collect();
    let session = Session::get(pool).await?;
    session.prepare(&PresenceChange::STATEMENTS).await?;
    session.prepare(&[sql::DRIVERS_PUT]).await?;
    let (begun, registered, put, reconciled, committed) = tokio::join!(
        biased;
        session.begin(""),
        change.register(&session, Holder::Expiry(expires_after)),
        async { session.query(sql::DRIVERS_PUT, &[&drivers, &available, &lats, &lngs, &times]).await },
        change.reconcile(&session),
        session.batch_execute("commit"),
    );
    // Presence changes of drivers are not published; only their availability is.
    let done = begun.and(registered).and(put).and_then(|put| reconciled.map(|_| put));
    finish_transaction(session, done.and_then(|put| committed.map(|()| put))).await
}
