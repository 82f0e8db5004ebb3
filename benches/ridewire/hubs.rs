//! H. Ridewire beside the hubs that keep messages in memory, and their durable variants: new connections, sends and latency.
//!
//! Only Ridewire and the durable variants have stored a message when they acknowledge it.

use anyhow::Context;
use tokio::time::Instant;

use crate::comparison::{Comparison, PerServer};
use crate::open_loop::{Latency, SENDERS};
use crate::process::Cpu;
use crate::sends::{self, SendResult};
use crate::server::{Server, ServerKind};
use crate::streams::{Streams, requests};
use crate::table::Table;
use crate::testbed::{Ride, Testbed, participants};
use crate::{Parameters, latency, print};

const PEERS: [ServerKind; 5] = [
    ServerKind::Nchan,
    ServerKind::Mercure,
    ServerKind::MercureBolt,
    ServerKind::Centrifugo,
    ServerKind::CentrifugoPostgres,
];

/// The rides with senders. Each has two streams.
const RIDES: usize = 1_000;

/// The rides of the latency's measurement. Each has one stream.
const LATENCY_RIDES: usize = 100;

/// Few rounds, because each starts all servers.
const ROUNDS: usize = 3;

/// The results of one server in one round.
#[derive(Debug)]
struct HubResult {
    /// New streams a second, all opened at once.
    connects: f64,
    sends: SendResult,
    /// At 1,000 messages a second, or `None` if not all messages arrived in time.
    latency: Option<Latency>,
    /// The CPU usage meanwhile.
    cpu: Cpu,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let mut rounds = Vec::new();
    let mut numbers = 0;
    for number in 1..=parameters.rounds.min(ROUNDS) {
        let mut round = Vec::new();
        for kind in std::iter::once(ServerKind::Ridewire).chain(PEERS) {
            // A new server for each round, because messages in memory slow some of them down.
            let Some(server) = testbed.serve(kind, "hubs").await? else { continue };
            let rides = testbed.rides(&server, &format!("hubs_{number}"), parameters.storm / 2).await?;
            let result = measure(parameters, testbed, &server, &rides, &mut numbers).await.context(kind.name())?;
            let p50 = result.latency.map_or(f64::NAN, |latency| latency.p50);
            print(&format!(
                "hubs {number}: {}: {:.0} new streams/s, {:.0} sends/s, p50 at 1,000/s {p50:.2} ms",
                kind.name(),
                result.connects,
                result.sends.per_second
            ));
            round.push((kind, result));
            server.stop().await?;
        }
        rounds.push(PerServer::of(round)?);
    }
    Ok(tables(parameters, &rounds))
}

fn tables(parameters: &Parameters, rounds: &[PerServer<HubResult>]) -> Vec<Table> {
    let mut table = Comparison::new("Ridewire beside hubs", "1,000 rides, two streams each", rounds, &PEERS);
    let whole = |figure: f64| format!("{figure:.0}");
    let millis = |millis: f64| format!("{millis:.2} ms");
    let p50 = |one: &HubResult| one.latency.map_or(f64::NAN, |latency| latency.p50);
    let p99 = |one: &HubResult| one.latency.map_or(f64::NAN, |latency| latency.p99_of_a_second);
    let micros = |one: &HubResult| (one.cpu.server + one.cpu.postgres) * 1e3;
    let what = format!("new streams/s, {} at once", parameters.storm);
    table.row(&what, |one| one.connects, whole, "≥ 1 × nchan");
    table.row("sends/s, 64 clients", |one| one.sends.per_second, whole, "≥ 1 × Mercure, Centrifugo");
    table.row("POST to frame at 1,000/s, p50", p50, millis, "≤ 1.5 × Mercure");
    table.row("the same, median p99 of a second", p99, millis, "");
    table.row("CPU of a send at 1,000/s, with the database", micros, |micros| format!("{micros:.0} µs"), "");
    vec![table.table]
}

async fn measure(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    rides: &[Ride],
    numbers: &mut u64,
) -> anyhow::Result<HubResult> {
    let connects = connect(server, rides).await?;
    let sending = rides.get(..RIDES.min(rides.len())).unwrap_or_default();
    let streams = sends::open(server, sending).await?;
    let sends = sends::send(parameters, testbed, server, sending, numbers, Some(streams)).await?;
    let (latency, cpu) = measure_latency(parameters, testbed, server, sending, numbers).await?;
    Ok(HubResult { connects, sends, latency, cpu })
}

/// Opens two streams for each ride, all at once. Returns how many begin in a second.
async fn connect(server: &Server, rides: &[Ride]) -> anyhow::Result<f64> {
    let requests: Vec<_> = requests(server.kind, participants(rides)).collect();
    let (count, from) = (requests.len(), Instant::now());
    let streams = Streams::open_requests(server, requests, count, |_, _| {}).await?;
    let seconds = from.elapsed().as_secs_f64();
    drop(streams);
    Ok(count as f64 / seconds)
}

async fn measure_latency(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    rides: &[Ride],
    numbers: &mut u64,
) -> anyhow::Result<(Option<Latency>, Cpu)> {
    let rides = rides.get(..LATENCY_RIDES.min(rides.len())).unwrap_or_default();
    let (messages, base) = (parameters.messages()?, *numbers);
    *numbers += messages;
    let (_streams, senders, recorder) = latency::prepare(parameters, server, rides, SENDERS, base).await?;
    let postgres = testbed.postgres_pid()?;
    let (from, before) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    senders.send(&recorder, messages).await?;
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(before, from.elapsed().as_secs_f64());
    Ok((recorder.result(messages, 1).await.ok(), cpu))
}
