//! Stream readers that split frames without parsing them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::find;
use crate::server::{Server, ServerKind};
use crate::socket_timestamps::TimestampedSocket;

/// How many streams are opened concurrently where it does not matter.
pub(crate) const MAX_OPENING: usize = 128;

/// Open streams. Dropping this value closes them.
#[derive(Debug)]
pub(crate) struct Streams {
    readers: JoinSet<anyhow::Result<()>>,
}

impl Streams {
    /// Opens a stream for each ride and token and waits until all have begun. From then on, `on_event` gets each event's frame
    /// with the index of its stream.
    pub(crate) async fn open<'a>(
        server: &Server,
        targets: impl IntoIterator<Item = (&'a str, &'a str)>,
        on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::open_requests(server, requests(server.kind, targets), MAX_OPENING, on_event).await
    }

    /// The same, with the arrival time of each frame.
    pub(crate) async fn open_with_timestamps<'a>(
        server: &Server,
        targets: impl IntoIterator<Item = (&'a str, &'a str)>,
        on_event: impl Fn(usize, &[u8], Instant) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::open_all(
            (server.address, server.kind),
            requests(server.kind, targets),
            MAX_OPENING,
            |socket| Ok(Source::TimestampedSocket(TimestampedSocket::new(socket)?)),
            on_event,
        )
        .await
    }

    /// The same with prepared requests, of which `at_once` are opened concurrently.
    pub(crate) async fn open_requests(
        server: &Server,
        requests: impl IntoIterator<Item = Vec<u8>>,
        at_once: usize,
        on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let on_event = move |number: usize, frame: &[u8], _| on_event(number, frame);
        let server = (server.address, server.kind);
        Self::open_all(server, requests, at_once, |socket| Ok(Source::Plain(socket)), on_event).await
    }

    async fn open_all(
        server: (SocketAddr, ServerKind),
        requests: impl IntoIterator<Item = Vec<u8>>,
        at_once: usize,
        source: fn(TcpStream) -> anyhow::Result<Source>,
        on_event: impl Fn(usize, &[u8], Instant) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let on_event = Arc::new(on_event);
        let (opening, opened) = (Arc::new(Semaphore::new(at_once)), Arc::new(Semaphore::new(0)));
        let mut readers = JoinSet::new();
        for (number, request) in requests.into_iter().enumerate() {
            let (opening, opened, on_event) = (Arc::clone(&opening), Arc::clone(&opened), Arc::clone(&on_event));
            readers.spawn(async move {
                let turn = opening.acquire().await?;
                let (socket, buffer) = open_stream(server, &request).await?;
                drop((turn, request));
                opened.add_permits(1);
                read(server.1, source(socket)?, buffer, |frame, at| on_event(number, frame, at)).await
            });
        }
        let count = u32::try_from(readers.len())?;
        let mut streams = Self { readers };
        tokio::select! {
            all = opened.acquire_many(count) => drop(all?),
            why = streams.ended() => return Err(why),
        }
        Ok(streams)
    }

    /// Waits until a stream ends, which is an error.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.readers.join_next().await {
            Some(Ok(Ok(()))) => anyhow!("a stream ended"),
            Some(Ok(Err(error))) => error.context("a stream failed"),
            Some(Err(error)) => error.into(),
            None => std::future::pending().await,
        }
    }
}

/// Returns the request for a stream of each ride with its token.
pub(crate) fn requests<'a>(
    kind: ServerKind,
    targets: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> impl Iterator<Item = Vec<u8>> {
    targets.into_iter().map(move |(ride, token)| kind.stream_request(ride, token, None))
}

/// The socket of a stream.
#[derive(Debug)]
enum Source {
    Plain(TcpStream),
    TimestampedSocket(TimestampedSocket),
}

impl Source {
    /// Reads bytes. Returns their number and their arrival time, which without kernel timestamps is the current time.
    async fn read(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<(usize, Instant)> {
        match self {
            Self::Plain(socket) => Ok((socket.read_buf(buffer).await?, Instant::now())),
            Self::TimestampedSocket(socket) => socket.read(buffer).await,
        }
    }
}

/// The response to a stream request.
enum OpenOutcome {
    /// The stream has begun. Contains the bytes after its first block.
    Open(TcpStream, Vec<u8>),
    RetryLater(Duration),
}

/// Opens a stream, with retries, and reads its first block. Returns the bytes after it.
pub(crate) async fn open_stream(
    server: (SocketAddr, ServerKind),
    request: &[u8],
) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    loop {
        match send_request(server, request).await? {
            OpenOutcome::Open(socket, buffer) => return Ok((socket, buffer)),
            // Like a browser, retry after the delay that an overloaded server returns.
            OpenOutcome::RetryLater(pause) => sleep(pause).await,
        }
    }
}

async fn send_request((address, kind): (SocketAddr, ServerKind), request: &[u8]) -> anyhow::Result<OpenOutcome> {
    let mut socket = TcpStream::connect(address).await.context("connecting")?;
    socket.write_all(request).await?;
    let mut buffer = Vec::with_capacity(2 * 1024);
    loop {
        if socket.read_buf(&mut buffer).await? == 0 {
            bail!("a stream ended before it began: {}", String::from_utf8_lossy(&buffer));
        }
        let (beginning, ending) = kind.first_block();
        let Some(first) = find(&buffer, beginning) else {
            // A response with a length contains nothing but a `retry:` field.
            if find(&buffer, b"content-length:").is_some()
                && let Some(pause) = retry_delay(&buffer)
            {
                return Ok(OpenOutcome::RetryLater(pause));
            }
            continue;
        };
        let Some(end) = buffer.get(first..).and_then(|rest| find(rest, ending)) else { continue };
        buffer.drain(..first + end + ending.len());
        return Ok(OpenOutcome::Open(socket, buffer));
    }
}

fn retry_delay(answer: &[u8]) -> Option<Duration> {
    const RETRY: &[u8] = b"\r\n\r\nretry: ";
    let pause = answer.get(find(answer, RETRY)? + RETRY.len()..)?;
    let pause = pause.get(..find(pause, b"\n")?)?;
    Some(Duration::from_millis(std::str::from_utf8(pause).ok()?.parse().ok()?))
}

/// Removes all complete frames of events from the front of the buffer.
pub(crate) fn parse_frames(kind: ServerKind, buffer: &mut Vec<u8>, on_event: impl Fn(&[u8])) {
    if kind.splits_frames() {
        remove_chunk_sizes(buffer);
    }
    let mut done = 0;
    // The lines of the chunked encoding, between frames, end in CR LF, so none looks like the end of a frame.
    while let Some(rest) = buffer.get(done..)
        && let Some(end) = find(rest, b"\n\n")
    {
        let frame = rest.get(..end).unwrap_or_default();
        // A heartbeat is a comment without data, or on Centrifugo an empty object.
        if find(frame, b"data:").is_some() && !kind.is_ping(frame) {
            on_event(frame);
        }
        done += end + 2;
    }
    buffer.drain(..done);
}

/// Removes the lines of the chunked encoding: CR LF, the size of the next chunk, CR LF. Events have no CR LF.
fn remove_chunk_sizes(buffer: &mut Vec<u8>) {
    let mut from = 0;
    while let Some(begin) = buffer.get(from..).and_then(|rest| find(rest, b"\r\n")).map(|begin| from + begin)
        && let Some(size) = buffer.get(begin + 2..).and_then(|rest| find(rest, b"\r\n"))
    {
        buffer.drain(begin..begin + 2 + size + 2);
        from = begin;
    }
}

async fn read(
    kind: ServerKind,
    mut source: Source,
    mut buffer: Vec<u8>,
    on_event: impl Fn(&[u8], Instant),
) -> anyhow::Result<()> {
    let mut at = Instant::now();
    loop {
        parse_frames(kind, &mut buffer, |frame| on_event(frame, at));
        let read;
        (read, at) = source.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
    }
}
