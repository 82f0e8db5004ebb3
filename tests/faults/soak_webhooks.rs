//! Webhooks under faults: an endpoint that fails at random while replicas are killed, and a dead endpoint among a thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixtures::{create_rides, replicas};
use crate::support::{
    Database, Received, Receiver, Reply, Server, User, assert_in_order, eventually, eventually_within,
};
use crate::{limit_heavy_tests, size};

/// Short retry delays, and endpoints on this machine are allowed.
const SETTINGS: [(&str, &str); 4] = [
    ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1"),
    ("RIDEWIRE_WEBHOOK_RETRIES", "50ms"),
    ("RIDEWIRE_FALLBACK_POLL", "500ms"),
    // Then the feed contains only events of logs.
    ("RIDEWIRE_PUSH_AFTER", "0s"),
];

/// How long deliveries may take: a request without a response times out after 15 s and is retried.
const TIMEOUT: Duration = Duration::from_secs(240);

async fn webhook(service: &User, url: &str, types: &[&str]) -> Value {
    service.post("webhooks", json!({ "url": url, "types": types })).await.expect(201).json()
}

/// The response of an endpoint that fails at random. It rarely returns no response, but does so for request 20.
fn random_reply(request: usize) -> Reply {
    match fastrand::u32(..400) {
        _ if request == 20 => Reply::Never,
        0 => Reply::Never,
        1..=20 => Reply::Reset,
        21..=50 => Reply::Status(500),
        51..=70 => Reply::Header(429, "retry-after", "0".to_owned()),
        71..=90 => Reply::Late(Duration::from_millis(fastrand::u64(50..500)), 204),
        91..=100 => Reply::Late(Duration::from_millis(fastrand::u64(50..500)), 503),
        _ => Reply::Status(204),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_randomly_failing_endpoint_gets_every_event_in_order_while_replicas_are_killed() {
    let _permit = limit_heavy_tests().await;
    let (rides, messages, kills) = (size(12, 400), size(6, 40), size(3, 40));
    let database = Database::create().await;
    let mut servers = [Server::start_with(&database, &SETTINGS).await, Server::start_with(&database, &SETTINGS).await];
    let requests = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| random_reply(requests.fetch_add(1, Ordering::Relaxed))).await;
    let created = webhook(&servers[0].service(), &receiver.base, &["*"]).await;
    let names: Vec<_> = (0..rides).map(|ride| format!("ride_{ride}")).collect();
    create_rides(&replicas(&servers[0], &servers[1]), &names).await;
    let client = database.client().await;
    for round in 0..kills {
        // The sends go to the other replica.
        let (sender, killed) = (&servers[round % 2], (round + 1) % 2);
        let sends = names.iter().map(async |ride| {
            let rider = sender.rider(&format!("rider_of_{ride}"));
            for n in 0..messages.div_ceil(kills) {
                rider.send(ride, &format!("{round} {n}")).await;
            }
        });
        let before = receiver.count("/");
        futures_util::future::join_all(sends).await;
        eventually("deliveries are in progress", async || (receiver.count("/") > before + 5).then_some(())).await;
        let next = Server::start_with(&database, &SETTINGS).await;
        std::mem::replace(&mut servers[killed], next).kill().await;
        // As if the leases of the killed replica had expired.
        let expire = "update webhook_queues set due_at = now() where lease is not null";
        client.execute(expire, &[]).await.unwrap();
    }
    let pause = Duration::from_millis(200);
    let all = eventually_within(TIMEOUT, pause, "everything is delivered", async || {
        let counted =
            "select (select count(*) from events), (select count(*) from webhook_deliveries where state = 'delivered')";
        let row = client.query_one(counted, &[]).await.unwrap();
        let (events, delivered): (i64, i64) = (row.get(0), row.get(1));
        (events == delivered).then_some(events)
    })
    .await;
    let (accepted, received) = (receiver.accepted("/"), receiver.received("/"));
    let log_positions: BTreeSet<_> = accepted.iter().map(Received::log_position).collect();
    let failed = received.len() - accepted.len();
    eprintln!("{all} events in {} requests, of which {failed} failed; {kills} replicas killed", received.len());
    assert_eq!(i64::try_from(log_positions.len()).unwrap(), all, "no event is lost");
    assert_in_order(&accepted);
    // Failed attempts are in order as well.
    assert_in_order(&received);
    assert!(failed > 0, "nothing failed");
    let ids: BTreeMap<_, _> =
        received.iter().map(|request| (request.header("webhook-id"), request.log_position())).collect();
    assert_eq!(ids.len(), log_positions.len(), "an event keeps its id");
    let secret = created["secret"].as_str().unwrap();
    assert!(received.iter().all(|request| request.is_signed_with(secret)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_delays_none_of_a_thousand_others() {
    let _permit = limit_heavy_tests().await;
    let (endpoints, messages) = (size(50, 1_000), size(3, 20));
    let database = Database::create().await;
    let server = Server::start_with(&database, &SETTINGS).await;
    let receiver =
        Receiver::start(|request| if request.path == "/dead" { Reply::Never } else { Reply::Status(204) }).await;
    let service = server.service();
    let (rider, _) = server.open_ride("ride_1").await;
    for _ in 1..endpoints {
        webhook(&service, &format!("{}/alive", receiver.base), &["message:new"]).await;
    }
    // The latency from a send to its arrival at each live endpoint, sorted. Messages are sent one after the other.
    let latencies = async || {
        let begin = receiver.count("/alive");
        let mut sends = Vec::new();
        for n in 1..=messages {
            sends.push(Instant::now());
            rider.send("ride_1", "Hello").await;
            eventually_within(TIMEOUT, Duration::from_millis(2), "all live endpoints have it", async || {
                (receiver.count("/alive") >= begin + n * (endpoints - 1)).then_some(())
            })
            .await;
        }
        let arrived = receiver.received("/alive");
        let arrived = arrived[begin..].chunks(endpoints - 1).zip(sends);
        let latency = |(arrived, sent): (&[Received], Instant)| {
            arrived.iter().map(|request| request.at.saturating_duration_since(sent)).collect::<Vec<_>>()
        };
        let mut latencies: Vec<_> = arrived.flat_map(latency).collect();
        latencies.sort_unstable();
        latencies
    };
    let of = |latencies: &[Duration], part: usize| latencies[(latencies.len() - 1) * part / 100];
    let alive = latencies().await;
    let dead = webhook(&service, &format!("{}/dead", receiver.base), &["message:new"]).await;
    let beside = latencies().await;
    eprintln!(
        "{endpoints} endpoints: p50 {:.0?}, p99 {:.0?}; with one of them dead: p50 {:.0?}, p99 {:.0?}",
        of(&alive, 50),
        of(&alive, 99),
        of(&beside, 50),
        of(&beside, 99),
    );
    // The live endpoints have all messages, while the dead one is still being tried with the first one.
    let path = format!("webhooks/{}/deliveries?state=pending", dead["id"].as_str().unwrap());
    let pending = service.get(&path).await.expect(200).json()["deliveries"].as_array().unwrap().clone();
    assert_eq!(pending.len(), messages, "{pending:?}");
    let waiting = pending.iter().rev().skip(1).all(|delivery| delivery["attempts"] == 0);
    assert!(receiver.count("/dead") > 0 && waiting, "{pending:?}");
    // A delivery that waited for the dead endpoint would take 15 s.
    assert!(of(&beside, 99) < Duration::from_secs(15), "{:?}", of(&beside, 99));
}
