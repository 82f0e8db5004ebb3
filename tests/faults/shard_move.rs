//! Moving a shard to another Postgres, with the scripts of `docs/how-to/shards.md`, under load.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use ridewire::domain::{RideId, ShardMap};
use ridewire::store::Shards;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::limit_heavy_tests;
use crate::support::{Cluster, Database, Server, User, eventually, postgres_programs};

const SCHEMA: &str = "public_shard_1";

/// The base URLs of the servers.
type Addresses = Arc<RwLock<[String; 2]>>;

/// A client that uses the servers in turn.
#[derive(Clone)]
struct Client {
    user: User,
    addresses: Addresses,
    attempts: usize,
}

impl Client {
    /// Sends a request to the next server. Returns `None` if the connection fails.
    async fn request(&mut self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        self.attempts += 1;
        self.user.base = self.addresses.read().unwrap()[self.attempts % 2].clone();
        let request = self.user.request(method, path).timeout(Duration::from_secs(60));
        let request = if let Some(body) = body { request.json(body) } else { request };
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().await.ok()?))
    }
}

/// Sends numbered messages until `is_enough`, each until it is acknowledged. Returns their number, and the longest time between two.
async fn send(mut client: Client, ride: String, is_enough: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut sent, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    while !is_enough.load(Ordering::Relaxed) {
        let body = json!({ "rideId": ride, "content": sent.to_string(), "clientMessageId": sent.to_string() });
        match client.request(reqwest::Method::POST, "messages", Some(&body)).await {
            Some((200 | 201, _)) => {
                sent += 1;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Some((503, _)) | None => sleep(Duration::from_millis(20)).await,
            Some(other) => panic!("{ride}: {other:?}"),
        }
    }
    (sent, longest)
}

/// Polls a ride from its beginning until it has received the message `end`. Returns the contents of all messages.
async fn receive(mut client: Client, ride: String) -> Vec<String> {
    let (mut contents, mut after) = (Vec::new(), "0".to_owned());
    while contents.last().is_none_or(|last| last != "end") {
        let path = format!("messages/rides/{ride}/poll?after={after}&wait=1&types=message:new");
        match client.request(reqwest::Method::GET, &path, None).await {
            Some((200, page)) => {
                assert_eq!((&page["gap"], &page["resumed"]), (&Value::Null, &Value::Bool(true)), "{ride}: {page}");
                let events = page["events"].as_array().unwrap().iter();
                contents.extend(events.map(|event| event["data"]["content"].as_str().unwrap().to_owned()));
                after = page["cursor"].as_str().unwrap().to_owned();
            }
            Some((503, _)) | None => sleep(Duration::from_millis(20)).await,
            Some(other) => panic!("{ride}: {other:?}"),
        }
    }
    contents
}

struct Move {
    programs: PathBuf,
    old: Database,
    new: Database,
}

impl Move {
    async fn run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(self.programs.join(program)).args(arguments).output().await.unwrap();
        let text = if output.status.success() { &output.stdout } else { &output.stderr };
        (output.status.success(), String::from_utf8_lossy(text).into_owned())
    }

    async fn script(&self, database: &Database, name: &str) -> (bool, String) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/shards").join(name);
        let schema = format!("schema={SCHEMA}");
        self.run("psql", &[&database.url, "-At", "-v", &schema, "-f", path.to_str().unwrap()]).await
    }

    async fn sql(&self, database: &Database, text: &str) -> String {
        let (is_done, output) = self.run("psql", &[&database.url, "-At", "-v", "ON_ERROR_STOP=1", "-c", text]).await;
        assert!(is_done, "{text}: {output}");
        output.trim().to_owned()
    }

    /// Copies the shard, and keeps the copy current.
    async fn replicate(&self) {
        let (is_done, schema) = self.run("pg_dump", &["--schema-only", "--schema", SCHEMA, "-d", &self.old.url]).await;
        assert!(is_done, "{schema}");
        let file = self.new.directory().join("schema.sql");
        std::fs::write(&file, schema).unwrap();
        let load = ["-d", &self.new.url, "-q", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap()];
        let (is_done, output) = self.run("psql", &load).await;
        assert!(is_done, "{output}");
        self.sql(&self.old, &format!("create publication ridewire_move for tables in schema {SCHEMA}")).await;
        let subscribe =
            format!("create subscription ridewire_move connection '{}' publication ridewire_move", self.old.url);
        self.sql(&self.new, &subscribe).await;
        eventually("all tables are copied", async || {
            let missing = "select count(*) from pg_subscription_rel where srsubstate <> 'r'";
            (self.sql(&self.new, missing).await == "0").then_some(())
        })
        .await;
    }

    /// Stops the writes to the old copy, completes the new one, and makes the old one unavailable.
    async fn switch(&self) {
        eventually("the shard rejects writes", async || {
            self.script(&self.old, "reject_writes.sql").await.0.then_some(())
        })
        .await;
        let end = self.sql(&self.old, "select pg_current_wal_lsn()").await;
        eventually("the copy is complete", async || {
            let confirmed = format!(
                "select confirmed_flush_lsn >= '{end}' from pg_replication_slots where slot_name = 'ridewire_move'"
            );
            (self.sql(&self.old, &confirmed).await == "t").then_some(())
        })
        .await;
        self.sql(&self.new, "drop subscription ridewire_move").await;
        let (is_done, sequences) = self.script(&self.old, "sequences.sql").await;
        assert!(is_done && sequences.lines().count() >= 2, "{sequences}");
        self.sql(&self.new, &sequences).await;
        let (is_done, output) = self.script(&self.old, "retire.sql").await;
        assert!(is_done, "{output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_moves_to_another_postgres_under_load() {
    let _permit = limit_heavy_tests().await;
    let (mut first, second) = (Cluster::dedicated().await, Cluster::dedicated().await);
    let (mut old, new) = (first.database(), second.database());
    old.client().await.batch_execute("alter system set wal_level = logical").await.unwrap();
    first.restart_immediate().await;
    let (two, address) = (ShardMap::new(2).unwrap(), old.url.parse().unwrap());
    ridewire::store::migrate(&address).await.unwrap();
    Shards::create(two, &address, |_| address.clone()).await.unwrap();
    old.has_feed = false;

    let servers = [Server::start(&old).await, Server::start(&old).await];
    let addresses = Arc::new(RwLock::new(servers.each_ref().map(|server| server.base.clone())));
    let rides: Vec<_> = (0..8).map(|n| format!("ride_{n}")).collect();
    let is_moved = |ride: &str| two.of_ride(&RideId::parse(ride).unwrap()).number() == 1;
    assert!((2..7).contains(&rides.iter().filter(|ride| is_moved(ride)).count()), "rides of both shards");
    let is_enough = Arc::new(AtomicBool::new(false));
    let client = |user: User| Client { user, addresses: Arc::clone(&addresses), attempts: 0 };
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for (n, ride) in rides.iter().enumerate() {
        let (rider, driver) = (format!("rider_{n}"), format!("driver_{n}"));
        servers[0].service().put_ride(ride, &rider, Some(&driver)).await.expect(201);
        let rider = client(servers[0].rider(&rider));
        senders.push(tokio::spawn(send(rider, ride.clone(), Arc::clone(&is_enough))));
        readers.push(tokio::spawn(receive(client(servers[0].driver(&driver)), ride.clone())));
    }
    let until_sent = async |ride: &str, server: &Server, more: i64| {
        let head = async || server.service().poll(ride, "").await["cursor"].as_str().unwrap().parse::<i64>().unwrap();
        let before = head().await;
        eventually("messages are sent", async || (head().await > before + more).then_some(())).await;
    };
    let moved = rides.iter().find(|ride| is_moved(ride)).unwrap();
    until_sent(moved, &servers[0], 20).await;

    let programs = postgres_programs(&old).await;
    let shard_move = Move { programs, old, new };
    shard_move.replicate().await;
    until_sent(moved, &servers[0], 20).await;
    shard_move.switch().await;
    // The other shard goes on.
    let other = rides.iter().find(|ride| !is_moved(ride)).unwrap();
    until_sent(other, &servers[0], 20).await;
    let last_seq = format!("select last_seq from {SCHEMA}_moved.topics where name = 'ride/{moved}'");
    let frozen = shard_move.sql(&shard_move.old, &last_seq).await;

    let moved_to = format!("1={}", shard_move.new.url);
    let mut restarted = Vec::new();
    for (index, server) in servers.into_iter().enumerate() {
        let settings = [("RIDEWIRE_SHARD_DATABASES", &*moved_to)];
        let next = Server::start_with(&shard_move.old, &settings).await;
        addresses.write().unwrap()[index].clone_from(&next.base);
        restarted.push(next);
        assert!(server.terminate().await.success());
    }
    until_sent(moved, &restarted[0], 50).await;
    is_enough.store(true, Ordering::Relaxed);
    let mut pauses = [Duration::ZERO; 2];
    for ((n, ride), (sender, reader)) in rides.iter().enumerate().zip(senders.into_iter().zip(readers)) {
        let (sent, longest) = sender.await.unwrap();
        let pause = &mut pauses[usize::from(is_moved(ride))];
        *pause = longest.max(*pause);
        restarted[0].rider(&format!("rider_{n}")).send(ride, "end").await;
        let expected: Vec<_> = (0..sent).map(|number| number.to_string()).chain(["end".to_owned()]).collect();
        assert_eq!(reader.await.unwrap(), expected, "{ride}");
    }
    assert_eq!(shard_move.sql(&shard_move.old, &last_seq).await, frozen, "nothing is written to the old copy");
    eprintln!("longest pause of a sender: {:.1?} on the moved shard, {:.1?} on the other one", pauses[1], pauses[0]);
}
