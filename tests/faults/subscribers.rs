//! Lightweight stream readers: one task and one socket each.
//!
//! They use HTTP/1.0, so a body ends with its connection. Like an `EventSource`, a reader reconnects with its last id when
//! a stream ends, on either replica.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::checker::{SeenEvent, SubscriberView};

/// The addresses of the replicas. One of them may be down.
#[derive(Debug)]
pub(crate) struct Replicas(RwLock<[SocketAddr; 2]>);

impl Replicas {
    pub(crate) fn new(addresses: [SocketAddr; 2]) -> Self {
        Self(RwLock::new(addresses))
    }

    /// Returns the address of replica `number` modulo 2.
    pub(crate) fn get(&self, number: usize) -> SocketAddr {
        self.0.read().unwrap()[number % 2]
    }

    /// Replaces the address of a replica.
    pub(crate) fn replace(&self, number: usize, address: SocketAddr) {
        self.0.write().unwrap()[number % 2] = address;
    }
}

/// The progress of a subscriber.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    last: AtomicI64,
    is_synced: AtomicBool,
}

impl Progress {
    /// Returns the last seq that it received.
    pub(crate) fn last(&self) -> i64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Returns whether a stream is open and has begun.
    pub(crate) fn is_synced(&self) -> bool {
        self.is_synced.load(Ordering::Relaxed)
    }
}

/// A reader of a ride.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) ride: String,
    pub(crate) progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
    task: JoinHandle<SubscriberView>,
}

impl Subscriber {
    /// Reads `ride` from its beginning, first from replica `number`.
    pub(crate) fn start(replicas: &Arc<Replicas>, number: usize, ride: &str, token: String) -> Self {
        let progress = Arc::new(Progress::default());
        let (stop, wake) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
        let reader = Reader {
            replicas: Arc::clone(replicas),
            number,
            token,
            view: SubscriberView { ride: ride.to_owned(), ..SubscriberView::default() },
            progress: Arc::clone(&progress),
        };
        let task = tokio::spawn({
            let (stop, wake) = (Arc::clone(&stop), Arc::clone(&wake));
            async move { reader.run(&stop, &wake).await }
        });
        Self { ride: ride.to_owned(), progress, stop, wake, task }
    }

    /// Stops the reader. Returns the events that it received.
    pub(crate) async fn finish(self) -> SubscriberView {
        self.stop.store(true, Ordering::SeqCst);
        self.wake.notify_one();
        self.task.await.unwrap()
    }
}

struct Reader {
    replicas: Arc<Replicas>,
    number: usize,
    token: String,
    view: SubscriberView,
    progress: Arc<Progress>,
}

impl Reader {
    async fn run(mut self, stop: &AtomicBool, wake: &tokio::sync::Notify) -> SubscriberView {
        while !stop.load(Ordering::SeqCst) {
            tokio::select! {
                () = wake.notified() => {}
                // The stream ended or could not be opened: use the other replica.
                () = self.follow() => {
                    self.progress.is_synced.store(false, Ordering::Relaxed);
                    self.number += 1;
                    sleep(Duration::from_millis(fastrand::u64(20..200))).await;
                }
            }
        }
        self.view
    }

    /// Reads one stream to its end.
    async fn follow(&mut self) {
        let address = self.replicas.get(self.number);
        let Ok(Ok(mut socket)) = timeout(Duration::from_secs(2), TcpStream::connect(address)).await else { return };
        let last = self.view.seen.last().map_or(0, |seen| seen.seq);
        let position = if last == 0 { "?after=0".to_owned() } else { String::new() };
        let header = if last == 0 { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
        let request = format!(
            "GET /api/v1/messages/rides/{}/events{position} HTTP/1.0\r\nHost: ridewire\r\n\
             Authorization: Bearer {}\r\n{header}\r\n",
            self.view.ride, self.token
        );
        if socket.write_all(request.as_bytes()).await.is_err() {
            return;
        }
        let mut buffer = Vec::new();
        let (mut has_head, mut is_synced) = (false, false);
        loop {
            while let Some(end) = find_blank_line(&buffer, has_head) {
                let block: Vec<u8> = buffer.drain(..end).collect();
                let block = String::from_utf8_lossy(&block);
                if !has_head {
                    has_head = true;
                    if block.split(' ').nth(1) != Some("200") {
                        let status = block.lines().next().unwrap_or_default();
                        return self.view.problems.push(format!("a stream got {status}"));
                    }
                } else if is_synced {
                    self.record(&block);
                } else {
                    is_synced = self.check_sync(&block, last);
                }
            }
            if !matches!(socket.read_buf(&mut buffer).await, Ok(read) if read > 0) {
                return;
            }
        }
    }

    /// Checks the first event of a stream.
    fn check_sync(&mut self, block: &str, last: i64) -> bool {
        let Some(frame) = Frame::parse(block) else { return false };
        let data: Value = serde_json::from_str(frame.data).unwrap_or_default();
        let is_valid = frame.event == "stream:sync"
            && frame.id == Some(last)
            && data["resumed"] == true
            && data["gap"].is_null()
            && data["state"]["ride"]["rideId"] == *self.view.ride;
        if !is_valid {
            self.view.problems.push(format!("a stream that resumes after {last} begins with {block:?}"));
        }
        self.view.connections += 1;
        self.progress.is_synced.store(true, Ordering::Relaxed);
        true
    }

    fn record(&mut self, block: &str) {
        let Some(frame) = Frame::parse(block) else { return };
        match (frame.event, frame.id) {
            ("stream:closing", None) if frame.data.contains("shutdown") => {}
            (event, Some(seq)) if !event.starts_with("stream:") => {
                self.view.seen.push(SeenEvent::new(seq, event, frame.data));
                self.progress.last.store(seq, Ordering::Relaxed);
            }
            // Presence and other events that are not in the log.
            (event, None) if !event.starts_with("stream:") => {}
            _ => self.view.problems.push(format!("got {block:?}")),
        }
    }
}

/// Returns the end of the first block, after its blank line.
pub(crate) fn find_blank_line(buffer: &[u8], has_head: bool) -> Option<usize> {
    let mark: &[u8] = if has_head { b"\n\n" } else { b"\r\n\r\n" };
    buffer.windows(mark.len()).position(|window| window == mark).map(|place| place + mark.len())
}

/// An event of a stream.
pub(crate) struct Frame<'a> {
    id: Option<i64>,
    pub(crate) event: &'a str,
    pub(crate) data: &'a str,
}

impl<'a> Frame<'a> {
    /// Returns `None` for a block of comments and `retry:` only.
    pub(crate) fn parse(block: &'a str) -> Option<Self> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            event: field("event: ")?,
            id: field("id: ").and_then(|id| id.parse().ok()),
            data: field("data: ").unwrap_or_default(),
        })
    }
}
