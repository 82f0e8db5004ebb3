//! Presence whatever fails: a replica dies, a reconciliation is cut off, a lease is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;

use crate::support::{Database, Server, User, eventually, eventually_within};

/// Heartbeats are five seconds apart, and a busy machine takes its time.
const HEARTBEATS: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(50);

/// What is registered under a lease that holds, and what the leases of dead replicas hold, counts; this is what was told.
async fn online(asker: &User) -> BTreeSet<String> {
    let answer = asker.get("messages/rides/ride_1/presence").await.expect(200).json();
    let people = answer["participants"].as_array().unwrap().iter();
    people.filter(|one| one["online"] == true).map(|one| one["userId"].as_str().unwrap().to_owned()).collect()
}

async fn until_online(asker: &User, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    eventually_within(HEARTBEATS, PAUSE, &format!("{expected:?} are online"), async || {
        (online(asker).await == expected).then_some(())
    })
    .await;
}

/// The leases of the replicas on which a user is registered run out now.
async fn end_leases(client: &Client, user: &str) {
    let end = "update replicas set expires_at = clock_timestamp() - interval '1 second'
               where replica in (select replica from presence where user_id = $1)";
    assert!(client.execute(end, &[&user]).await.unwrap() > 0);
}

/// The sessions that wait for a lock now.
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
    let _here = one.live(&rider, "ride_1").await;
    let _there = two.live(&driver, "ride_1").await;
    until_online(&rider, &["rider_1", "driver_1"]).await;
    two.kill().await;
    let (mut holder, observer) = (database.client().await, database.client().await);
    let held = holder.transaction().await.unwrap();
    held.execute("select from presence_states where user_id = 'driver_1' for update", &[]).await.unwrap();
    end_leases(&observer, "driver_1").await;
    // Whatever had been done by the time at which it waits is all that is ever done of it.
    let cut_off = eventually_within(HEARTBEATS, PAUSE, "they are being reconciled", async || {
        waiting(&observer).await.first().copied()
    })
    .await;
    observer.execute("select pg_terminate_backend($1)", &[&cut_off]).await.unwrap();
    held.rollback().await.unwrap();
    until_online(&rider, &["rider_1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_under_a_lease_that_is_gone_is_removed_whoever_left_it_behind() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let _here = server.live(&rider, "ride_1").await;
    until_online(&rider, &["rider_1"]).await;
    // A replica that registers its users while another one takes its lease for gone, or that dies after that. Twelve
    // hundred of them: more than one transaction takes.
    let left_behind = "
        insert into presence (topic, user_id, replica)
        select 'ride/ride_1', user_id, '00000000-0000-7000-8000-000000000001'
        from (select 'driver_1' as user_id union all select 'user_' || number from generate_series(1, 1200) as number) as them;
        insert into presence_states (topic, user_id, online, since, version, seq)
        select topic, user_id, true, clock_timestamp(), 1, 1
        from presence where replica = '00000000-0000-7000-8000-000000000001'";
    let client = database.client().await;
    client.batch_execute(left_behind).await.unwrap();
    until_online(&rider, &["rider_1"]).await;
    eventually("nothing is left of them", async || {
        let registered = count(&client, "select count(*) from presence where topic = 'ride/ride_1'").await;
        let online =
            count(&client, "select count(*) from presence_states where topic = 'ride/ride_1' and online").await;
        ((registered, online) == (1, 1)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_lost_its_lease_registers_everyone_again_and_nobody_is_told_they_left() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let _streams = [server.live(&rider, "ride_1").await, server.live(&driver, "ride_1").await];
    until_online(&rider, &["rider_1", "driver_1"]).await;
    let mut watching = server.live(&server.service(), "ride_1").await;
    watching.hears_presence = true;
    let client = database.client().await;
    let before: uuid::Uuid = client.query_one("select distinct replica from presence", &[]).await.unwrap().get(0);
    end_leases(&client, "driver_1").await;
    // Both on the ride, the driver as such too; and what was left of the lease before is taken away.
    eventually_within(HEARTBEATS, PAUSE, "they are registered under another lease alone", async || {
        let rows = client.query("select replica from presence", &[]).await.unwrap();
        (rows.len() == 3 && rows.iter().all(|row| row.get::<_, uuid::Uuid>(0) != before)).then_some(())
    })
    .await;
    rider.send("ride_1", "Nothing was told before this").await;
    watching.next_of("message:new").await;
    assert_eq!(online(&rider).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_lease_comes_with_all_of_its_registrations_or_not_at_all() {
    let database = Database::create().await;
    // What waits for the held row gives up, so that another attempt is made.
    let server = Server::with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "2s")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let _streams = [server.live(&rider, "ride_1").await, server.live(&driver, "ride_1").await];
    until_online(&rider, &["rider_1", "driver_1"]).await;
    let (mut holder, observer) = (database.client().await, database.client().await);
    let held = holder.transaction().await.unwrap();
    held.execute("select from presence_states where user_id = 'driver_1' for update", &[]).await.unwrap();
    end_leases(&observer, "driver_1").await;
    // The registration fails at one user, again and again.
    let mut attempts = BTreeSet::new();
    eventually_within(HEARTBEATS, PAUSE, "it is tried again", async || {
        attempts.extend(waiting(&observer).await);
        assert_eq!(count(&observer, LIVE_LEASES).await, 0, "a lease without its users: {attempts:?}");
        (attempts.len() > 1).then_some(())
    })
    .await;
    held.rollback().await.unwrap();
    let registered = "select count(*) from presence join replicas using (replica)
                      where topic = 'ride/ride_1' and replicas.expires_at > clock_timestamp()";
    eventually_within(HEARTBEATS, PAUSE, "everybody is registered", async || {
        (count(&observer, registered).await == 2).then_some(())
    })
    .await;
    assert_eq!(online(&rider).await.len(), 2);
}
