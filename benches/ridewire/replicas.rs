//! Several replicas on one Postgres: the throughput of 64 clients, and the cost of an idle replica.
//!
//! Each ride has streams on two replicas and senders on a third one, if there are that many. So each commit must reach the
//! other replicas. A run fails unless every message reaches both streams.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::closed_loop::ClosedLoopSenders;
use crate::polled_streams::{self, PolledStreams};
use crate::process;
use crate::server::Server;
use crate::stats::median;
use crate::streams::Streams;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print};

const MAX_REPLICAS: usize = 3;
const RIDES: usize = 1_000;

/// Rides with one stream each.
const OPEN_RIDES: usize = 10_000;

/// Open files of this process and of one server other than streams.
const RESERVED_FILES: usize = 500;

/// CPU seconds of each process so far, or cores used during a measurement.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuUsage {
    pub(crate) servers: Vec<f64>,
    pub(crate) postgres: f64,
    generator: f64,
}

#[derive(Debug, Clone)]
struct SendResult {
    per_second: f64,
    p50: f64,
    p99: f64,
    busy: CpuUsage,
}

/// The idle cost of a number of replicas: without streams, and with many.
#[derive(Debug)]
struct Idle {
    alone: CpuUsage,
    with_streams: CpuUsage,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let (open_rides, idle_span) = match parameters.quick {
        true => (200, Duration::from_secs(2)),
        false => (OPEN_RIDES.min(parameters.file_limit.saturating_sub(RESERVED_FILES)), Duration::from_secs(10)),
    };
    let setup = testbed.server("setup").await?;
    let rides = testbed.rides(&setup, "replicas", RIDES).await?;
    let with_streams = testbed.rides(&setup, "with_streams", open_rides).await?;
    setup.stop().await?;

    let mut rounds = Vec::new();
    let mut numbers = 0;
    for number in 1..=parameters.rounds.min(3) {
        let mut round = Vec::new();
        for count in 1..=MAX_REPLICAS {
            let servers = start(testbed, count).await?;
            round.push(send(parameters, testbed, &servers, &rides, &mut numbers).await.context("sends")?);
            stop(servers).await?;
        }
        let rates: Vec<String> = round.iter().map(|sent| format!("{:.0}", sent.per_second)).collect();
        print(&format!("replicas {number}: {} sends/s with 1, 2 and 3", rates.join(", ")));
        rounds.push(round);
    }
    let mut idle = Vec::new();
    for count in 1..=MAX_REPLICAS {
        let servers = start(testbed, count).await?;
        let alone = measure_cpu(testbed, &servers, idle_span).await?;
        let mut streams = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            let targets = with_streams.iter().skip(number).step_by(count).map(|ride| (&*ride.id, &*ride.driver));
            streams.push(Streams::open(server, targets, |_, _| {}).await?);
        }
        // The presence of the new readers is written and announced within a few fallback polls.
        sleep(idle_span / 2).await;
        let with_streams = measure_cpu(testbed, &servers, idle_span).await?;
        print(&format!(
            "replicas: {count} idle at {:.2} % of a core each, {:.2} % with {open_rides} streams in total",
            100.0 * mean(&alone.servers),
            100.0 * mean(&with_streams.servers)
        ));
        drop(streams);
        stop(servers).await?;
        idle.push(Idle { alone, with_streams });
    }
    Ok(vec![sends_table(&rounds), idle_table(&idle, open_rides)])
}

async fn start(testbed: &Testbed, count: usize) -> anyhow::Result<Vec<Server>> {
    let mut servers = Vec::new();
    for number in 1..=count {
        servers.push(testbed.server(&format!("replica-{number}")).await?);
    }
    Ok(servers)
}

pub(crate) async fn stop(servers: Vec<Server>) -> anyhow::Result<()> {
    for server in servers {
        server.stop().await?;
    }
    Ok(())
}

impl CpuUsage {
    pub(crate) fn now(testbed: &Testbed, servers: &[Server]) -> anyhow::Result<Self> {
        Ok(Self {
            servers: servers
                .iter()
                .map(|server| process::cpu_of_process(server.pid, false))
                .collect::<Result<_, _>>()?,
            postgres: process::cpu_of_process_tree(testbed.postgres_pid()?)?,
            generator: process::cpu_of_process(std::process::id(), true)?,
        })
    }

    pub(crate) fn since(&self, before: &Self, seconds: f64) -> Self {
        Self {
            servers: self.servers.iter().zip(&before.servers).map(|(now, then)| (now - then) / seconds).collect(),
            postgres: (self.postgres - before.postgres) / seconds,
            generator: (self.generator - before.generator) / seconds,
        }
    }
}

/// Measures the CPU usage during a time.
pub(crate) async fn measure_cpu(testbed: &Testbed, servers: &[Server], duration: Duration) -> anyhow::Result<CpuUsage> {
    let (from, before) = (Instant::now(), CpuUsage::now(testbed, servers)?);
    sleep(duration).await;
    Ok(CpuUsage::now(testbed, servers)?.since(&before, from.elapsed().as_secs_f64()))
}

async fn send(
    parameters: &Parameters,
    testbed: &Testbed,
    servers: &[Server],
    rides: &[Ride],
    numbers: &mut u64,
) -> anyhow::Result<SendResult> {
    let received = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        // The rider's stream is on one replica, the driver's on the next one.
        let riders = rides.iter().skip(number).step_by(servers.len()).map(|ride| (&*ride.id, &*ride.rider));
        let behind = (number + servers.len() - 1) % servers.len();
        let drivers = rides.iter().skip(behind).step_by(servers.len()).map(|ride| (&*ride.id, &*ride.driver));
        streams.push(PolledStreams::open(server, riders.chain(drivers), Arc::clone(&received)).await?);
    }
    let senders = ClosedLoopSenders::start(servers, rides, numbers).await?;
    sleep(parameters.warmup).await;
    let (from, before) = (Instant::now(), CpuUsage::now(testbed, servers)?);
    let acknowledged = senders.acknowledged();
    senders.start_recording();
    sleep(parameters.duration).await;
    let acknowledged = senders.acknowledged() - acknowledged;
    let seconds = from.elapsed().as_secs_f64();
    let busy = CpuUsage::now(testbed, servers)?.since(&before, seconds);
    let (all, latencies) = senders.end().await?;
    polled_streams::wait_for_events(2 * all, &received).await?;
    let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(SendResult { per_second: acknowledged as f64 / seconds, p50: millis(0.5), p99: millis(0.99), busy })
}

fn sends_table(rounds: &[Vec<SendResult>]) -> Table {
    let header = [
        "64 clients, two streams a ride",
        "sends/s",
        "p50 / p99 ms",
        "CPU cores: each replica",
        "Postgres",
        "generator",
        "bottleneck",
    ];
    let mut table = Table::new("Replicas: durable sends", &header);
    for number in 0..MAX_REPLICAS {
        let median_of = |figure: &dyn Fn(&SendResult) -> f64| {
            median(rounds.iter().filter_map(|round| round.get(number)).map(figure))
        };
        let each = |replica: usize| median_of(&|sent| sent.busy.servers.get(replica).copied().unwrap_or(0.0));
        let servers: Vec<f64> = (0..=number).map(each).collect();
        let (postgres, generator) = (median_of(&|sent| sent.busy.postgres), median_of(&|sent| sent.busy.generator));
        let all = servers.iter().sum::<f64>() + postgres + generator;
        table.row([
            count(number + 1),
            format!("{:.0}", median_of(&|sent| sent.per_second)),
            format!("{:.1} / {:.1}", median_of(&|sent| sent.p50), median_of(&|sent| sent.p99)),
            servers.iter().map(|busy| format!("{busy:.2}")).collect::<Vec<_>>().join(" + "),
            format!("{postgres:.2}"),
            format!("{generator:.2}"),
            process::bottleneck(all, generator).to_owned(),
        ]);
    }
    table
}

fn idle_table(idle: &[Idle], open_rides: usize) -> Table {
    let open = format!("{open_rides} streams in total: each replica");
    let header = [
        "% of a core without messages",
        "no streams: each replica",
        "Postgres",
        &open,
        "Postgres",
        "target per replica",
    ];
    let mut table = Table::new("Replicas: idle cost", &header);
    let percent = |cores: f64| format!("{:.2} %", 100.0 * cores);
    let each = |servers: &[f64]| servers.iter().map(|cores| percent(*cores)).collect::<Vec<_>>().join(", ");
    for (number, Idle { alone, with_streams }) in idle.iter().enumerate() {
        table.row([
            count(number + 1),
            each(&alone.servers),
            percent(alone.postgres),
            each(&with_streams.servers),
            percent(with_streams.postgres),
            "< 1 %".to_owned(),
        ]);
    }
    table
}

fn count(replicas: usize) -> String {
    if replicas == 1 { "1 replica".to_owned() } else { format!("{replicas} replicas") }
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len().max(1) as f64
}
