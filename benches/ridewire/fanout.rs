//! E. One ride with 1,000 subscribers, as fast as it goes: what a delivery costs, ours and the peers'.
//!
//! Sixteen senders, each sending the next message when the last was answered; nobody sends while 64 messages have not
//! reached everybody, so that what is measured is delivering and no queue. Every message has to reach all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::compared::{Compared, Comparison};
use crate::platform::{Platform, Ride};
use crate::plot::{Bar, Plot};
use crate::process::Cpu;
use crate::server::{Kind, Server};
use crate::streams::Streams;
use crate::table::Table;
use crate::{Plan, say};

const SENDERS: usize = 16;

/// Messages that have not reached everybody, at most.
const WINDOW: u64 = 64;

/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was delivered.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    per_second: f64,
    /// CPU microseconds of a delivery: of the server, and with Postgres.
    server: f64,
    all: f64,
    cpu: Cpu,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        if let Some(server) = platform.serve(kind, "fanout").await? {
            let ride = platform.rides(&server, "fanout", 1).await?.pop().context("a ride")?;
            servers.push((server, ride));
        }
    }
    let mut numbers = 0;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let mut round = Vec::new();
        for (server, ride) in &servers {
            let delivered = measure(plan, platform, server, ride, &mut numbers).await.context(server.kind.name())?;
            say(&format!(
                "fanout {number}: {}: {:.0} deliveries/s, {:.2} µs each",
                server.kind.name(),
                delivered.per_second,
                delivered.server
            ));
            round.push((server.kind, delivered));
        }
        rounds.push(Compared::of(round)?);
    }
    for (server, _) in servers {
        server.stop().await?;
    }
    Ok(tables(plan, &rounds))
}

/// Half of the subscribers are the rider, half the driver.
pub(crate) fn followers<'a>(plan: &Plan, ride: &'a Ride) -> impl Iterator<Item = (&'a str, &'a str)> {
    [&*ride.rider, &*ride.driver].into_iter().cycle().map(|token| (&*ride.id, token)).take(plan.followers)
}

/// What senders and subscribers share.
#[derive(Debug, Default)]
struct Flow {
    next: AtomicU64,
    sent: AtomicU64,
    delivered: AtomicU64,
    /// Told whenever as many frames as there are subscribers have been read.
    moved: Notify,
    ends: AtomicBool,
}

async fn measure(
    plan: &Plan,
    platform: &Platform,
    server: &Server,
    ride: &Ride,
    numbers: &mut u64,
) -> anyhow::Result<Delivered> {
    let followers = plan.followers as u64;
    let flow = Arc::new(Flow { next: AtomicU64::new(*numbers), ..Flow::default() });
    let counter = Arc::clone(&flow);
    let streams = Streams::open(server, self::followers(plan, ride), move |_, _| {
        if (counter.delivered.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(followers) {
            counter.moved.notify_waiters();
        }
    });
    let streams = streams.await?;
    let mut senders = JoinSet::new();
    for (_, token) in self::followers(plan, ride).take(SENDERS) {
        let client = Client::connect(server.address).await?;
        let post = server.kind.post(&ride.id, token);
        senders.spawn(send(client, post, server.kind, followers, Arc::clone(&flow)));
    }

    sleep(plan.warm).await;
    let postgres = platform.postgres_pid()?;
    let (from, before) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    let delivered = flow.delivered.load(Ordering::Relaxed);
    sleep(plan.span).await;
    let delivered = (flow.delivered.load(Ordering::Relaxed) - delivered) as f64;
    let seconds = from.elapsed().as_secs_f64();
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(before, seconds);

    flow.ends.store(true, Ordering::Relaxed);
    while let Some(sent) = timeout(PATIENCE, senders.join_next()).await.context("the senders wait")? {
        sent??;
    }
    let expected = flow.sent.load(Ordering::Relaxed) * followers;
    let all = async {
        while flow.delivered.load(Ordering::Relaxed) < expected {
            flow.moved.notified().await;
        }
    };
    timeout(PATIENCE, all).await.context("not all was delivered")?;
    ensure!(flow.delivered.load(Ordering::Relaxed) == expected, "more was delivered than was sent");
    drop(streams);
    *numbers = flow.next.load(Ordering::Relaxed);
    let micros = |cores: f64| cores * seconds * 1e6 / delivered;
    let per_second = delivered / seconds;
    Ok(Delivered { per_second, server: micros(cpu.server), all: micros(cpu.server + cpu.postgres), cpu })
}

async fn send(
    mut client: Client,
    mut post: crate::client::Post,
    kind: Kind,
    followers: u64,
    flow: Arc<Flow>,
) -> anyhow::Result<()> {
    while !flow.ends.load(Ordering::Relaxed) {
        // One thread: nothing is delivered between this look and the wait.
        if flow.sent.load(Ordering::Relaxed) * followers >= flow.delivered.load(Ordering::Relaxed) + WINDOW * followers
        {
            flow.moved.notified().await;
            continue;
        }
        flow.sent.fetch_add(1, Ordering::Relaxed);
        let number = flow.next.fetch_add(1, Ordering::Relaxed);
        let status = client.exchange(post.numbered(number)).await?;
        ensure!(kind.takes(status), "a message was answered {status}");
    }
    Ok(())
}

fn tables(plan: &Plan, rounds: &[Compared<Delivered>]) -> Vec<Table> {
    let title = format!("Fan-out to {} subscribers of one ride, as fast as it goes", plan.followers);
    let mut delivery = Comparison::new(&title, "a delivery", rounds, &Kind::PEERS);
    let micros = |micros: f64| format!("{micros:.2} µs");
    delivery.row("CPU of the server", |one| one.server, micros, "≤ ½ × nchan");
    delivery.row("CPU of the server and Postgres", |one| one.all, micros, "");
    delivery.row("deliveries/s", |one| one.per_second, |one| format!("{one:.0}"), "");
    delivery.table.plot(Plot::new("fanout", "CPU of a delivery to one of 1,000 subscribers", "µs").with([
        Bar::ours("Ridewire", delivery.middle(Kind::Ridewire, |one| one.server)),
        Bar::peer("nchan", delivery.middle(Kind::Nchan, |one| one.server)),
        Bar::peer("Express + better-sse", delivery.middle(Kind::Express, |one| one.server)),
    ]));
    let busy = delivery.busy("Fan-out: who is busy", |one| one.cpu);
    vec![delivery.table, busy]
}
