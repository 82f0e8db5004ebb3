//! A. Durable sends: how many messages a second are acknowledged, and therefore committed.
//!
//! 64 closed-loop clients on keep-alive connections send to 1,000 rides, once with two streams open on each ride and once
//! without. With streams, each message must reach both. The peers are pgbench, and the Express server under the same load.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::{Instant, sleep};

use crate::closed_loop::ClosedLoopSenders;
use crate::pgbench::{self, Pgbench};
use crate::plot::{Bar, Plot};
use crate::polled_streams::{self, PolledStreams};
use crate::process::Cpu;
use crate::server::{Server, ServerKind};
use crate::stats::median;
use crate::table::Table;
use crate::testbed::{Ride, Testbed, participants};
use crate::{Parameters, print};

const RIDES: usize = 1_000;

/// The results of one round.
#[derive(Debug, Clone)]
struct Round {
    with_streams: SendResult,
    alone: SendResult,
    /// With streams as well, if it is installed.
    express: Option<SendResult>,
    notify: pgbench::PgbenchResult,
    insert: pgbench::PgbenchResult,
}

/// The result of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct SendResult {
    pub(crate) per_second: f64,
    /// In milliseconds.
    p50: f64,
    p99: f64,
    pub(crate) cpu: Cpu,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let server = testbed.server("sends").await?;
    let rides = testbed.rides(&server, "sends", RIDES).await?;
    let express = testbed.serve(ServerKind::Express, "sends").await?;
    if let Some(express) = &express {
        testbed.rides(express, "sends", RIDES).await?;
    }
    pgbench::create_table(testbed).await?;
    let (notify, insert) = (Pgbench::new(testbed, true)?, Pgbench::new(testbed, false)?);
    let mut numbers = 0;
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds {
        let streams = open(&server, &rides).await?;
        let with_streams = send(parameters, testbed, &server, &rides, &mut numbers, Some(streams)).await?;
        let notify = notify.run(parameters.duration).await?;
        let express = match &express {
            Some(express) => {
                let streams = open(express, &rides).await?;
                Some(send(parameters, testbed, express, &rides, &mut numbers, Some(streams)).await?)
            }
            None => None,
        };
        let alone = send(parameters, testbed, &server, &rides, &mut numbers, None).await?;
        let insert = insert.run(parameters.duration).await?;
        print(&format!(
            "sends {number}: {:.0}/s with streams, {:.0}/s without; pgbench {:.0}/s with NOTIFY, {:.0}/s without; Express {:.0}/s",
            with_streams.per_second,
            alone.per_second,
            notify.per_second,
            insert.per_second,
            express.as_ref().map_or(f64::NAN, |sent| sent.per_second)
        ));
        rounds.push(Round { with_streams, alone, express, notify, insert });
    }
    server.stop().await?;
    if let Some(express) = express {
        express.stop().await?;
    }
    Ok(tables(&rounds))
}

fn tables(rounds: &[Round]) -> Vec<Table> {
    let mut table = Table::new("Durable sends", &["sends/s", "Ridewire", "peer", "ratio", "target"]);
    let with_streams = |round: &Round| round.with_streams.per_second;
    let alone = |round: &Round| round.alone.per_second;
    let notify = |round: &Round| round.notify.per_second;
    let insert = |round: &Round| round.insert.per_second;
    let express = |round: &Round| round.express.as_ref().map_or(f64::NAN, |sent| sent.per_second);
    let has_express = rounds.iter().all(|round| round.express.is_some());
    let whole = |figure: f64| format!("{figure:.0}");
    table.ratio_row("two streams a ride; peer: insert + NOTIFY", rounds, (with_streams, notify), whole, "≥ 3.5 ×");
    table.ratio_row("no streams; peer: insert + NOTIFY", rounds, (alone, notify), whole, "≥ 3.5 ×");
    match has_express {
        true => {
            let what = "two streams a ride; peer: Express, the same";
            table.ratio_row(what, rounds, (with_streams, express), whole, "≥ 5 ×");
        }
        false => table.row(["two streams a ride; peer: Express", "", "not installed"]),
    }
    table.ratio_row("two streams a ride; peer: insert alone", rounds, (with_streams, insert), whole, "");
    table.ratio_row("no streams; peer: insert alone", rounds, (alone, insert), whole, "");
    for (what, sent) in [
        ("two streams a ride", (|round| &round.with_streams) as fn(&Round) -> &SendResult),
        ("no streams", |round| &round.alone),
    ] {
        let p50 = median(rounds.iter().map(|round| sent(round).p50));
        let p99 = median(rounds.iter().map(|round| sent(round).p99));
        table.row([format!("latency of a send, {what}, p50 / p99"), format!("{p50:.1} / {p99:.1} ms")]);
    }
    let median_of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    table.plot(Plot::new("sends", "Durable sends a second, 64 clients", "/s").with([
        Bar::ours("Ridewire, two streams a ride", median_of(with_streams)),
        Bar::ours("Ridewire, no streams", median_of(alone)),
        Bar::peer("pgbench, insert + NOTIFY", median_of(notify)),
        Bar::peer("pgbench, insert alone", median_of(insert)),
        Bar::peer("Express, two streams a ride", median_of(express)),
    ]));
    let cpu = |of: fn(&Round) -> Option<Cpu>| rounds.iter().filter_map(of).collect::<Vec<_>>();
    let mut cpu_rows = vec![
        ("two streams a ride", cpu(|round| Some(round.with_streams.cpu))),
        ("no streams", cpu(|round| Some(round.alone.cpu))),
        ("pgbench, insert + NOTIFY", cpu(|round| Some(round.notify.cpu))),
        ("pgbench, insert", cpu(|round| Some(round.insert.cpu))),
        ("Express, two streams a ride", cpu(|round| Some(round.express.as_ref()?.cpu))),
    ];
    cpu_rows.retain(|(_, rounds)| !rounds.is_empty());
    vec![table, Table::cpu_table("Durable sends: CPU usage", &cpu_rows)]
}

/// Opens two streams for each ride. Returns them with the counter of their events.
pub(crate) async fn open(server: &Server, rides: &[Ride]) -> anyhow::Result<(PolledStreams, Arc<AtomicU64>)> {
    let received = Arc::new(AtomicU64::new(0));
    let streams = PolledStreams::open(server, participants(rides), Arc::clone(&received));
    Ok((streams.await?, received))
}

pub(crate) async fn send(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    rides: &[Ride],
    numbers: &mut u64,
    streams: Option<(PolledStreams, Arc<AtomicU64>)>,
) -> anyhow::Result<SendResult> {
    let senders = ClosedLoopSenders::start(std::slice::from_ref(server), rides, numbers).await?;
    sleep(parameters.warmup).await;
    let postgres = testbed.postgres_pid()?;
    let (from, before) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    let acknowledged = senders.acknowledged();
    senders.start_recording();
    sleep(parameters.duration).await;
    let acknowledged = senders.acknowledged() - acknowledged;
    let seconds = from.elapsed().as_secs_f64();
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(before, seconds);
    let (all, latencies) = senders.end().await?;
    if let Some((streams, received)) = streams {
        polled_streams::wait_for_events(2 * all, &received).await?;
        drop(streams);
    }
    let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(SendResult { per_second: acknowledged as f64 / seconds, p50: millis(0.5), p99: millis(0.99), cpu })
}
