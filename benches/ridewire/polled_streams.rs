//! Streams that one background thread polls, for runs that count events and do not measure when they arrive.
//!
//! Real readers would not use the CPU of this machine, so these use little of it. Each socket is polled four times a
//! second, and everything that has arrived is read at once. The server writes each frame as it does for any reader.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::sleep;

use crate::server::{Server, ServerKind};
use crate::streams::{MAX_OPENING, open_stream, parse_frames, requests};

/// The pause between slices, and the number of slices that all sockets are divided into.
const PAUSE: Duration = Duration::from_millis(1);
const SLICES: usize = 250;

/// More bytes than arrive on a socket between two polls.
const BUFFER_SIZE: usize = 64 * 1024;

/// Open streams. Dropping this value ends the thread and closes the streams.
#[derive(Debug)]
pub(crate) struct PolledStreams {
    stopped: Arc<AtomicBool>,
}

impl PolledStreams {
    /// Opens a stream for each ride and token and waits until all are open. Their events are counted in `received`.
    pub(crate) async fn open<'a>(
        server: &Server,
        targets: impl IntoIterator<Item = (&'a str, &'a str)>,
        received: Arc<AtomicU64>,
    ) -> anyhow::Result<Self> {
        let server = (server.address, server.kind);
        let opening = requests(server.1, targets).map(|request| async move {
            let (socket, buffer) = open_stream(server, &request).await?;
            anyhow::Ok((socket.into_std()?, buffer))
        });
        let streams = futures_util::stream::iter(opening).buffer_unordered(MAX_OPENING).try_collect().await?;
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let kind = server.1;
        std::thread::spawn(move || poll_streams(kind, streams, &stop, &received));
        Ok(Self { stopped })
    }
}

impl Drop for PolledStreams {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Waits until `events` have arrived. Fails if more or fewer do.
pub(crate) async fn wait_for_events(events: u64, received: &AtomicU64) -> anyhow::Result<()> {
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

/// Polls the streams until `stopped` is set or a stream ends. Missing events then fail [`wait_for_events`].
fn poll_streams(kind: ServerKind, mut streams: Vec<(TcpStream, Vec<u8>)>, stopped: &AtomicBool, received: &AtomicU64) {
    let slice_size = streams.len().div_ceil(SLICES).max(1);
    let mut bytes = vec![0; BUFFER_SIZE];
    loop {
        for slice in streams.chunks_mut(slice_size) {
            for (socket, buffer) in slice {
                match socket.read(&mut bytes) {
                    Ok(0) => return,
                    Ok(read) => {
                        buffer.extend_from_slice(bytes.get(..read).unwrap_or_default());
                        parse_frames(kind, buffer, |_| {
                            received.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
