//! Readers of streams: they tell frames apart and understand none.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::{find, request};

/// How many streams are being opened at the same time.
const OPENING: usize = 128;

/// Open streams. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Streams {
    readers: JoinSet<anyhow::Result<()>>,
}

impl Streams {
    /// Opens a stream for each ride and token, waits until all of them have begun, and from then on gives every
    /// event's frame to `on_event`.
    pub(crate) async fn open<'a>(
        address: SocketAddr,
        wanted: impl IntoIterator<Item = (&'a str, &'a str)>,
        on_event: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let on_event = Arc::new(on_event);
        let (opening, opened) = (Arc::new(Semaphore::new(OPENING)), Arc::new(Semaphore::new(0)));
        let mut readers = JoinSet::new();
        for (ride, token) in wanted {
            // Messages alone are counted; the other reader's coming would be told as well.
            let path = format!("/api/v1/messages/rides/{ride}/events?types=message:new");
            let request = request("GET", &path, token, "");
            let (opening, opened, on_event) = (Arc::clone(&opening), Arc::clone(&opened), Arc::clone(&on_event));
            readers.spawn(async move {
                let turn = opening.acquire().await?;
                let mut socket = TcpStream::connect(address).await.context("connecting")?;
                socket.write_all(&request).await?;
                let buffer = begin(&mut socket).await?;
                drop(turn);
                opened.add_permits(1);
                read(socket, buffer, &*on_event).await
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

/// Reads up to and including `stream:sync`; what was read beyond it is returned.
async fn begin(socket: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(2 * 1024);
    loop {
        if socket.read_buf(&mut buffer).await? == 0 {
            bail!("a stream ended before it began");
        }
        let Some(sync) = find(&buffer, b"event: stream:sync\n") else { continue };
        let Some(end) = buffer.get(sync..).and_then(|rest| find(rest, b"\n\n")) else { continue };
        buffer.drain(..sync + end + 2);
        return Ok(buffer);
    }
}

async fn read(mut socket: TcpStream, mut buffer: Vec<u8>, on_event: &impl Fn(&[u8])) -> anyhow::Result<()> {
    loop {
        let mut done = 0;
        // The chunks' own lines, between frames, end in CR LF, so none looks like a frame's end.
        while let Some(rest) = buffer.get(done..)
            && let Some(end) = find(rest, b"\n\n")
        {
            let frame = rest.get(..end).unwrap_or_default();
            // A heartbeat is a lone colon.
            if !frame.ends_with(b":") {
                on_event(frame);
            }
            done += end + 2;
        }
        buffer.drain(..done);
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
