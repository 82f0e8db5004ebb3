//! A. Durable sends: how many messages a second are acknowledged, each of them committed.
//!
//! 64 clients on kept connections, each sending the next message when the last was answered, to 1,000 rides; once
//! with two streams open on every ride and once with none. With streams, each message has to have reached both.
//! Beside it pgbench, and the Express server under the same load.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::{Instant, sleep};

use crate::apart::{self, Apart};
use crate::pgbench::{self, Pgbench};
use crate::platform::{Platform, Ride};
use crate::plot::{Bar, Plot};
use crate::process::Cpu;
use crate::senders::Senders;
use crate::server::{Kind, Server};
use crate::stats::median;
use crate::table::Table;
use crate::{Plan, say};

const RIDES: usize = 1_000;

/// One round.
#[derive(Debug, Clone)]
struct Round {
    with_streams: Sent,
    alone: Sent,
    /// With streams as well; where it is installed.
    express: Option<Sent>,
    notify: pgbench::Done,
    insert: pgbench::Done,
}

/// What was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) per_second: f64,
    /// In milliseconds.
    p50: f64,
    p99: f64,
    pub(crate) cpu: Cpu,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    let server = platform.server("sends").await?;
    let rides = platform.rides(&server, "sends", RIDES).await?;
    let express = platform.serve(Kind::Express, "sends").await?;
    if let Some(express) = &express {
        platform.rides(express, "sends", RIDES).await?;
    }
    pgbench::create_table(platform).await?;
    let (notify, insert) = (Pgbench::new(platform, true)?, Pgbench::new(platform, false)?);
    let mut numbers = 0;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let streams = open(&server, &rides).await?;
        let with_streams = send(plan, platform, &server, &rides, &mut numbers, Some(streams)).await?;
        let notify = notify.run(plan.span).await?;
        let express = match &express {
            Some(express) => {
                let streams = open(express, &rides).await?;
                Some(send(plan, platform, express, &rides, &mut numbers, Some(streams)).await?)
            }
            None => None,
        };
        let alone = send(plan, platform, &server, &rides, &mut numbers, None).await?;
        let insert = insert.run(plan.span).await?;
        say(&format!(
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
    let mut table = Table::new("Durable sends", &["sends/s", "Ridewire", "beside", "ratio", "wanted"]);
    let with_streams = |round: &Round| round.with_streams.per_second;
    let alone = |round: &Round| round.alone.per_second;
    let notify = |round: &Round| round.notify.per_second;
    let insert = |round: &Round| round.insert.per_second;
    let express = |round: &Round| round.express.as_ref().map_or(f64::NAN, |sent| sent.per_second);
    let has_express = rounds.iter().all(|round| round.express.is_some());
    let whole = |figure: f64| format!("{figure:.0}");
    table.beside("two streams a ride; beside: insert + NOTIFY", rounds, (with_streams, notify), whole, "≥ 3.5 ×");
    table.beside("no streams; beside: insert + NOTIFY", rounds, (alone, notify), whole, "≥ 3.5 ×");
    match has_express {
        true => {
            let what = "two streams a ride; beside: Express, the same";
            table.beside(what, rounds, (with_streams, express), whole, "≥ 5 ×");
        }
        false => table.row(["two streams a ride; beside: Express", "", "not installed"]),
    }
    table.beside("two streams a ride; beside: insert alone", rounds, (with_streams, insert), whole, "");
    table.beside("no streams; beside: insert alone", rounds, (alone, insert), whole, "");
    for (what, sent) in [
        ("two streams a ride", (|round| &round.with_streams) as fn(&Round) -> &Sent),
        ("no streams", |round| &round.alone),
    ] {
        let p50 = median(rounds.iter().map(|round| sent(round).p50));
        let p99 = median(rounds.iter().map(|round| sent(round).p99));
        table.row([format!("a send at that load, {what}, p50 / p99"), format!("{p50:.1} / {p99:.1} ms")]);
    }
    let middle = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    table.plot(Plot::new("sends", "Durable sends a second, 64 clients", "/s").with([
        Bar::ours("Ridewire, two streams a ride", middle(with_streams)),
        Bar::ours("Ridewire, no streams", middle(alone)),
        Bar::peer("pgbench, insert + NOTIFY", middle(notify)),
        Bar::peer("pgbench, insert alone", middle(insert)),
        Bar::peer("Express, two streams a ride", middle(express)),
    ]));
    let cpu = |of: fn(&Round) -> Option<Cpu>| rounds.iter().filter_map(of).collect::<Vec<_>>();
    let mut busy = vec![
        ("two streams a ride", cpu(|round| Some(round.with_streams.cpu))),
        ("no streams", cpu(|round| Some(round.alone.cpu))),
        ("pgbench, insert + NOTIFY", cpu(|round| Some(round.notify.cpu))),
        ("pgbench, insert", cpu(|round| Some(round.insert.cpu))),
        ("Express, two streams a ride", cpu(|round| Some(round.express.as_ref()?.cpu))),
    ];
    busy.retain(|(_, rounds)| !rounds.is_empty());
    vec![table, Table::busy("Durable sends: who is busy", &busy)]
}

/// Two streams for each ride, and how many events they have had.
async fn open(server: &Server, rides: &[Ride]) -> anyhow::Result<(Apart, Arc<AtomicU64>)> {
    let received = Arc::new(AtomicU64::new(0));
    let wanted = rides.iter().flat_map(|ride| [(&*ride.id, &*ride.rider), (&*ride.id, &*ride.driver)]);
    let streams = Apart::open(server, wanted, Arc::clone(&received));
    Ok((streams.await?, received))
}

pub(crate) async fn send(
    plan: &Plan,
    platform: &Platform,
    server: &Server,
    rides: &[Ride],
    numbers: &mut u64,
    streams: Option<(Apart, Arc<AtomicU64>)>,
) -> anyhow::Result<Sent> {
    let senders = Senders::start(std::slice::from_ref(server), rides, numbers).await?;
    sleep(plan.warm).await;
    let postgres = platform.postgres_pid()?;
    let (from, before) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    let acknowledged = senders.acknowledged();
    senders.count();
    sleep(plan.span).await;
    let acknowledged = senders.acknowledged() - acknowledged;
    let seconds = from.elapsed().as_secs_f64();
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(before, seconds);
    let (all, latencies) = senders.end().await?;
    if let Some((streams, received)) = streams {
        apart::expect(2 * all, &received).await?;
        drop(streams);
    }
    let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Sent { per_second: acknowledged as f64 / seconds, p50: millis(0.5), p99: millis(0.99), cpu })
}
