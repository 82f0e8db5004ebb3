//! Presence under faults: a replica dies, a reconciliation is interrupted, or a lease is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;

use crate::support::{Database, Server, User, eventually, eventually_within};

/// Heartbeats are five seconds apart, and a busy machine is slow.
const HEARTBEATS: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(50);

/// The registrations under valid leases, and the announced state.
async fn online(caller: &User) -> BTreeSet<String> {
    let response = caller.get("messages/rides/ride_1/presence").await.expect(200).json();
    let participants = response["participants"].as_array().unwrap().iter();
    participants.filter(|one| one["online"] == true).map(|one| one["userId"].as_str().unwrap().to_owned()).collect()
}

async fn until_online(caller: &User, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    eventually_within(HEARTBEATS, PAUSE, &format!("{expected:?} are online"), async || {
        (online(caller).await == expected).then_some(())
    })
    .await;
}

/// Expires the leases of the replicas on which a user is registered.
async fn expire_leases(client: &Client, user: &str) {
    let end = "update replicas set expires_at = clock_timestamp() - interval '1 second'
               where replica in (select replica from presence where user_id = $1)";
    assert!(client.execute(end, &[&user]).await.unwrap() > 0);
}

/// Returns the sessions that wait for a lock.
async fn waiting(client: &Client) -> BTreeSet<i32> {
    let query = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn count(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

const LIVE_LEASES: &str = "select count(*) from replicas where expires_at > clock_timestamp()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_dead_replica_go_offline_although_their_reconciliation_was_cut_off() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let _here = one.live_stream(&rider, "ride_1").await;
    let _there = two.live_stream(&driver, "ride_1").await;
    until_online(&rider, &["rider_1", "driver_1"]).await;
    two.kill().await;
    let (mut holder, observer) = (database.client().await, database.client().await);
    let held = holder.transaction().await.unwrap();
    held.execute("select from presence_states where user_id = 'driver_1' for update", &[]).await.unwrap();
    expire_leases(&observer, "driver_1").await;
    // The reconciliation is interrupted at this point and never completes.
    let cut_off = eventually_within(HEARTBEATS, PAUSE, "the reconciliation has started", async || {
        waiting(&observer).await.first().copied()
    })
    .await;
    observer.execute("select pg_terminate_backend($1)", &[&cut_off]).await.unwrap();
    held.rollback().await.unwrap();
    until_online(&rider, &["rider_1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presence_row_of_an_expired_lease_is_removed_by_any_replica() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let _here = server.live_stream(&rider, "ride_1").await;
    until_online(&rider, &["rider_1"]).await;
    // A replica that registers its users while another one expires its lease, or that dies after that. There are 1,200 users,
    // which is more than one transaction handles.
    let insert_stale_rows = "
        insert into presence (topic, user_id, replica)
        select 'ride/ride_1', user_id, '00000000-0000-7000-8000-000000000001'
        from (select 'driver_1' as user_id union all select 'user_' || number from generate_series(1, 1200) as number) as them;
        insert into presence_states (topic, user_id, online, since, version, seq)
        select topic, user_id, true, clock_timestamp(), 1, 1
        from presence where replica = '00000000-0000-7000-8000-000000000001'";
    let client = database.client().await;
    client.batch_execute(insert_stale_rows).await.unwrap();
    until_online(&rider, &["rider_1"]).await;
    eventually("all stale rows are removed", async || {
        let registered = count(&client, "select count(*) from presence where topic = 'ride/ride_1'").await;
        let online =
            count(&client, "select count(*) from presence_states where topic = 'ride/ride_1' and online").await;
        ((registered, online) == (1, 1)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_lease_registers_its_users_again_without_offline_events() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let _streams = [server.live_stream(&rider, "ride_1").await, server.live_stream(&driver, "ride_1").await];
    until_online(&rider, &["rider_1", "driver_1"]).await;
    let mut watching = server.live_stream(&server.service(), "ride_1").await;
    watching.includes_presence = true;
    let client = database.client().await;
    let before: uuid::Uuid = client.query_one("select distinct replica from presence", &[]).await.unwrap().get(0);
    expire_leases(&client, "driver_1").await;
    // Both users on the ride, and the driver among the drivers. The rows of the old lease are removed.
    eventually_within(HEARTBEATS, PAUSE, "all users are registered under the new lease only", async || {
        let rows = client.query("select replica from presence", &[]).await.unwrap();
        (rows.len() == 3 && rows.iter().all(|row| row.get::<_, uuid::Uuid>(0) != before)).then_some(())
    })
    .await;
    rider.send("ride_1", "no event before this").await;
    watching.next_of_type("message:new").await;
    assert_eq!(online(&rider).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_lease_and_its_registrations_are_one_transaction() {
    let database = Database::create().await;
    // The request that waits for the locked row times out, so another attempt follows.
    let server = Server::start_with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "2s")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let _streams = [server.live_stream(&rider, "ride_1").await, server.live_stream(&driver, "ride_1").await];
    until_online(&rider, &["rider_1", "driver_1"]).await;
    let (mut holder, observer) = (database.client().await, database.client().await);
    let held = holder.transaction().await.unwrap();
    held.execute("select from presence_states where user_id = 'driver_1' for update", &[]).await.unwrap();
    expire_leases(&observer, "driver_1").await;
    // The registration fails at one user repeatedly.
    let mut attempts = BTreeSet::new();
    eventually_within(HEARTBEATS, PAUSE, "another attempt is made", async || {
        attempts.extend(waiting(&observer).await);
        assert_eq!(count(&observer, LIVE_LEASES).await, 0, "a lease without registrations: {attempts:?}");
        (attempts.len() > 1).then_some(())
    })
    .await;
    held.rollback().await.unwrap();
    let registered = "select count(*) from presence join replicas using (replica)
                      where topic = 'ride/ride_1' and replicas.expires_at > clock_timestamp()";
    eventually_within(HEARTBEATS, PAUSE, "all users are registered", async || {
        (count(&observer, registered).await == 2).then_some(())
    })
    .await;
    assert_eq!(online(&rider).await.len(), 2);
}
