//! Rides that somebody else holds, and batches that wait for them.

use tokio_postgres::{Client, Transaction};

use super::eventually;

/// Holds a ride as another replica would.
pub async fn lock<'a>(client: &'a mut Client, ride: &str) -> Transaction<'a> {
    let lock = client.transaction().await.unwrap();
    lock.execute("select from topics where name = 'ride/' || $1 for update", &[&ride]).await.unwrap();
    lock
}

/// Waits until so many batches wait for locks.
pub async fn until_waiting(observer: &Client, batches: i64) {
    let query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("they wait for locks", async || {
        (observer.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == batches).then_some(())
    })
    .await;
}
