//! Several replicas on one Postgres: what 64 clients get of them, and what each costs while nobody says anything.
//!
//! Each ride is followed on two replicas and written to on a third, where there are so many: what one commits, the others
//! have to hear of. A run fails unless every message reaches both streams.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::apart::{self, Apart};
use crate::platform::{Platform, Ride};
use crate::process;
use crate::senders::Senders;
use crate::server::Server;
use crate::stats::median;
use crate::streams::Streams;
use crate::table::Table;
use crate::{Plan, say};

const MOST: usize = 3;
const RIDES: usize = 1_000;

/// With one stream each.
const OPEN_RIDES: usize = 10_000;

/// Files of this process and of one server that are no streams.
const SPARE: usize = 500;

/// CPU seconds of every process, so far; or cores that were busy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy {
    pub(crate) servers: Vec<f64>,
    pub(crate) postgres: f64,
    generator: f64,
}

#[derive(Debug, Clone)]
struct Sent {
    per_second: f64,
    p50: f64,
    p99: f64,
    busy: Busy,
}

/// With so many replicas: nothing open, and many rides open.
#[derive(Debug)]
struct Idle {
    alone: Busy,
    followed: Busy,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    let (open_rides, idle_span) = match plan.quick {
        true => (200, Duration::from_secs(2)),
        false => (OPEN_RIDES.min(plan.files.saturating_sub(SPARE)), Duration::from_secs(10)),
    };
    let maker = platform.server("maker").await?;
    let rides = platform.rides(&maker, "replicas", RIDES).await?;
    let followed = platform.rides(&maker, "followed", open_rides).await?;
    maker.stop().await?;

    let mut rounds = Vec::new();
    let mut numbers = 0;
    for number in 1..=plan.rounds.min(3) {
        let mut round = Vec::new();
        for count in 1..=MOST {
            let servers = start(platform, count).await?;
            round.push(send(plan, platform, &servers, &rides, &mut numbers).await.context("sends")?);
            stop(servers).await?;
        }
        let rates: Vec<String> = round.iter().map(|sent| format!("{:.0}", sent.per_second)).collect();
        say(&format!("replicas {number}: {} sends/s with 1, 2 and 3", rates.join(", ")));
        rounds.push(round);
    }
    let mut quiet = Vec::new();
    for count in 1..=MOST {
        let servers = start(platform, count).await?;
        let alone = watch(platform, &servers, idle_span).await?;
        let mut streams = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            let mine = followed.iter().skip(number).step_by(count).map(|ride| (&*ride.id, &*ride.driver));
            streams.push(Streams::open(server, mine, |_, _| {}).await?);
        }
        // Everybody who came is told as being there within a few looks of the fallback.
        sleep(idle_span / 2).await;
        let followed = watch(platform, &servers, idle_span).await?;
        say(&format!(
            "replicas: {count} idle at {:.2} % of a core each, {:.2} % with {open_rides} rides open in all",
            100.0 * mean(&alone.servers),
            100.0 * mean(&followed.servers)
        ));
        drop(streams);
        stop(servers).await?;
        quiet.push(Idle { alone, followed });
    }
    Ok(vec![sends_table(&rounds), idle_table(&quiet, open_rides)])
}

async fn start(platform: &Platform, count: usize) -> anyhow::Result<Vec<Server>> {
    let mut servers = Vec::new();
    for number in 1..=count {
        servers.push(platform.server(&format!("replica-{number}")).await?);
    }
    Ok(servers)
}

async fn stop(servers: Vec<Server>) -> anyhow::Result<()> {
    for server in servers {
        server.stop().await?;
    }
    Ok(())
}

impl Busy {
    pub(crate) fn now(platform: &Platform, servers: &[Server]) -> anyhow::Result<Self> {
        Ok(Self {
            servers: servers.iter().map(|server| process::used(server.pid, false)).collect::<Result<_, _>>()?,
            postgres: process::of_family(platform.postgres_pid()?)?,
            generator: process::used(std::process::id(), true)?,
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

/// What everybody does for so long.
async fn watch(platform: &Platform, servers: &[Server], span: Duration) -> anyhow::Result<Busy> {
    let (from, before) = (Instant::now(), Busy::now(platform, servers)?);
    sleep(span).await;
    Ok(Busy::now(platform, servers)?.since(&before, from.elapsed().as_secs_f64()))
}

async fn send(
    plan: &Plan,
    platform: &Platform,
    servers: &[Server],
    rides: &[Ride],
    numbers: &mut u64,
) -> anyhow::Result<Sent> {
    let received = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        // The rider is on one replica, the driver on the next.
        let riders = rides.iter().skip(number).step_by(servers.len()).map(|ride| (&*ride.id, &*ride.rider));
        let behind = (number + servers.len() - 1) % servers.len();
        let drivers = rides.iter().skip(behind).step_by(servers.len()).map(|ride| (&*ride.id, &*ride.driver));
        streams.push(Apart::open(server, riders.chain(drivers), Arc::clone(&received)).await?);
    }
    let senders = Senders::start(servers, rides, numbers).await?;
    sleep(plan.warm).await;
    let (from, before) = (Instant::now(), Busy::now(platform, servers)?);
    let acknowledged = senders.acknowledged();
    senders.count();
    sleep(plan.span).await;
    let acknowledged = senders.acknowledged() - acknowledged;
    let seconds = from.elapsed().as_secs_f64();
    let busy = Busy::now(platform, servers)?.since(&before, seconds);
    let (all, latencies) = senders.end().await?;
    apart::expect(2 * all, &received).await?;
    let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Sent { per_second: acknowledged as f64 / seconds, p50: millis(0.5), p99: millis(0.99), busy })
}

fn sends_table(rounds: &[Vec<Sent>]) -> Table {
    let header = [
        "64 clients, two streams a ride",
        "sends/s",
        "p50 / p99 ms",
        "cores busy: each replica",
        "Postgres",
        "generator",
        "saturated",
    ];
    let mut table = Table::new("Replicas: durable sends", &header);
    for number in 0..MOST {
        let middle =
            |figure: &dyn Fn(&Sent) -> f64| median(rounds.iter().filter_map(|round| round.get(number)).map(figure));
        let each = |replica: usize| middle(&|sent| sent.busy.servers.get(replica).copied().unwrap_or(0.0));
        let servers: Vec<f64> = (0..=number).map(each).collect();
        let (postgres, generator) = (middle(&|sent| sent.busy.postgres), middle(&|sent| sent.busy.generator));
        let all = servers.iter().sum::<f64>() + postgres + generator;
        table.row([
            count(number + 1),
            format!("{:.0}", middle(&|sent| sent.per_second)),
            format!("{:.1} / {:.1}", middle(&|sent| sent.p50), middle(&|sent| sent.p99)),
            servers.iter().map(|busy| format!("{busy:.2}")).collect::<Vec<_>>().join(" + "),
            format!("{postgres:.2}"),
            format!("{generator:.2}"),
            process::saturated(all, generator).to_owned(),
        ]);
    }
    table
}

fn idle_table(quiet: &[Idle], open_rides: usize) -> Table {
    let open = format!("{open_rides} rides open in all: each replica");
    let header = [
        "% of a core while nobody says anything",
        "nothing open: each replica",
        "Postgres",
        &open,
        "Postgres",
        "wanted of a replica",
    ];
    let mut table = Table::new("Replicas: what they cost idle", &header);
    let percent = |cores: f64| format!("{:.2} %", 100.0 * cores);
    let each = |servers: &[f64]| servers.iter().map(|cores| percent(*cores)).collect::<Vec<_>>().join(", ");
    for (number, Idle { alone, followed }) in quiet.iter().enumerate() {
        table.row([
            count(number + 1),
            each(&alone.servers),
            percent(alone.postgres),
            each(&followed.servers),
            percent(followed.postgres),
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
