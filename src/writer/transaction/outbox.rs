//! What a commit stores for users of other shards, and about the rides of other shards.

use super::columns::{Columns, OutboxEventRow, OutboxEventRows, RemoteRideRow, RemoteRideRows, execute};
use crate::store::{Session, StoreError, sql};
use crate::writer::BatchState;

/// The statement if the deployment has several shards and a ride has changed.
const SENDING: [&str; 1] = [sql::OUTBOX_PUT];
/// The statements if rows of another shard's outbox are applied.
const RECEIVING: [&str; 2] = [sql::REMOTE_RIDES_PUT, sql::REMOTE_RIDES_DELETE];

/// Prepares the statements that the batch needs.
pub(super) async fn prepare(session: &Session, state: &BatchState) -> Result<(), StoreError> {
    if !state.reported_rides().is_empty() {
        session.prepare(&SENDING).await?;
    }
    if !state.changes.remote_rides.is_empty() {
        session.prepare(&RECEIVING).await?;
    }
    Ok(())
}

/// Adds to the outbox what users of other shards receive. The changed rides and participants are stored before.
pub(super) async fn put_outbox(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let rides = state.reported_rides();
    if rides.is_empty() {
        return Ok(0);
    }
    let events = state.changes.outbox_events.iter().map(|(ride, user, event)| OutboxEventRow {
        ride_id: ride.as_str(),
        user_id: user.as_str(),
        event_type: event.kind.as_str(),
        data: &event.data,
        trace: event.trace.map(|trace| trace.to_string()),
    });
    let events: OutboxEventRows<'_> = events.collect();
    session.execute(sql::OUTBOX_PUT, &[events.params(), vec![&rides]].concat()).await
}

/// Stores the entries of rides of other shards in the lists of this shard's users.
pub(super) async fn put_remote_rides(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let rows = state.changes.remote_rides.iter().filter_map(|((user, ride), (last_id, entry))| {
        entry.as_ref().map(|entry| RemoteRideRow {
            user_id: user.as_str(),
            ride_id: ride.as_str(),
            last_id: *last_id,
            from_seq: entry.from_seq,
            until_seq: entry.until_seq,
            joined_at: entry.joined_at,
            status: &entry.status,
            is_ended: entry.is_ended,
            is_over: entry.is_over,
            is_read: entry.is_read,
        })
    });
    execute(session, sql::REMOTE_RIDES_PUT, &rows.collect::<RemoteRideRows<'_>>(), &[]).await
}

/// Marks the entries of rides that their shards have deleted.
pub(super) async fn delete_remote_rides(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let deleted = state.changes.remote_rides.iter().filter(|(_, (_, entry))| entry.is_none());
    let (mut users, mut rides, mut last_ids) = (Vec::new(), Vec::new(), Vec::new());
    for ((user, ride), (last_id, _)) in deleted {
        users.push(user.as_str());
        rides.push(ride.as_str());
        last_ids.push(*last_id);
    }
    if users.is_empty() {
        return Ok(0);
    }
    session.execute(sql::REMOTE_RIDES_DELETE, &[&users, &rides, &last_ids]).await
}
