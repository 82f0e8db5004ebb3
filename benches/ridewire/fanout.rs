//! E. Maximum throughput of one ride with 1,000 subscribers: the CPU time per delivery of Ridewire and its peers.
//!
//! Sixteen senders each send the next message after the response to the last one. They pause while 64 messages have not
//! reached all subscribers, so the measurement includes delivery but no queueing. Every message must reach every subscriber.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::comparison::{Comparison, PerServer};
use crate::plot::{Bar, Plot};
use crate::process::Cpu;
use crate::server::{Server, ServerKind};
use crate::streams::Streams;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print};

const SENDERS: usize = 16;

/// The highest number of messages that have not reached all subscribers.
const WINDOW: u64 = 64;

/// The timeout of the last deliveries.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The result of one round.
#[derive(Debug, Clone, Copy)]
struct FanoutResult {
    per_second: f64,
    /// CPU microseconds per delivery: of the server alone, and with Postgres.
    server: f64,
    all: f64,
    cpu: Cpu,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let mut servers = Vec::new();
    for kind in ServerKind::ALL {
        if let Some(server) = testbed.serve(kind, "fanout").await? {
            let ride = testbed.rides(&server, "fanout", 1).await?.pop().context("a ride")?;
            servers.push((server, ride));
        }
    }
    let mut numbers = 0;
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds {
        let mut round = Vec::new();
        for (server, ride) in &servers {
            let delivered =
                measure(parameters, testbed, server, ride, &mut numbers).await.context(server.kind.name())?;
            print(&format!(
                "fanout {number}: {}: {:.0} deliveries/s, {:.2} µs each",
                server.kind.name(),
                delivered.per_second,
                delivered.server
            ));
            round.push((server.kind, delivered));
        }
        rounds.push(PerServer::of(round)?);
    }
    for (server, _) in servers {
        server.stop().await?;
    }
    Ok(tables(parameters, &rounds))
}

/// The tokens of the subscribers: half are the rider's, half the driver's.
pub(crate) fn subscribers<'a>(parameters: &Parameters, ride: &'a Ride) -> impl Iterator<Item = (&'a str, &'a str)> {
    [&*ride.rider, &*ride.driver].into_iter().cycle().map(|token| (&*ride.id, token)).take(parameters.subscribers)
}

/// The state that senders and subscribers share.
#[derive(Debug, Default)]
struct Flow {
    next: AtomicU64,
    sent: AtomicU64,
    delivered: AtomicU64,
    /// Notified whenever as many frames as there are subscribers have been read.
    moved: Notify,
    ends: AtomicBool,
}

async fn measure(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    ride: &Ride,
    numbers: &mut u64,
) -> anyhow::Result<FanoutResult> {
    let subscribers = parameters.subscribers as u64;
    let flow = Arc::new(Flow { next: AtomicU64::new(*numbers), ..Flow::default() });
    let counter = Arc::clone(&flow);
    let streams = Streams::open(server, self::subscribers(parameters, ride), move |_, _| {
        if (counter.delivered.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(subscribers) {
            counter.moved.notify_waiters();
        }
    });
    let streams = streams.await?;
    let mut senders = JoinSet::new();
    for (_, token) in self::subscribers(parameters, ride).take(SENDERS) {
        let client = Client::connect(server.address).await?;
        let message_request = server.kind.message_request(&ride.id, token);
        senders.spawn(send(client, message_request, server.kind, subscribers, Arc::clone(&flow)));
    }

    sleep(parameters.warmup).await;
    let postgres = testbed.postgres_pid()?;
    let (from, before) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    let delivered = flow.delivered.load(Ordering::Relaxed);
    sleep(parameters.duration).await;
    let delivered = (flow.delivered.load(Ordering::Relaxed) - delivered) as f64;
    let seconds = from.elapsed().as_secs_f64();
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(before, seconds);

    flow.ends.store(true, Ordering::Relaxed);
    while let Some(sent) = timeout(TIMEOUT, senders.join_next()).await.context("the senders do not finish")? {
        sent??;
    }
    let expected = flow.sent.load(Ordering::Relaxed) * subscribers;
    let all = async {
        while flow.delivered.load(Ordering::Relaxed) < expected {
            flow.moved.notified().await;
        }
    };
    timeout(TIMEOUT, all).await.context("not all messages were delivered")?;
    ensure!(flow.delivered.load(Ordering::Relaxed) == expected, "more messages were delivered than sent");
    drop(streams);
    *numbers = flow.next.load(Ordering::Relaxed);
    let micros = |cores: f64| cores * seconds * 1e6 / delivered;
    let per_second = delivered / seconds;
    Ok(FanoutResult { per_second, server: micros(cpu.server), all: micros(cpu.server + cpu.postgres), cpu })
}

async fn send(
    mut client: Client,
    mut message_request: crate::client::MessageRequest,
    kind: ServerKind,
    subscribers: u64,
    flow: Arc<Flow>,
) -> anyhow::Result<()> {
    while !flow.ends.load(Ordering::Relaxed) {
        // The runtime has one thread, so nothing is delivered between this check and the wait.
        if flow.sent.load(Ordering::Relaxed) * subscribers
            >= flow.delivered.load(Ordering::Relaxed) + WINDOW * subscribers
        {
            flow.moved.notified().await;
            continue;
        }
        flow.sent.fetch_add(1, Ordering::Relaxed);
        let number = flow.next.fetch_add(1, Ordering::Relaxed);
        let status = client.exchange(message_request.with_number(number)).await?;
        ensure!(kind.accepts(status), "a message got {status}");
    }
    Ok(())
}

fn tables(parameters: &Parameters, rounds: &[PerServer<FanoutResult>]) -> Vec<Table> {
    let title = format!("Fan-out to {} subscribers of one ride, maximum throughput", parameters.subscribers);
    let mut delivery = Comparison::new(&title, "per delivery", rounds, &ServerKind::PEERS);
    let micros = |micros: f64| format!("{micros:.2} µs");
    delivery.row("CPU of the server", |one| one.server, micros, "≤ ½ × nchan");
    delivery.row("CPU of the server and Postgres", |one| one.all, micros, "");
    delivery.row("deliveries/s", |one| one.per_second, |one| format!("{one:.0}"), "");
    delivery.table.plot(Plot::new("fanout", "CPU time per delivery to one of 1,000 subscribers", "µs").with([
        Bar::ours("Ridewire", delivery.median_of(ServerKind::Ridewire, |one| one.server)),
        Bar::peer("nchan", delivery.median_of(ServerKind::Nchan, |one| one.server)),
        Bar::peer("Express + better-sse", delivery.median_of(ServerKind::Express, |one| one.server)),
    ]));
    let busy = delivery.cpu_table("Fan-out: CPU usage", |one| one.cpu);
    vec![delivery.table, busy]
}
