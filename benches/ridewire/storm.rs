//! G. A storm: 9,000 streams, whose clients were away while ten messages came on each ride, are back at once.
//!
//! Each asks for what comes after the last id it saw. Measured is until all of them have begun, until all have read
//! what they missed, and how many statements Postgres was sent for it, as it counts them itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::{Client, find};
use crate::compared::{Compared, Comparison};
use crate::platform::{Platform, Ride};
use crate::process::Cpu;
use crate::server::{Kind, Server};
use crate::statements::Statements;
use crate::streams::Streams;
use crate::table::Table;
use crate::{Plan, say};

/// Messages that each stream has missed.
const MISSED: u64 = 10;

/// Who sends them.
const SENDERS: usize = 64;

/// A storm that takes longer has no end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rounds are long, since nearly all of one is its preparation.
const ROUNDS: usize = 3;

/// What a storm took.
#[derive(Debug, Clone)]
struct Weathered {
    /// Seconds until all had begun, and until all had what they missed.
    begun: f64,
    caught_up: f64,
    streams: f64,
    /// Of the database, where it counts them and is asked at all.
    statements: Statements,
    cpu: Cpu,
}

pub(crate) async fn run(plan: &Plan, _platform: &Platform) -> anyhow::Result<Vec<Table>> {
    // With a Postgres of its own, which counts statements.
    let platform = Platform::counting().await?;
    let measured = weather(plan, &platform).await;
    platform.stop().await?;
    let rounds = measured?;
    let title = format!("{} streams come back at once, ten messages behind", plan.storm);
    let mut storm = Comparison::new(&title, "a storm", &rounds, &Kind::PEERS);
    let (seconds, whole) = (|seconds: f64| format!("{seconds:.2} s"), |figure: f64| format!("{figure:.0}"));
    storm.row("until all have begun", |one| one.begun, seconds, "");
    storm.row("until all have caught up", |one| one.caught_up, seconds, "");
    storm.row("connects/s", |one| one.streams / one.begun, whole, "≥ 1 × nchan");
    storm.row("statements of Postgres", |one| one.statements.total(), whole, "");
    let each = |one: &Weathered| one.statements.total() / one.streams * 50.0;
    storm.row("statements for 50 streams", each, |each| format!("{each:.2}"), "≤ 1");
    let busy = storm.busy("The storm: who is busy until all have caught up", |one| one.cpu);
    let mut tables = vec![storm.table, busy];
    if let Some(last) = rounds.last().filter(|last| last.ours.statements.total().is_finite()) {
        tables.push(last.ours.statements.table("The storm: our statements, most frequent first"));
    }
    Ok(tables)
}

async fn weather(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Compared<Weathered>>> {
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        if let Some(server) = platform.serve(kind, "storm").await? {
            let rides = platform.rides(&server, "storm", plan.storm / 2).await?;
            servers.push((server, rides));
        }
    }
    let (mut numbers, mut rounds) = (0, Vec::new());
    for number in 1..=plan.rounds.min(ROUNDS) {
        let mut round = Vec::new();
        // Express takes so long to prepare that it has one round.
        let taking_part = servers.iter().filter(|(server, _)| number == 1 || server.kind != Kind::Express);
        for (server, rides) in taking_part {
            let name = server.kind.name();
            let one = measure(platform, server, rides, &mut numbers).await.context(name)?;
            say(&format!(
                "storm {number}: {name}: {:.0} begun after {:.2} s, caught up after {:.2} s, {:.0} statements",
                one.streams,
                one.begun,
                one.caught_up,
                one.statements.total()
            ));
            round.push((server.kind, one));
        }
        rounds.push(Compared::of(round)?);
    }
    for (server, _) in servers {
        server.stop().await?;
    }
    Ok(rounds)
}

/// How many frames have been read, and who waits for the last.
#[derive(Debug, Default)]
struct Seen {
    frames: AtomicU64,
    all: Notify,
}

impl Seen {
    fn one_more(&self, wanted: u64) {
        if self.frames.fetch_add(1, Ordering::Relaxed) + 1 == wanted {
            self.all.notify_one();
        }
    }

    async fn all(&self, wanted: u64) -> anyhow::Result<()> {
        let waited = timeout(PATIENCE, self.all.notified()).await;
        let seen = self.frames.load(Ordering::Relaxed);
        ensure!(waited.is_ok() && seen == wanted, "{seen} of {wanted} frames were read");
        Ok(())
    }
}

async fn measure(platform: &Platform, server: &Server, rides: &[Ride], numbers: &mut u64) -> anyhow::Result<Weathered> {
    let people: Vec<(&str, &str)> =
        rides.iter().flat_map(|ride| [(&*ride.id, &*ride.rider), (&*ride.id, &*ride.driver)]).collect();
    let streams = people.len() as u64;

    // Everybody sees one message, and goes with its id.
    let ids: Arc<Vec<Mutex<String>>> = Arc::new(people.iter().map(|_| Mutex::default()).collect());
    let seen = Arc::new(Seen::default());
    let (last, counter) = (Arc::clone(&ids), Arc::clone(&seen));
    let before = Streams::open(server, people.iter().copied(), move |stream, frame| {
        if let (Some(place), Some(id)) = (last.get(stream), id_of(frame)) {
            id.clone_into(&mut place.lock().unwrap_or_else(PoisonError::into_inner));
        }
        counter.one_more(streams);
    });
    let before = before.await?;
    publish(server, rides, 1, numbers).await?;
    seen.all(streams).await.context("before the storm")?;
    drop(before);
    publish(server, rides, MISSED, numbers).await?;

    let requests = people.iter().zip(&*ids).map(|((ride, token), id)| {
        server.kind.follow(ride, token, Some(&id.lock().unwrap_or_else(PoisonError::into_inner)))
    });
    let requests: Vec<Vec<u8>> = requests.collect();
    let (missed, seen) = (streams * MISSED, Arc::new(Seen::default()));
    let counter = Arc::clone(&seen);
    let statements = platform.statements().await?;
    let postgres = platform.postgres_pid()?;
    let (from, busy) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    let back = Streams::ask(server, requests, people.len(), move |_, _| counter.one_more(missed));
    let back = timeout(PATIENCE, back).await.context("not all have begun")??;
    let begun = from.elapsed().as_secs_f64();
    seen.all(missed).await?;
    let caught_up = from.elapsed().as_secs_f64();
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(busy, caught_up);
    let statements = match server.kind {
        Kind::Nchan => Statements::default(),
        _ => platform.statements().await?.since(&statements),
    };
    drop(back);
    Ok(Weathered { begun, caught_up, streams: streams as f64, statements, cpu })
}

fn id_of(frame: &[u8]) -> Option<&str> {
    let rest = frame.get(find(frame, b"id:")? + 3..)?;
    let line = rest.split(|byte| *byte == b'\n').next()?;
    Some(std::str::from_utf8(line).ok()?.trim())
}

/// So many messages to each ride.
async fn publish(server: &Server, rides: &[Ride], each: u64, numbers: &mut u64) -> anyhow::Result<()> {
    let mut senders = JoinSet::new();
    let next = Arc::new(AtomicU64::new(*numbers));
    for sender in 0..SENDERS {
        let mut client = Client::connect(server.address).await?;
        let (kind, next) = (server.kind, Arc::clone(&next));
        let posts = rides.iter().skip(sender).step_by(SENDERS).map(|ride| kind.post(&ride.id, &ride.rider));
        let mut posts: Vec<_> = posts.collect();
        senders.spawn(async move {
            for _ in 0..each {
                for post in &mut posts {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let status = client.exchange(post.numbered(number)).await?;
                    if !kind.takes(status) {
                        bail!("a message was answered {status}");
                    }
                }
            }
            Ok(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    *numbers = next.load(Ordering::Relaxed);
    Ok(())
}
