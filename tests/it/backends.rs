//! Postgres backends: abandoned statements are cancelled, and there are never more backends than the pool has connections.

use std::time::Duration;

use futures_util::future::poll_immediate;
use ridewire::store::{PLAN_TTL, Prepared, Retention, Store, StoreConfig, StoreError, pool_wait_histogram};
use serde_json::json;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Database, PgBouncer, Server, TlsPostgres, eventually};

/// A statement that runs longer than any test.
const SLEEP: &str = "select 1 as one from pg_sleep(600)";

fn store(url: &str, prepared: Prepared) -> Store {
    let (postgres, timeout) = (url.parse().unwrap(), Duration::from_secs(2));
    Store::new(StoreConfig {
        postgres,
        connections: 4,
        timeout,
        prepared,
        plan_ttl: PLAN_TTL,
        pool_wait: pool_wait_histogram().unwrap(),
    })
    .unwrap()
}

/// Returns how many backends of the database run a statement, and how many there are.
async fn backends(observer: &Client) -> (i64, i64) {
    let query = "select count(*) filter (where state <> 'idle'), count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and query not like 'lock %'";
    let row = observer.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn until_no_statement_runs(observer: &Client) {
    eventually("no statement runs", async || (backends(observer).await.0 == 0).then_some(())).await;
}

/// Returns the backend pids of the idle connections.
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

/// Another session holds table locks, as during a schema change. Nearly every statement waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_that_wait_for_a_lock_do_not_exceed_the_pool() {
    let database = Database::create().await;
    let settings =
        [("RIDEWIRE_DATABASE_TIMEOUT", "4s"), ("RIDEWIRE_DATABASE_CONNECTIONS", "4"), ("RIDEWIRE_NOTIFY", "off")];
    let server = Server::start_with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride").await;
    rider.send("ride", "loads the ride into the cache").await;
    let observer = database.client().await;
    let locker = database.client().await;
    locker.batch_execute("begin").await.unwrap();
    locker.batch_execute("lock table topics, events, rides, messages, ride_locations, driver_state").await.unwrap();
    let mut maximum = 0;
    for round in 0..3 {
        let client_id = round.to_string();
        let location = json!({ "lat": 1, "lng": round });
        let responses = tokio::join!(
            rider.send_with_id("ride", "Hello", &client_id),
            rider.get("messages/rides/ride"),
            driver.post("rides/ride/location", location),
            driver.put("drivers/me/availability", json!({ "available": round % 2 == 0 })),
        );
        for response in [responses.0, responses.1, responses.2, responses.3] {
            response.problem(503, "unavailable");
        }
        maximum = maximum.max(backends(&observer).await.1);
    }
    assert!(maximum <= 4 + 2, "{maximum} backends of a pool of 4");
    locker.batch_execute("rollback").await.unwrap();
    eventually("the server works again", async || {
        rider.get("messages/rides/ride").await.status.is_success().then_some(())
    })
    .await;
    until_no_statement_runs(&observer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_postgres_cancels_keeps_its_connection() {
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

/// Postgres has no timeout for the statement and does not respond. The store's timeout passes, and it cancels the statement.
async fn assert_cancelled(store: &Store, observer: &Client) {
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
    until_no_statement_runs(observer).await;
    // Only its connection is closed.
    before.retain(|other| *other != pid);
    assert_eq!(idle(store).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_is_cancelled_and_the_other_connections_stay() {
    let database = Database::create().await;
    assert_cancelled(&store(&database.url, Prepared::On), &database.client().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_is_cancelled_over_tls() {
    let postgres = TlsPostgres::start().await;
    let verified = format!("sslmode=verify-full&sslrootcert={}", postgres.file("ca.pem"));
    let observer = postgres.connect("localhost", &verified).await.unwrap();
    assert_cancelled(&store(&postgres.database("localhost", &verified).url, Prepared::On), &observer).await;
}

/// The future is dropped, as when a client closes its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_whose_future_is_dropped_is_cancelled() {
    let database = Database::create().await;
    let observer = database.client().await;
    let store = store(&database.url, Prepared::On);
    let session = store.session().await.unwrap();
    session.batch_execute("set statement_timeout = 0").await.unwrap();
    let mut query = Box::pin(session.query(SLEEP, &[]));
    eventually("the statement runs", async || {
        assert!(timeout(Duration::from_millis(1), &mut query).await.is_err());
        (backends(&observer).await.0 == 1).then_some(())
    })
    .await;
    drop(query);
    drop(session);
    until_no_statement_runs(&observer).await;
    // A statement whose result arrives soon does not cost the connection.
    let session = store.session().await.unwrap();
    let pid: i32 = session.query("select pg_backend_pid() as pid", &[]).await.unwrap()[0].get("pid");
    assert!(poll_immediate(session.query("select 1 as one", &[])).await.is_none());
    drop(session);
    eventually("the connection is idle again", async || (store.pool_status().idle == 1).then_some(())).await;
    assert_eq!(idle(&store).await, [pid]);
}

/// Through a transaction pooler, a session setting would apply to other clients: the timeout is set per transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_enforces_timeouts_through_a_transaction_pooler() {
    let database = Database::create().await;
    let Some(bouncer) = PgBouncer::start(&database).await else { return };
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
    until_no_statement_runs(&observer).await;
    // The timeout applies only to those transactions.
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
