//! What runs in Postgres ends when nobody waits for it any more, and is never more than the pool has connections.

use std::time::Duration;

use futures_util::future::poll_immediate;
use ridewire::store::{PLANS_AGE, Prepared, Retention, Store, StoreConfig, StoreError};
use serde_json::json;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Bouncer, Database, SecurePostgres, Server, eventually};

/// Longer than any test.
const SLEEP: &str = "select 1 as one from pg_sleep(600)";

fn store(url: &str, prepared: Prepared) -> Store {
    let (postgres, patience) = (url.parse().unwrap(), Duration::from_secs(2));
    Store::new(StoreConfig { postgres, connections: 4, patience, prepared, plans_age: PLANS_AGE }).unwrap()
}

/// How many of our backends run a statement, and how many there are.
async fn backends(observer: &Client) -> (i64, i64) {
    let query = "select count(*) filter (where state <> 'idle'), count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and query not like 'lock %'";
    let row = observer.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn until_nothing_runs(observer: &Client) {
    eventually("nothing runs", async || (backends(observer).await.0 == 0).then_some(())).await;
}

/// The backends of connections that are idle now.
async fn idle(store: &Store) -> Vec<i32> {
    let mut sessions = Vec::new();
    while sessions.len() < store.pool_status().idle + sessions.len() {
        sessions.push(store.session().await.unwrap());
    }
    let mut pids = Vec::new();
    for session in &sessions {
        pids.push(session.query("select pg_backend_pid() as pid", &[]).await.unwrap()[0].get("pid"));
    }
    pids.sort_unstable();
    pids
}

/// The table locks of somebody who changes the schema: nearly every statement waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_lock_there_are_no_more_backends_than_the_pool_has() {
    let database = Database::create().await;
    let settings =
        [("RIDEWIRE_DATABASE_TIMEOUT", "4s"), ("RIDEWIRE_DATABASE_CONNECTIONS", "4"), ("RIDEWIRE_NOTIFY", "off")];
    let server = Server::with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride").await;
    rider.send("ride", "so that the ride is known").await;
    let observer = database.client().await;
    let brake = database.client().await;
    brake.batch_execute("begin").await.unwrap();
    brake.batch_execute("lock table topics, events, rides, messages, ride_locations, driver_state").await.unwrap();
    let mut most = 0;
    for round in 0..3 {
        let name = round.to_string();
        let location = json!({ "lat": 1, "lng": round });
        let answers = tokio::join!(
            rider.send_named("ride", "Hello", &name),
            rider.get("messages/rides/ride"),
            driver.post("rides/ride/location", location),
            driver.put("drivers/me/availability", json!({ "available": round % 2 == 0 })),
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            answer.problem(503, "unavailable");
        }
        most = most.max(backends(&observer).await.1);
    }
    assert!(most <= 4 + 2, "{most} backends of a pool of 4");
    brake.batch_execute("rollback").await.unwrap();
    eventually("the server is back", async || rider.get("messages/rides/ride").await.status.is_success().then_some(()))
        .await;
    until_nothing_runs(&observer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_postgres_ends_itself_costs_no_connection() {
    let database = Database::create().await;
    let store = store(&database.url, Prepared::On);
    let before = idle(&store).await;
    let error = store.session().await.unwrap().query(SLEEP, &[]).await.unwrap_err();
    let StoreError::Database(error) = error else { panic!("{error}") };
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    let session = store.session().await.unwrap();
    let pid: i32 = session.query("select pg_backend_pid() as pid", &[]).await.unwrap()[0].get("pid");
    drop(session);
    assert_eq!(idle(&store).await, [pid]);
    assert!(before.is_empty());
}

/// Postgres does not end it, nor does it answer: then we give it up, and ask for its end.
async fn is_cancelled(store: &Store, observer: &Client) {
    let sessions = [store.session().await.unwrap(), store.session().await.unwrap(), store.session().await.unwrap()];
    drop(sessions);
    let mut before = idle(store).await;
    assert_eq!(before.len(), 3);
    let session = store.session().await.unwrap();
    let pid: i32 = session.query("select pg_backend_pid() as pid", &[]).await.unwrap()[0].get("pid");
    session.batch_execute("set statement_timeout = 0").await.unwrap();
    let error = session.query(SLEEP, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout), "{error}");
    drop(session);
    until_nothing_runs(observer).await;
    // Its connection is lost, and no other.
    before.retain(|other| *other != pid);
    assert_eq!(idle(store).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_is_cancelled_and_the_other_connections_stay() {
    let database = Database::create().await;
    is_cancelled(&store(&database.url, Prepared::On), &database.client().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_is_cancelled_over_tls() {
    let postgres = SecurePostgres::start().await;
    let verified = format!("sslmode=verify-full&sslrootcert={}", postgres.file("ca.pem"));
    let observer = postgres.connect("localhost", &verified).await.unwrap();
    is_cancelled(&store(&postgres.database("localhost", &verified).url, Prepared::On), &observer).await;
}

/// Its asker has gone, as with a client that hangs up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_nobody_waits_for_any_more_is_cancelled() {
    let database = Database::create().await;
    let observer = database.client().await;
    let store = store(&database.url, Prepared::On);
    let session = store.session().await.unwrap();
    session.batch_execute("set statement_timeout = 0").await.unwrap();
    let mut asking = Box::pin(session.query(SLEEP, &[]));
    eventually("it runs", async || {
        assert!(timeout(Duration::from_millis(1), &mut asking).await.is_err());
        (backends(&observer).await.0 == 1).then_some(())
    })
    .await;
    drop(asking);
    drop(session);
    until_nothing_runs(&observer).await;
    // Where the answer comes at once, the connection is used again.
    let session = store.session().await.unwrap();
    let pid: i32 = session.query("select pg_backend_pid() as pid", &[]).await.unwrap()[0].get("pid");
    assert!(poll_immediate(session.query("select 1 as one", &[])).await.is_none());
    drop(session);
    eventually("it is back", async || (store.pool_status().idle == 1).then_some(())).await;
    assert_eq!(idle(&store).await, [pid]);
}

/// Through a pooler a session's settings would be another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_ends_statements_itself_through_a_pooler_of_transactions() {
    let database = Database::create().await;
    let Some(bouncer) = Bouncer::start(&database).await else { return };
    let observer = database.client().await;
    let store = store(&bouncer.url, Prepared::Off);
    for _ in 0..4 {
        let session = store.session().await.unwrap();
        let error = session.query(SLEEP, &[]).await.unwrap_err();
        let StoreError::Database(error) = error else { panic!("{error}") };
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    }
    let mut elsewhere = database.client().await;
    let lock = elsewhere.transaction().await.unwrap();
    lock.batch_execute("lock table rides").await.unwrap();
    let session = store.session().await.unwrap();
    session.begin("").await.unwrap();
    let error = session.query("select 1 as one from rides", &[]).await.unwrap_err();
    assert!(error.is_lock_timeout(), "{error}");
    session.abandon();
    lock.rollback().await.unwrap();
    until_nothing_runs(&observer).await;
    // It is of those transactions alone.
    let (client, connection) = tokio_postgres::connect(&bouncer.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..8 {
        let shown = client.simple_query("show statement_timeout").await.unwrap();
        let shown = shown.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(shown, Some("0"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_may_take_longer_than_a_request() {
    let database = Database::create().await;
    let slow =
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(3); return null; end $$;
        create trigger slow before delete on events for each statement execute function slow()";
    database.client().await.batch_execute(slow).await.unwrap();
    let store = store(&database.url, Prepared::On);
    let day = Duration::from_secs(86_400);
    assert_eq!(
        store.trim(Retention { logs: day, messages: day, feed: day, handovers: day, audit: day }).await.unwrap(),
        0
    );
}
