//! The outbox of a shard: what users of other shards receive about its rides.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::pool::Store;
use super::rows::{ride_id, seconds, user_id};
use super::{StoreError, sql};
use crate::domain::{EventType, RideId, Seq, ShardId, TraceContext, UserId};

/// A row of an outbox: one user's news of one ride.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// The id, which grows with the rows of a ride.
    pub id: i64,
    /// The user.
    pub user: UserId,
    /// The ride.
    pub ride: RideId,
    /// The event for the user's topic, if there is one.
    pub event: Option<OutboxEvent>,
    /// The entry of the ride in the user's list; `None` if the ride is deleted.
    pub entry: Option<RemoteRide>,
}

/// An event for a user's topic.
#[derive(Debug, Clone)]
pub struct OutboxEvent {
    /// The type.
    pub kind: EventType,
    /// The data, as JSON.
    pub data: String,
    /// The trace of the request that caused it.
    pub trace: Option<TraceContext>,
}

/// The entry of a ride in the list of a user of another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRide {
    /// The first seq of the user's current or last access.
    pub from_seq: Seq,
    /// The last seq of that access; `None` if it has not ended.
    pub until_seq: Option<Seq>,
    /// When that access began.
    pub joined_at: Timestamp,
    /// The ride's status.
    pub status: String,
    /// Whether the ride has ended.
    pub is_ended: bool,
    /// Whether the ride is closed.
    pub is_over: bool,
    /// Whether the ride is closed and the user has no unread message on it.
    pub is_read: bool,
}

impl Store {
    /// Returns the shards that have rows in the outbox.
    pub async fn outbox_shards(&self) -> Result<Vec<u16>, StoreError> {
        let rows = self.read(sql::OUTBOX_SHARDS, &[]).await?;
        let number =
            |row: &Row| u16::try_from(row.try_get::<_, i64>("shard")?).map_err(|_| StoreError::Corrupt("shard"));
        rows.iter().map(number).collect()
    }

    /// Returns the first rows for a shard, at most `limit`.
    pub async fn outbox(&self, to: ShardId, limit: i64) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = self.read(sql::OUTBOX_PAGE, &[&i64::from(to.number()), &limit]).await?;
        rows.iter().map(outbox_row).collect()
    }

    /// Returns the age of the oldest row of the outbox; zero if it is empty.
    pub async fn outbox_lag(&self) -> Result<Duration, StoreError> {
        let rows = self.read(sql::OUTBOX_LAG, &[]).await?;
        let lag = rows.first().map(|row| seconds(row, "lag")).transpose()?;
        Ok(lag.flatten().unwrap_or_default())
    }

    /// Deletes rows that their shard has committed.
    pub async fn delete_from_outbox(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.session().await?.execute(sql::OUTBOX_DELETE, &[&ids]).await.map(drop)
    }

    /// Waits until all rows that are in the outbox now have reached their shards.
    pub async fn wait_until_outbox_is_sent(&self) -> Result<(), StoreError> {
        let is_sent = self.wait_until_processed([sql::OUTBOX_LAST, sql::OUTBOX_HAS_ROWS], self.timeout()).await?;
        is_sent.then_some(()).ok_or(StoreError::Timeout)
    }
}

fn outbox_row(row: &Row) -> Result<OutboxRow, StoreError> {
    let user = user_id(row.try_get("user_id")?)?;
    let event = match row.try_get::<_, Option<&str>>("type")? {
        Some(kind) => Some(OutboxEvent {
            kind: EventType::from_stored(kind).ok_or(StoreError::Corrupt("type"))?,
            data: row.try_get("data")?,
            trace: row.try_get::<_, Option<&str>>("trace")?.and_then(|trace| trace.parse().ok()),
        }),
        None => None,
    };
    let entry = match row.try_get("status")? {
        Some(status) => Some(RemoteRide {
            from_seq: row.try_get("from_seq")?,
            until_seq: row.try_get("until_seq")?,
            joined_at: row.try_get("joined_at")?,
            status,
            is_ended: row.try_get("is_ended")?,
            is_over: row.try_get("is_over")?,
            is_read: row.try_get("is_read")?,
        }),
        None => None,
    };
    Ok(OutboxRow { id: row.try_get("id")?, user, ride: ride_id(row.try_get("ride_id")?)?, event, entry })
}
