//! The feed under load while its relay is killed: the relaying replica, or the connection that holds the relay's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::fixtures::{create_rides, replicas, token};
use crate::subscribers::Replicas;
use crate::support::{Database, Role, Server, eventually_within};
use crate::{limit_heavy_tests, size};

const RIDES: usize = 96;
const SENDERS: usize = 32;

/// How long the run may make no progress.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<Event<'a>>,
    cursor: String,
    gap: Option<Value>,
}

#[derive(Deserialize)]
struct Event<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    topic: String,
    seq: i64,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The state of a log: its last seq, and a hash of its events.
#[derive(Debug, Default, Clone)]
struct Log {
    last: i64,
    hash: DefaultHasher,
}

impl Log {
    fn append(&mut self, seq: i64, kind: &str, data: &str) {
        self.last = seq;
        (seq, kind, data).hash(&mut self.hash);
    }
}

/// The feed as a reader received it, page by page from either replica.
#[derive(Debug, Default)]
struct Seen {
    cursor: String,
    events: usize,
    logs: BTreeMap<String, Log>,
}

impl Seen {
    /// Appends a page. Its feed positions must continue the last page, and its events must continue their logs.
    fn take(&mut self, page: &Page<'_>) {
        assert!(page.gap.is_none(), "the feed has a hole after {}", self.cursor);
        for event in &page.events {
            self.events += 1;
            assert_eq!(event.id, self.events.to_string(), "contiguous positions");
            let log = self.logs.entry(event.data.topic.clone()).or_default();
            assert_eq!(event.data.seq, log.last + 1, "the next event of {} at {}", event.data.topic, event.id);
            log.append(event.data.seq, &event.kind, event.data.data.get());
        }
        self.cursor.clone_from(&page.cursor);
    }
}

/// Reads the feed from its beginning until `is_enough`, and then to its end.
async fn read(replicas: Arc<Replicas>, is_enough: Arc<AtomicBool>) -> Seen {
    let (http, token) = (reqwest::Client::new(), token("platform", Role::Service));
    let mut seen = Seen { cursor: "0".to_owned(), ..Seen::default() };
    for number in 0.. {
        let is_last = is_enough.load(Ordering::Relaxed);
        let wait = if is_last { 0 } else { 1 };
        let url = format!("http://{}/api/v1/feed/poll?after={}&wait={wait}", replicas.get(number), seen.cursor);
        let polled = async { http.get(url).bearer_auth(&token).send().await?.error_for_status()?.text().await };
        // A replica that is killed returns no response or a truncated one.
        let Ok(text) = polled.await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let page: Page<'_> = serde_json::from_str(&text).unwrap();
        seen.take(&page);
        if is_last && page.events.is_empty() {
            break;
        }
    }
    seen
}

/// Sends one sender's share of the messages on its own rides. Each is retried until it is acknowledged.
async fn send(replicas: Arc<Replicas>, number: usize, messages: usize, sent: Arc<AtomicUsize>) {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    let rides: Vec<_> = (number..RIDES).step_by(SENDERS).collect();
    let tokens: Vec<_> = rides.iter().map(|ride| token(&format!("rider_of_ride_{ride}"), Role::Rider)).collect();
    for n in 0..messages {
        let which = n % rides.len();
        let (ride, name) = (rides[which], format!("{number}-{n}"));
        let body = json!({ "rideId": format!("ride_{ride}"), "content": name, "clientMessageId": name }).to_string();
        for attempt in 0.. {
            let url = format!("http://{}/api/v1/messages", replicas.get(n + attempt));
            let response = http.post(url).bearer_auth(&tokens[which]).body(body.clone()).send().await;
            match response.map(|response| response.status().as_u16()) {
                Ok(200 | 201) => break,
                Ok(429 | 503) | Err(_) => sleep(Duration::from_millis(fastrand::u64(5..50))).await,
                Ok(status) => panic!("{name} got {status}"),
            }
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Terminates the connections whose last statement assigned feed positions.
async fn kill_relaying_backends(client: &Client) -> usize {
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and query like '-- Assigns feed positions%'";
    client.query(kill, &[]).await.unwrap().len()
}

/// Reads the logs from the database.
async fn logs(client: &Client) -> BTreeMap<String, Log> {
    let mut logs: BTreeMap<String, Log> = BTreeMap::new();
    let all = "select topic, seq, type, data from events order by topic, seq";
    let mut rows = pin!(client.query_raw(all, std::iter::empty::<i64>()).await.unwrap());
    while let Some(row) = rows.next().await {
        let row = row.unwrap();
        let log = logs.entry(row.get("topic")).or_default();
        assert_eq!(row.get::<_, i64>("seq"), log.last + 1);
        log.append(row.get("seq"), row.get("type"), row.get("data"));
    }
    logs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_is_contiguous_and_equals_the_logs_while_its_relay_is_killed() {
    let _permit = limit_heavy_tests().await;
    let messages = size(4_000, 1_000_000);
    let kills = size(5, 300);
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PUSH_AFTER", "0s"), ("RIDEWIRE_FALLBACK_POLL", "500ms")];
    let mut servers = [Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await];
    let addresses = Arc::new(replicas(&servers[0], &servers[1]));
    let rides: Vec<_> = (0..RIDES).map(|ride| format!("ride_{ride}")).collect();
    create_rides(&addresses, &rides).await;
    let client = database.client().await;

    let (sent, is_enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let reading = tokio::spawn(read(Arc::clone(&addresses), Arc::clone(&is_enough)));
    let mut sending = JoinSet::new();
    for number in 0..SENDERS {
        sending.spawn(send(Arc::clone(&addresses), number, messages / SENDERS, Arc::clone(&sent)));
    }
    // A fault is injected after every so many messages: the relay's connection is terminated, or one of the replicas is killed.
    let (mut connections, mut processes) = (0, 0);
    for kill in 1..=kills {
        let due = messages / SENDERS * SENDERS / (kills + 1) * kill;
        eventually_within(TIMEOUT, Duration::from_millis(2), "messages are sent", async || {
            (sent.load(Ordering::Relaxed) >= due).then_some(())
        })
        .await;
        if kill % 2 == 0 {
            let number = processes % 2;
            // Its replacement starts first, because the other replica may be the next one to be killed.
            let next = Server::start_with(&database, &settings).await;
            let address = next.address().parse().unwrap();
            let old = std::mem::replace(&mut servers[number], next);
            old.kill().await;
            addresses.replace(number, address);
            processes += 1;
        } else {
            // Between two steps, the relay has no such connection.
            connections += eventually_within(TIMEOUT, Duration::from_millis(1), "a relay's connection", async || {
                Some(kill_relaying_backends(&client).await).filter(|killed| *killed > 0)
            })
            .await;
        }
    }
    while let Some(ended) = sending.join_next().await {
        ended.unwrap();
    }
    eventually_within(TIMEOUT, Duration::from_millis(50), "everything has a position", async || {
        let waiting = client.query_one("select count(*) from feed_batches", &[]).await.unwrap();
        (waiting.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    is_enough.store(true, Ordering::Relaxed);
    let seen = reading.await.unwrap();

    let logs = logs(&client).await;
    let events: i64 = logs.values().map(|log| log.last).sum();
    eprintln!("{events} events read in order; {connections} connections and {processes} processes of relays killed");
    assert!(events > i64::try_from(messages / SENDERS * SENDERS).unwrap() && connections > 0 && processes > 0);
    assert_eq!(i64::try_from(seen.events).unwrap(), events);
    let topics = |logs: &BTreeMap<String, Log>| logs.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(topics(&seen.logs), topics(&logs));
    for (topic, log) in &logs {
        let read = &seen.logs[topic];
        assert_eq!((read.last, read.hash.finish()), (log.last, log.hash.finish()), "the log of {topic}");
    }
    // The positions as stored.
    let stored = "select count(*), min(position), max(position), (select last_seq from topics where name = 'feed')
                  from feed_entries(0, 1000000000)";
    let stored = client.query_one(stored, &[]).await.unwrap();
    let [count, first, last, head] = [0_usize, 1, 2, 3].map(|column| stored.get::<_, i64>(column));
    assert_eq!((count, first, last, head), (events, 1, events, events));
}
