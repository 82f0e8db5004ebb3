//! A. Durable sends: how many messages a second are acknowledged, each of them committed.
//!
//! 64 clients on kept connections, each sending the next message when the last was answered, to 1,000 rides; once
//! with two streams open on every ride and once with none. With streams, each message has to have reached both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Client, Post};
use crate::peer::{self, Peer};
use crate::platform::{Platform, Ride, Server};
use crate::process::Cpu;
use crate::streams::Streams;
use crate::{Plan, say};

const CLIENTS: usize = 64;
const RIDES: usize = 1_000;

/// One round.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) with_streams: Sent,
    pub(crate) alone: Sent,
    pub(crate) notify: peer::Done,
    pub(crate) insert: peer::Done,
}

/// What was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) per_second: f64,
    /// In milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) cpu: Cpu,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Round>> {
    let server = platform.server("sends").await?;
    let rides = platform.rides(&server, "sends", RIDES).await?;
    peer::create_table(platform).await?;
    let (notify, insert) = (Peer::new(platform, true)?, Peer::new(platform, false)?);
    let mut numbers = 0;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let streams = open(&server, &rides).await?;
        let with_streams = send(plan, platform, &server, &rides, &mut numbers, Some(streams)).await?;
        let notify = notify.run(plan.span).await?;
        let alone = send(plan, platform, &server, &rides, &mut numbers, None).await?;
        let insert = insert.run(plan.span).await?;
        say(&format!(
            "sends {number}: {:.0}/s with streams, {:.0}/s without; pgbench {:.0}/s with NOTIFY, {:.0}/s without",
            with_streams.per_second, alone.per_second, notify.per_second, insert.per_second
        ));
        rounds.push(Round { with_streams, alone, notify, insert });
    }
    server.stop().await?;
    Ok(rounds)
}

/// Two streams for each ride, and how many events they have had.
async fn open(server: &Server, rides: &[Ride]) -> anyhow::Result<(Streams, Arc<AtomicU64>)> {
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    let wanted = rides.iter().flat_map(|ride| [(&*ride.id, &*ride.rider), (&*ride.id, &*ride.driver)]);
    let streams = Streams::open(server.address, wanted, move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    Ok((streams.await?, received))
}

/// What the clients share.
#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicU64,
    counts: AtomicBool,
    ends: AtomicBool,
}

async fn send(
    plan: &Plan,
    platform: &Platform,
    server: &Server,
    rides: &[Ride],
    numbers: &mut u64,
    streams: Option<(Streams, Arc<AtomicU64>)>,
) -> anyhow::Result<Sent> {
    let progress = Arc::new(Progress::default());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        // Each ride belongs to one client's turn, but any client may be the next; both people talk.
        let posts: Vec<Post> = rides
            .iter()
            .skip(client)
            .step_by(CLIENTS)
            .flat_map(|ride| [Post::new(&ride.id, &ride.rider), Post::new(&ride.id, &ride.driver)])
            .collect();
        // A number is a client's own for ever.
        let first = *numbers + (client as u64) * 10_000_000;
        clients.spawn(talk(Client::connect(server.address).await?, posts, first, Arc::clone(&progress)));
    }
    *numbers += CLIENTS as u64 * 10_000_000;

    sleep(plan.warm).await;
    let postgres = platform.postgres_pid()?;
    let (from, before) = (Instant::now(), Cpu::now(Some(server.pid), postgres)?);
    let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
    progress.counts.store(true, Ordering::Relaxed);
    sleep(plan.span).await;
    let acknowledged = progress.acknowledged.load(Ordering::Relaxed) - acknowledged;
    let seconds = from.elapsed().as_secs_f64();
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(before, seconds);
    progress.ends.store(true, Ordering::Relaxed);

    let mut latencies = Histogram::<u64>::new(3)?;
    while let Some(talked) = clients.join_next().await {
        latencies.add(talked??)?;
    }
    if let Some((streams, received)) = streams {
        expect(2 * progress.acknowledged.load(Ordering::Relaxed), &received).await?;
        drop(streams);
    }
    let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Sent { per_second: acknowledged as f64 / seconds, p50: millis(0.5), p99: millis(0.99), cpu })
}

/// One client: sends, waits for the answer, sends.
async fn talk(
    mut client: Client,
    mut posts: Vec<Post>,
    mut number: u64,
    progress: Arc<Progress>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    loop {
        for post in &mut posts {
            if progress.ends.load(Ordering::Relaxed) {
                return Ok(latencies);
            }
            number += 1;
            let sent = Instant::now();
            let status = client.exchange(post.numbered(number)).await?;
            ensure!(status == 201, "a message was answered {status}");
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            if progress.counts.load(Ordering::Relaxed) {
                latencies.record(u64::try_from(sent.elapsed().as_micros())?)?;
            }
        }
    }
}

/// Whatever was acknowledged has to arrive.
async fn expect(events: u64, received: &AtomicU64) -> anyhow::Result<()> {
    for _ in 0..1_000 {
        if received.load(Ordering::Relaxed) >= events {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    match received.load(Ordering::Relaxed) {
        all if all == events => Ok(()),
        other => bail!("{other} events arrived, of {events}"),
    }
}
