//! Clients that send durable messages: 64 on kept connections, each its next when the last was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Client, Post};
use crate::platform::Ride;
use crate::server::Server;

const CLIENTS: usize = 64;

/// Numbers that a client may use in one run.
const NUMBERS: u64 = 10_000_000;

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Senders {
    clients: JoinSet<anyhow::Result<Histogram<u64>>>,
    progress: Arc<Progress>,
}

/// What the clients share.
#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicU64,
    counts: AtomicBool,
    ends: AtomicBool,
}

impl Senders {
    /// Starts them. Where there are several servers each ride's driver writes to another than its rider, as from behind a load
    /// balancer; and drivers write after the riders, since people read before they answer. `numbers` is the first number that
    /// nobody has used.
    pub(crate) async fn start(servers: &[Server], rides: &[Ride], numbers: &mut u64) -> anyhow::Result<Self> {
        let progress = Arc::<Progress>::default();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            // Each ride belongs to one client's turn, but any client may be the next; both people talk.
            let mine = || rides.iter().skip(client).step_by(CLIENTS).enumerate();
            let riders = mine().map(|(place, ride)| (place + client, Post::new(&ride.id, &ride.rider)));
            let drivers = mine().map(|(place, ride)| (place + client + 1, Post::new(&ride.id, &ride.driver)));
            let posts = riders.chain(drivers).map(|(place, post)| (place % servers.len(), post)).collect();
            let mut connections = Vec::new();
            for server in servers {
                connections.push(Client::connect(server.address).await?);
            }
            clients.spawn(talk(connections, posts, *numbers, Arc::clone(&progress)));
            *numbers += NUMBERS;
        }
        Ok(Self { clients, progress })
    }

    /// How many messages were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Ordering::Relaxed)
    }

    /// Latencies count from now on.
    pub(crate) fn count(&self) {
        self.progress.counts.store(true, Ordering::Relaxed);
    }

    /// Ends them. Says how many messages were acknowledged in all, and in how many microseconds those that counted.
    pub(crate) async fn end(mut self) -> anyhow::Result<(u64, Histogram<u64>)> {
        self.progress.ends.store(true, Ordering::Relaxed);
        let mut latencies = Histogram::<u64>::new(3)?;
        while let Some(talked) = self.clients.join_next().await {
            latencies.add(talked??)?;
        }
        Ok((self.acknowledged(), latencies))
    }
}

/// One client: sends, waits for the answer, sends.
async fn talk(
    mut connections: Vec<Client>,
    mut posts: Vec<(usize, Post)>,
    mut number: u64,
    progress: Arc<Progress>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    ensure!(!posts.is_empty(), "fewer rides than clients");
    loop {
        for (connection, post) in &mut posts {
            let client = connections.get_mut(*connection).context("no such server")?;
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
