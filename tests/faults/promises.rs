//! Every acknowledged message once in the log, every log without holes, every subscriber exactly its ride's log:
//! whatever breaks. 64 senders, 1,000 rides, 2,000 streams, two replicas.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::load::{Load, SENDING};
use crate::one_at_a_time;
use crate::support::{Cluster, Database, Server};
use crate::world::replicas;

/// How `pg_stat_activity` tells the listeners' connections from the others.
const LISTENER: &str = "ridewire-listener";

async fn replica(database: &Database, settings: &[(&str, &str)]) -> Server {
    let listener = format!("{}?application_name={LISTENER}", database.url);
    let mut all = vec![("RIDEWIRE_LISTEN_DATABASE_URL", listener.as_str())];
    all.extend(settings);
    Server::with(database, &all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_misplaced_when_nothing_breaks() {
    let _turn = one_at_a_time().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let outcome = load.run(&database, async {}).await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
    assert_eq!(outcome.unacknowledged, 0);
    assert_eq!(outcome.answers.unavailable.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_listeners_backends_are_killed() {
    let _turn = one_at_a_time().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let killer = database.client().await;
    let mut killed = 0;
    let outcome = load
        .run(&database, async {
            let until = Instant::now() + SENDING;
            let mut seconds = interval(Duration::from_secs(1));
            while Instant::now() < until {
                seconds.tick().await;
                let kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1";
                killed += killer.query(kill, &[&LISTENER]).await.unwrap().len();
            }
        })
        .await;
    eprintln!("{killed} backends were killed");
    assert!(killed >= 10, "no fault struck: {killed}");
    assert_eq!(outcome.reopened, 0, "streams stay open");
    assert_eq!(outcome.unacknowledged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_postgres_crashes_and_comes_back() {
    let _turn = one_at_a_time().await;
    let mut cluster = Cluster::own().await;
    let database = cluster.database();
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let began = Instant::now();
    let mut crashes = 0;
    let outcome = load
        .run(&database, async {
            for part in 1..=3 {
                sleep_until(began + SENDING * part / 4).await;
                cluster.restart_immediate().await;
                crashes += 1;
            }
        })
        .await;
    eprintln!("{crashes} crashes");
    let struck = outcome.answers.unavailable.load(Ordering::Relaxed);
    assert!(crashes == 3 && struck > 0, "no fault struck: {struck}");
    assert_eq!(outcome.reopened, 0, "streams stay open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_replica_is_killed_and_its_clients_go_to_another() {
    let _turn = one_at_a_time().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let addresses = Arc::clone(&load.replicas);
    let began = Instant::now();
    let mut third = None;
    let outcome = load
        .run(&database, async {
            sleep_until(began + SENDING / 4).await;
            one.kill().await;
            // Everybody is on the second alone for a while, until a third comes and the second goes.
            sleep(SENDING / 4).await;
            let server = replica(&database, &[]).await;
            addresses.replace(0, server.address().parse().unwrap());
            third = Some(server);
            two.kill().await;
        })
        .await;
    let struck = outcome.answers.broken.load(Ordering::Relaxed);
    assert!(outcome.reopened >= 1_500 && struck > 0, "no fault struck: {}, {struck}", outcome.reopened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_no_request_fails_twice_while_one_replica_after_the_other_is_replaced() {
    let _turn = one_at_a_time().await;
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DRAIN_WINDOW", "3s")];
    let (one, two) = (replica(&database, &settings).await, replica(&database, &settings).await);
    let load = Load::start(replicas(&one, &two)).await;
    let addresses = Arc::clone(&load.replicas);
    let mut next = Vec::new();
    let outcome = load
        .run(&database, async {
            for (number, old) in [one, two].into_iter().enumerate() {
                let asked = Instant::now();
                assert!(old.terminate().await.success(), "it ends as it was asked to");
                assert!(asked.elapsed() < Duration::from_secs(3 + 5), "{:?}", asked.elapsed());
                let server = replica(&database, &settings).await;
                addresses.replace(number, server.address().parse().unwrap());
                next.push(server);
            }
        })
        .await;
    assert!(outcome.reopened >= 2_000, "no fault struck: {}", outcome.reopened);
    let attempts = outcome.answers.most_attempts.load(Ordering::Relaxed);
    assert!(attempts <= 2, "one retry is enough: {attempts} attempts");
    assert_eq!(outcome.answers.unavailable.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_without_listen_and_notify() {
    let _turn = one_at_a_time().await;
    let database = Database::create().await;
    let settings = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "300ms")];
    let (one, two) = (replica(&database, &settings).await, replica(&database, &settings).await);
    let load = Load::start(replicas(&one, &two)).await;
    for server in [&one, &two] {
        let ready = reqwest::get(format!("{}/readyz", server.base)).await.unwrap().text().await.unwrap();
        assert!(ready.contains(r#""listen":"off""#), "no fault struck: {ready}");
    }
    let outcome = load.run(&database, async {}).await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
    assert_eq!(outcome.unacknowledged, 0);
}
