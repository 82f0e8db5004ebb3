//! G. A reconnect storm: 9,000 streams reconnect at once after missing ten messages on each ride.
//!
//! Each resumes after its last id. The results are the times until all streams have begun and until all have read the missed
//! messages, and the number of statements that Postgres has executed for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::{Client, find};
use crate::comparison::{Comparison, PerServer};
use crate::process::Cpu;
use crate::server::{Server, ServerKind};
use crate::statements::Statements;
use crate::streams::Streams;
use crate::table::Table;
use crate::testbed::{Ride, Testbed, participants};
use crate::{Parameters, print};

/// Mercure in memory has no history, and Centrifugo's SSE ignores the last id.
const PEERS: [ServerKind; 2] = [ServerKind::Nchan, ServerKind::Express];

/// The number of messages that each stream has missed.
const MISSED: u64 = 10;

/// The number of senders.
const SENDERS: usize = 64;

/// The timeout of a storm.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Few rounds, because the preparation of a round takes most of its time.
const ROUNDS: usize = 3;

/// The result of a storm.
#[derive(Debug, Clone)]
struct StormResult {
    /// Seconds until all streams have begun, and until all have read the missed messages.
    begun: f64,
    caught_up: f64,
    streams: f64,
    /// The statements of the database, if it counts them and the server uses it.
    statements: Statements,
    cpu: Cpu,
}

pub(crate) async fn run(parameters: &Parameters, _: &Testbed) -> anyhow::Result<Vec<Table>> {
    // Uses its own Postgres, which counts statements.
    let testbed = Testbed::start_with_statement_counts().await?;
    let measured = run_rounds(parameters, &testbed).await;
    testbed.stop().await?;
    let rounds = measured?;
    let title = format!("{} streams reconnect at once, ten messages behind", parameters.storm);
    let mut storm = Comparison::new(&title, "reconnect storm", &rounds, &PEERS);
    let (seconds, whole) = (|seconds: f64| format!("{seconds:.2} s"), |figure: f64| format!("{figure:.0}"));
    storm.row("until all have begun", |one| one.begun, seconds, "");
    storm.row("until all have caught up", |one| one.caught_up, seconds, "");
    storm.row("connects/s", |one| one.streams / one.begun, whole, "≥ 1 × nchan");
    storm.row("statements of Postgres", |one| one.statements.total(), whole, "");
    let each = |one: &StormResult| one.statements.total() / one.streams * 50.0;
    storm.row("statements for 50 streams", each, |each| format!("{each:.2}"), "≤ 1");
    let busy = storm.cpu_table("Reconnect storm: CPU usage until all have caught up", |one| one.cpu);
    let mut tables = vec![storm.table, busy];
    if let Some(last) = rounds.last().filter(|last| last.ours.statements.total().is_finite()) {
        tables.push(last.ours.statements.table("Reconnect storm: statements of Ridewire, most frequent first"));
    }
    Ok(tables)
}

async fn run_rounds(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<PerServer<StormResult>>> {
    let mut servers = Vec::new();
    for kind in std::iter::once(ServerKind::Ridewire).chain(PEERS) {
        if let Some(server) = testbed.serve(kind, "storm").await? {
            let rides = testbed.rides(&server, "storm", parameters.storm / 2).await?;
            servers.push((server, rides));
        }
    }
    let (mut numbers, mut rounds) = (0, Vec::new());
    for number in 1..=parameters.rounds.min(ROUNDS) {
        let mut round = Vec::new();
        // The preparation of Express takes long, so it has one round.
        let taking_part = servers.iter().filter(|(server, _)| number == 1 || server.kind != ServerKind::Express);
        for (server, rides) in taking_part {
            let name = server.kind.name();
            let one = measure(testbed, server, rides, &mut numbers).await.context(name)?;
            print(&format!(
                "storm {number}: {name}: {:.0} begun after {:.2} s, caught up after {:.2} s, {:.0} statements",
                one.streams,
                one.begun,
                one.caught_up,
                one.statements.total()
            ));
            round.push((server.kind, one));
        }
        rounds.push(PerServer::of(round)?);
    }
    for (server, _) in servers {
        server.stop().await?;
    }
    Ok(rounds)
}

/// The number of frames read, and a notification for the last one.
#[derive(Debug, Default)]
struct FrameCounter {
    frames: AtomicU64,
    all_read: Notify,
}

impl FrameCounter {
    fn count_frame(&self, target: u64) {
        if self.frames.fetch_add(1, Ordering::Relaxed) + 1 == target {
            self.all_read.notify_one();
        }
    }

    async fn wait_for_all(&self, target: u64) -> anyhow::Result<()> {
        let waited = timeout(TIMEOUT, self.all_read.notified()).await;
        let frames_read = self.frames.load(Ordering::Relaxed);
        ensure!(waited.is_ok() && frames_read == target, "{frames_read} of {target} frames were read");
        Ok(())
    }
}

async fn measure(testbed: &Testbed, server: &Server, rides: &[Ride], numbers: &mut u64) -> anyhow::Result<StormResult> {
    let participants: Vec<(&str, &str)> = participants(rides).collect();
    let streams = participants.len() as u64;

    // Each stream reads one message and disconnects with its id.
    let ids: Arc<Vec<Mutex<String>>> = Arc::new(participants.iter().map(|_| Mutex::default()).collect());
    let frames_read = Arc::new(FrameCounter::default());
    let (last, counter) = (Arc::clone(&ids), Arc::clone(&frames_read));
    let before = Streams::open(server, participants.iter().copied(), move |stream, frame| {
        if let (Some(slot), Some(id)) = (last.get(stream), id_of(frame)) {
            id.clone_into(&mut slot.lock().unwrap_or_else(PoisonError::into_inner));
        }
        counter.count_frame(streams);
    });
    let before = before.await?;
    publish(server, rides, 1, numbers).await?;
    frames_read.wait_for_all(streams).await.context("before the reconnect storm")?;
    drop(before);
    publish(server, rides, MISSED, numbers).await?;

    let requests = participants.iter().zip(&*ids).map(|((ride, token), id)| {
        server.kind.stream_request(ride, token, Some(&id.lock().unwrap_or_else(PoisonError::into_inner)))
    });
    let requests: Vec<Vec<u8>> = requests.collect();
    let (missed, frames_read) = (streams * MISSED, Arc::new(FrameCounter::default()));
    let counter = Arc::clone(&frames_read);
    let statements = testbed.statements().await?;
    let postgres = testbed.postgres_pid()?;
    let (from, busy) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    let reconnected =
        Streams::open_requests(server, requests, participants.len(), move |_, _| counter.count_frame(missed));
    let reconnected = timeout(TIMEOUT, reconnected).await.context("not all have begun")??;
    let begun = from.elapsed().as_secs_f64();
    frames_read.wait_for_all(missed).await?;
    let caught_up = from.elapsed().as_secs_f64();
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(busy, caught_up);
    let statements = match server.kind {
        ServerKind::Nchan => Statements::default(),
        _ => testbed.statements().await?.since(&statements),
    };
    drop(reconnected);
    Ok(StormResult { begun, caught_up, streams: streams as f64, statements, cpu })
}

fn id_of(frame: &[u8]) -> Option<&str> {
    let rest = frame.get(find(frame, b"id:")? + 3..)?;
    let line = rest.split(|byte| *byte == b'\n').next()?;
    Some(std::str::from_utf8(line).ok()?.trim())
}

/// Sends `each` messages to each ride.
async fn publish(server: &Server, rides: &[Ride], each: u64, numbers: &mut u64) -> anyhow::Result<()> {
    let mut senders = JoinSet::new();
    let next = Arc::new(AtomicU64::new(*numbers));
    for sender in 0..SENDERS {
        let mut client = Client::connect(server.address).await?;
        let (kind, next) = (server.kind, Arc::clone(&next));
        let message_requests =
            rides.iter().skip(sender).step_by(SENDERS).map(|ride| kind.message_request(&ride.id, &ride.rider));
        let mut message_requests: Vec<_> = message_requests.collect();
        senders.spawn(async move {
            for _ in 0..each {
                for message_request in &mut message_requests {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let status = client.exchange(message_request.with_number(number)).await?;
                    if !kind.accepts(status) {
                        bail!("a message got {status}");
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
