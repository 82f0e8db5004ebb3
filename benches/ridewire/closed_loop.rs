//! Closed-loop load: 64 clients on keep-alive connections. Each sends its next message after the response to the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Client, MessageRequest};
use crate::server::{Server, ServerKind};
use crate::testbed::Ride;

const CLIENTS: usize = 64;

/// The range of message numbers of one client in a run.
const NUMBERS: u64 = 10_000_000;

/// The running clients.
#[derive(Debug)]
pub(crate) struct ClosedLoopSenders {
    clients: JoinSet<anyhow::Result<Histogram<u64>>>,
    progress: Arc<Progress>,
}

/// The state that the clients share.
#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicU64,
    is_recording: AtomicBool,
    stopped: AtomicBool,
}

impl ClosedLoopSenders {
    /// Starts the clients. With several servers, the driver of a ride writes to another server than its rider, as behind a load
    /// balancer. Drivers send after the riders, because users read before they reply. `numbers` is the first unused number.
    pub(crate) async fn start(servers: &[Server], rides: &[Ride], numbers: &mut u64) -> anyhow::Result<Self> {
        let kind = servers.first().context("a server")?.kind;
        let progress = Arc::<Progress>::default();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            // Each client has its own rides. Both the rider and the driver send.
            let own_rides = || rides.iter().skip(client).step_by(CLIENTS).enumerate();
            let riders = own_rides().map(|(index, ride)| (index + client, kind.message_request(&ride.id, &ride.rider)));
            let drivers =
                own_rides().map(|(index, ride)| (index + client + 1, kind.message_request(&ride.id, &ride.driver)));
            let message_requests = riders
                .chain(drivers)
                .map(|(index, message_request)| (index % servers.len(), message_request))
                .collect();
            let mut connections = Vec::new();
            for server in servers {
                connections.push(Client::connect(server.address).await?);
            }
            clients.spawn(send_in_loop(connections, kind, message_requests, *numbers, Arc::clone(&progress)));
            *numbers += NUMBERS;
        }
        Ok(Self { clients, progress })
    }

    /// Returns the number of acknowledged messages.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Ordering::Relaxed)
    }

    /// Begins to record latencies.
    pub(crate) fn start_recording(&self) {
        self.progress.is_recording.store(true, Ordering::Relaxed);
    }

    /// Stops the clients. Returns the number of acknowledged messages and the recorded latencies in microseconds.
    pub(crate) async fn end(mut self) -> anyhow::Result<(u64, Histogram<u64>)> {
        self.progress.stopped.store(true, Ordering::Relaxed);
        let mut latencies = Histogram::<u64>::new(3)?;
        while let Some(finished) = self.clients.join_next().await {
            latencies.add(finished??)?;
        }
        Ok((self.acknowledged(), latencies))
    }
}

/// Runs one client: sends a message, waits for the response, and sends the next one.
async fn send_in_loop(
    mut connections: Vec<Client>,
    kind: ServerKind,
    mut message_requests: Vec<(usize, MessageRequest)>,
    mut number: u64,
    progress: Arc<Progress>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    ensure!(!message_requests.is_empty(), "fewer rides than clients");
    loop {
        for (connection, message_request) in &mut message_requests {
            let client = connections.get_mut(*connection).context("no such server")?;
            if progress.stopped.load(Ordering::Relaxed) {
                return Ok(latencies);
            }
            number += 1;
            let sent = Instant::now();
            let status = client.exchange(message_request.with_number(number)).await?;
            ensure!(kind.accepts(status), "a message got {status}");
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            if progress.is_recording.load(Ordering::Relaxed) {
                latencies.record(u64::try_from(sent.elapsed().as_micros())?)?;
            }
        }
    }
}
