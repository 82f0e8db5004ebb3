//! Row locks of another session, and batches that wait for them.

use tokio_postgres::{Client, Transaction};

use super::eventually;

/// Locks a ride's topic row, as another replica does. The lock lasts until the transaction is dropped.
pub async fn lock_ride<'a>(client: &'a mut Client, ride: &str) -> Transaction<'a> {
    lock_topic(client, &format!("ride/{ride}")).await
}

/// Locks the row of any topic, as another replica does.
pub async fn lock_topic<'a>(client: &'a mut Client, topic: &str) -> Transaction<'a> {
    let lock = client.transaction().await.unwrap();
    assert_eq!(lock.execute("select from topics where name = $1 for update", &[&topic]).await.unwrap(), 1, "{topic}");
    lock
}

/// Blocks a batch while it inserts a message of `rider_1` on this ride with this `clientMessageId`: an uncommitted row holds
/// the unique key. The whole batch waits, because the writer cannot leave a command out at this point.
pub async fn block_message_insert<'a>(client: &'a mut Client, ride: &str, client_id: &str) -> Transaction<'a> {
    let transaction = client.transaction().await.unwrap();
    let insert =
        "insert into messages (id, ride_id, seq, sender_id, sender_role, client_message_id, content_hash, created_at)
        values (gen_random_uuid(), $1, 0, 'rider_1', 'rider', $2, '', now())";
    transaction.execute(insert, &[&ride, &client_id]).await.unwrap();
    transaction
}

/// Waits until exactly `backends` backends wait for locks.
pub async fn until_waiting_for_locks(observer: &Client, backends: i64) {
    let query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the backends wait for locks", async || {
        (observer.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == backends).then_some(())
    })
    .await;
}
