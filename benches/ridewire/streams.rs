//! Readers of streams: they tell frames apart and understand none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::arrival::Timed;
use crate::client::find;
use crate::server::{Kind, Server};

/// How many streams are being opened at the same time, where it does not matter.
pub(crate) const OPENING: usize = 128;

/// Open streams. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Streams {
    readers: JoinSet<anyhow::Result<()>>,
}

impl Streams {
    /// Opens a stream for each ride and token, waits until all of them have begun, and from then on gives every
    /// event's frame to `on_event`, with the number of its stream.
    pub(crate) async fn open<'a>(
        server: &Server,
        wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
        on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::ask(server, requests(server.kind, wanted), OPENING, on_event).await
    }

    /// The same, and says with each frame when it arrived.
    pub(crate) async fn open_timed<'a>(
        server: &Server,
        wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
        on_event: impl Fn(usize, &[u8], Instant) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::follow(
            (server.address, server.kind),
            requests(server.kind, wanted),
            OPENING,
            |socket| Ok(Source::Timed(Timed::new(socket)?)),
            on_event,
        )
        .await
    }

    /// The same with requests that are ready, `at_once` of them at the same time.
    pub(crate) async fn ask(
        server: &Server,
        requests: impl IntoIterator<Item = Vec<u8>>,
        at_once: usize,
        on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let on_event = move |number: usize, frame: &[u8], _| on_event(number, frame);
        let server = (server.address, server.kind);
        Self::follow(server, requests, at_once, |socket| Ok(Source::Plain(socket)), on_event).await
    }

    async fn follow(
        server: (SocketAddr, Kind),
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
                let (socket, buffer) = begin(server, &request).await?;
                drop((turn, request));
                opened.add_permits(1);
                read(source(socket)?, buffer, |frame, at| on_event(number, frame, at)).await
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

    /// Waits until one of them ends, which none should.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.readers.join_next().await {
            Some(Ok(Ok(()))) => anyhow!("a stream ended"),
            Some(Ok(Err(error))) => error.context("a stream failed"),
            Some(Err(error)) => error.into(),
            None => std::future::pending().await,
        }
    }
}

/// What asks for a stream of each ride, with each token.
pub(crate) fn requests<'a>(
    kind: Kind,
    wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> impl Iterator<Item = Vec<u8>> {
    wanted.into_iter().map(move |(ride, token)| kind.follow(ride, token, None))
}

/// Where a stream is read from.
#[derive(Debug)]
enum Source {
    Plain(TcpStream),
    Timed(Timed),
}

impl Source {
    /// How much was read, and when it was there: when it was read, where the kernel is not asked.
    async fn read(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<(usize, Instant)> {
        match self {
            Self::Plain(socket) => Ok((socket.read_buf(buffer).await?, Instant::now())),
            Self::Timed(socket) => socket.read(buffer).await,
        }
    }
}

/// How a stream answers.
enum Begun {
    /// With what was read beyond its beginning.
    Open(TcpStream, Vec<u8>),
    PutOff(Duration),
}

/// Asks for a stream until it begins, and reads up to and including what it says first. With what was read beyond that.
pub(crate) async fn begin(server: (SocketAddr, Kind), request: &[u8]) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    loop {
        match ask(server, request).await? {
            Begun::Open(socket, buffer) => return Ok((socket, buffer)),
            // As a browser would: a server that cannot answer in time says when to come back.
            Begun::PutOff(pause) => sleep(pause).await,
        }
    }
}

async fn ask((address, kind): (SocketAddr, Kind), request: &[u8]) -> anyhow::Result<Begun> {
    let mut socket = TcpStream::connect(address).await.context("connecting")?;
    socket.write_all(request).await?;
    let mut buffer = Vec::with_capacity(2 * 1024);
    loop {
        if socket.read_buf(&mut buffer).await? == 0 {
            bail!("a stream ended before it began: {}", String::from_utf8_lossy(&buffer));
        }
        let Some(first) = find(&buffer, kind.beginning()) else {
            // Nothing but a pause, in an answer that has a length.
            if find(&buffer, b"content-length:").is_some()
                && let Some(pause) = put_off(&buffer)
            {
                return Ok(Begun::PutOff(pause));
            }
            continue;
        };
        let Some(end) = buffer.get(first..).and_then(|rest| find(rest, b"\n\n")) else { continue };
        buffer.drain(..first + end + 2);
        return Ok(Begun::Open(socket, buffer));
    }
}

fn put_off(answer: &[u8]) -> Option<Duration> {
    const RETRY: &[u8] = b"\r\n\r\nretry: ";
    let pause = answer.get(find(answer, RETRY)? + RETRY.len()..)?;
    let pause = pause.get(..find(pause, b"\n")?)?;
    Some(Duration::from_millis(std::str::from_utf8(pause).ok()?.parse().ok()?))
}

/// Takes whole frames of events off the front of what was read.
pub(crate) fn take_frames(buffer: &mut Vec<u8>, on_event: impl Fn(&[u8])) {
    let mut done = 0;
    // The chunks' own lines, between frames, end in CR LF, so none looks like a frame's end.
    while let Some(rest) = buffer.get(done..)
        && let Some(end) = find(rest, b"\n\n")
    {
        let frame = rest.get(..end).unwrap_or_default();
        // A heartbeat is a comment, of one colon or of a word.
        if find(frame, b"data:").is_some() {
            on_event(frame);
        }
        done += end + 2;
    }
    buffer.drain(..done);
}

async fn read(mut source: Source, mut buffer: Vec<u8>, on_event: impl Fn(&[u8], Instant)) -> anyhow::Result<()> {
    let mut at = Instant::now();
    loop {
        take_frames(&mut buffer, |frame| on_event(frame, at));
        let read;
        (read, at) = source.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
    }
}
