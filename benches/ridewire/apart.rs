//! Streams that are read aside, on a thread of their own: for runs in which it counts that all of them get everything,
//! and not when.
//!
//! Readers elsewhere would take nothing of this machine, so these take little: each socket is looked at in its turn, four
//! times a second, and what has come meanwhile is read at once. The server writes each frame as it does to all others.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::sleep;

use crate::server::Server;
use crate::streams::{OPENING, begin, requests, take_frames};

/// How often a few of the sockets are looked at, and in how many turns all of them have been.
const TURN: Duration = Duration::from_millis(1);
const TURNS: usize = 250;

/// More than comes between two looks.
const ROOM: usize = 64 * 1024;

/// Open streams. The thread that reads them ends when this is dropped, and they are closed.
#[derive(Debug)]
pub(crate) struct Apart {
    ends: Arc<AtomicBool>,
}

impl Apart {
    /// Opens a stream for each ride and token, waits until all of them have begun, and from then on counts their events.
    pub(crate) async fn open<'a>(
        server: &Server,
        wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
        received: Arc<AtomicU64>,
    ) -> anyhow::Result<Self> {
        let server = (server.address, server.kind);
        let opening = requests(server.1, wanted).map(|request| async move {
            let (socket, buffer) = begin(server, &request).await?;
            anyhow::Ok((socket.into_std()?, buffer))
        });
        let streams = futures_util::stream::iter(opening).buffer_unordered(OPENING).try_collect().await?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        std::thread::spawn(move || read_in_turns(streams, &told, &received));
        Ok(Self { ends })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// Whatever was acknowledged has to arrive.
pub(crate) async fn expect(events: u64, received: &AtomicU64) -> anyhow::Result<()> {
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

/// Reads until it is told to end, or one of them has ended: then events are missed, which is found where they are counted.
fn read_in_turns(mut streams: Vec<(TcpStream, Vec<u8>)>, ends: &AtomicBool, received: &AtomicU64) {
    let at_once = streams.len().div_ceil(TURNS).max(1);
    let mut room = vec![0; ROOM];
    loop {
        for turn in streams.chunks_mut(at_once) {
            for (socket, buffer) in turn {
                match socket.read(&mut room) {
                    Ok(0) => return,
                    Ok(read) => {
                        buffer.extend_from_slice(room.get(..read).unwrap_or_default());
                        take_frames(buffer, |_| {
                            received.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            if ends.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(TURN);
        }
    }
}
