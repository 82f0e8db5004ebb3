//! Every acknowledged message once in the log, every log without holes, every subscriber exactly its ride's log:
//! whatever breaks. 64 senders, 1,000 rides, 2,000 streams, two replicas.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::load::Load;
use crate::support::{Cluster, Database, Server, eventually};
use crate::two_at_a_time;
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
    let _turn = two_at_a_time().await;
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
    let _turn = two_at_a_time().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let (killer, answers) = (database.client().await, load.answers());
    let mut killed = 0;
    let outcome = load
        .run(&database, async {
            for _ in 0..6 {
                let there =
                    "select count(*) from pg_stat_activity where application_name = $1 and query ilike '%; listen %'";
                eventually("both listen", async || {
                    (killer.query_one(there, &[&LISTENER]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
                })
                .await;
                answers.more(250).await;
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
    let _turn = two_at_a_time().await;
    let mut cluster = Cluster::own().await;
    let database = cluster.database();
    let settings = [("RIDEWIRE_DATABASE_TIMEOUT", "2s")];
    let (one, two) = (replica(&database, &settings).await, replica(&database, &settings).await);
    let load = Load::start(replicas(&one, &two)).await;
    let answers = load.answers();
    let mut crashes = 0;
    let outcome = load
        .run(&database, async {
            for _ in 0..3 {
                answers.more(500).await;
                cluster.stop_immediate().await;
                answers.another_unavailable().await;
                cluster.start_again().await;
                crashes += 1;
            }
            answers.more(500).await;
        })
        .await;
    eprintln!("{crashes} crashes");
    let struck = outcome.answers.unavailable.load(Ordering::Relaxed);
    assert!(crashes == 3 && struck > 0, "no fault struck: {struck}");
    assert_eq!(outcome.reopened, 0, "streams stay open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_replica_is_killed_and_its_clients_go_to_another() {
    let _turn = two_at_a_time().await;
    let database = Database::create().await;
    let (one, two) = (replica(&database, &[]).await, replica(&database, &[]).await);
    let load = Load::start(replicas(&one, &two)).await;
    let (addresses, answers, progress) = (Arc::clone(&load.replicas), load.answers(), load.progress());
    let mut third = None;
    let outcome = load
        .run(&database, async {
            answers.more(700).await;
            one.kill().await;
            // Everybody is on the second alone for a while, until a third comes and the second goes.
            answers.more(700).await;
            eventually("everybody is there", async || progress.iter().all(|one| one.is_synced()).then_some(())).await;
            let server = replica(&database, &[]).await;
            addresses.replace(0, server.address().parse().unwrap());
            third = Some(server);
            two.kill().await;
            answers.more(700).await;
        })
        .await;
    let struck = outcome.answers.broken.load(Ordering::Relaxed);
    assert!(outcome.reopened >= 1_500 && struck > 0, "no fault struck: {}, {struck}", outcome.reopened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_no_request_fails_twice_while_one_replica_after_the_other_is_replaced() {
    let _turn = two_at_a_time().await;
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DRAIN_WINDOW", "3s")];
    let (one, two) = (replica(&database, &settings).await, replica(&database, &settings).await);
    let load = Load::start(replicas(&one, &two)).await;
    let (addresses, answers) = (Arc::clone(&load.replicas), load.answers());
    let mut next = Vec::new();
    let outcome = load
        .run(&database, async {
            for (number, old) in [one, two].into_iter().enumerate() {
                assert!(old.terminate().await.success(), "it ends as it was asked to");
                let server = replica(&database, &settings).await;
                addresses.replace(number, server.address().parse().unwrap());
                next.push(server);
                // Nobody tries a replica that has gone, and then the next one that goes.
                answers.one_more_of_each().await;
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
    let _turn = two_at_a_time().await;
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
