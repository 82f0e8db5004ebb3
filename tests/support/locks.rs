//! Rides that somebody else holds, and batches that wait.

use tokio_postgres::{Client, Transaction};

use super::eventually;

/// Holds a ride as another replica would.
pub async fn lock<'a>(client: &'a mut Client, ride: &str) -> Transaction<'a> {
    lock_topic(client, &format!("ride/{ride}")).await
}

/// Holds any topic as another replica would.
pub async fn lock_topic<'a>(client: &'a mut Client, topic: &str) -> Transaction<'a> {
    let lock = client.transaction().await.unwrap();
    assert_eq!(lock.execute("select from topics where name = $1 for update", &[&topic]).await.unwrap(), 1, "{topic}");
    lock
}

/// Holds whatever batch has a message of `rider_1` on this ride by this name, while it is stored: the whole batch waits, for
/// nothing that it could leave out.
pub async fn hold<'a>(client: &'a mut Client, ride: &str, name: &str) -> Transaction<'a> {
    let hold = client.transaction().await.unwrap();
    let insert =
        "insert into messages (id, ride_id, seq, sender_id, sender_role, client_message_id, content_hash, created_at)
        values (gen_random_uuid(), $1, 0, 'rider_1', 'rider', $2, '', now())";
    hold.execute(insert, &[&ride, &name]).await.unwrap();
    hold
}

/// Waits until so many backends wait for locks.
pub async fn until_waiting(observer: &Client, batches: i64) {
    let query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("they wait for locks", async || {
        (observer.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == batches).then_some(())
    })
    .await;
}
