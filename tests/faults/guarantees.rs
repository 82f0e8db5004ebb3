//! The delivery guarantees under each kind of fault, with 64 senders, 1,000 rides, 2,000 streams and two replicas.
//!
//! - Each acknowledged message is in the log exactly once.
//! - No log has a hole.
//! - Each subscriber receives exactly the log of its ride.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::fixtures::replicas;
use crate::limit_heavy_tests;
use crate::load::Load;
use crate::support::{Cluster, Database, Server, eventually};

/// The `application_name` of the listeners' connections in `pg_stat_activity`.
const LISTENER: &str = "ridewire-listener";

async fn replica(database: &Database, settings: &[(&str, &str)]) -> Server {
    let listener = format!("{}?application_name={LISTENER}", database.url);
    let mut all = vec![("RIDEWIRE_LISTEN_DATABASE_URL", listener.as_str())];
    all.extend(settings);
    Server::start_with(database, &all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_reordered_without_faults() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let outcome = load.run(&database, async {}).await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
    assert_eq!(outcome.unacknowledged, 0);
    assert_eq!(outcome.responses.unavailable.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_backends_of_the_listeners_are_killed() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let (admin, responses) = (database.client().await, load.responses());
    let mut killed = 0;
    let outcome = load
        .run(&database, async {
            for _ in 0..6 {
                let listening =
                    "select count(*) from pg_stat_activity where application_name = $1 and query ilike '%; listen %'";
                eventually("both replicas listen", async || {
                    (admin.query_one(listening, &[&LISTENER]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
                })
                .await;
                responses.wait_for_more(250).await;
                let kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1";
                killed += admin.query(kill, &[&LISTENER]).await.unwrap().len();
            }
        })
        .await;
    eprintln!("{killed} backends were killed");
    assert!(killed >= 10, "no fault injected: {killed}");
    assert_eq!(outcome.reopened, 0, "streams stay open");
    assert_eq!(outcome.unacknowledged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_postgres_crashes_and_restarts() {
    let _permit = limit_heavy_tests().await;
    let mut cluster = Cluster::dedicated().await;
    let database = cluster.database();
    let settings = [("RIDEWIRE_DATABASE_TIMEOUT", "2s")];
    let (one, two) = (replica(&database, &settings).await, replica(&database, &settings).await);
    let load = Load::start(replicas(&one, &two)).await;
    let responses = load.responses();
    let mut crashes = 0;
    let outcome = load
        .run(&database, async {
            for _ in 0..3 {
                responses.wait_for_more(500).await;
                cluster.stop_immediate().await;
                responses.wait_for_unavailable().await;
                cluster.start_again().await;
                crashes += 1;
            }
            responses.wait_for_more(500).await;
        })
        .await;
    eprintln!("{crashes} crashes");
    let injected = outcome.responses.unavailable.load(Ordering::Relaxed);
    assert!(crashes == 3 && injected > 0, "no fault injected: {injected}");
    assert_eq!(outcome.reopened, 0, "streams stay open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_replica_is_killed_and_its_clients_reconnect_to_another() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let (addresses, responses, progress) = (Arc::clone(&load.replicas), load.responses(), load.progress());
    let mut third = None;
    let outcome = load
        .run(&database, async {
            responses.wait_for_more(700).await;
            one.kill().await;
            // All clients use the second replica for a while. Then a third one starts and the second one is killed.
            responses.wait_for_more(700).await;
            eventually("every subscriber is synced", async || progress.iter().all(|one| one.is_synced()).then_some(()))
                .await;
            let server = replica(&database, &[]).await;
            addresses.replace(0, server.address().parse().unwrap());
            third = Some(server);
            two.kill().await;
            responses.wait_for_more(700).await;
        })
        .await;
    let injected = outcome.responses.broken.load(Ordering::Relaxed);
    assert!(outcome.reopened >= 1_500 && injected > 0, "no fault injected: {}, {injected}", outcome.reopened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_no_request_fails_twice_during_a_rolling_restart() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DRAIN_WINDOW", "3s")];
    let (one, two) = (replica(&database, &settings).await, replica(&database, &settings).await);
    let load = Load::start(replicas(&one, &two)).await;
    let (addresses, responses) = (Arc::clone(&load.replicas), load.responses());
    let mut next = Vec::new();
    let outcome = load
        .run(&database, async {
            for (number, old) in [one, two].into_iter().enumerate() {
                assert!(old.terminate().await.success(), "it stops gracefully");
                let server = replica(&database, &settings).await;
                addresses.replace(number, server.address().parse().unwrap());
                next.push(server);
                // No sender may try a stopped replica and then the next one that stops.
                responses.wait_for_one_per_sender().await;
            }
        })
        .await;
    assert!(outcome.reopened >= 2_000, "no fault injected: {}", outcome.reopened);
    let attempts = outcome.responses.max_attempts.load(Ordering::Relaxed);
    assert!(attempts <= 2, "one retry is enough: {attempts} attempts");
    assert_eq!(outcome.responses.unavailable.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_without_listen_and_notify() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let settings = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "300ms")];
    let (one, two) = (replica(&database, &settings).await, replica(&database, &settings).await);
    let load = Load::start(replicas(&one, &two)).await;
    for server in [&one, &two] {
        let ready = reqwest::get(format!("{}/readyz", server.base)).await.unwrap().text().await.unwrap();
        assert!(ready.contains(r#""listen":"off""#), "no fault injected: {ready}");
    }
    let outcome = load.run(&database, async {}).await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
    assert_eq!(outcome.unacknowledged, 0);
}
