//! A server process, ours or a peer's, and how one speaks to it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::{Post, request, request_with};

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ridewire,
    /// nginx with nchan: messages in memory, for everybody.
    Nchan,
    /// What a team would write on Express, Postgres and better-sse; it has the part of our interface that is used here.
    Express,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Ridewire, Self::Nchan, Self::Express];
    pub(crate) const PEERS: [Self; 2] = [Self::Nchan, Self::Express];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ridewire => "Ridewire",
            Self::Nchan => "nchan",
            Self::Express => "Express",
        }
    }

    /// Follows a ride's messages; after the event with this id, where there is one.
    pub(crate) fn follow(self, ride: &str, token: &str, after: Option<&str>) -> Vec<u8> {
        let path = match self {
            // Messages alone are counted; the other reader's coming would be told as well.
            Self::Ridewire => format!("/api/v1/messages/rides/{ride}/events?types=message:new"),
            Self::Express => format!("/api/v1/messages/rides/{ride}/events"),
            Self::Nchan => format!("/sub/{ride}"),
        };
        let after = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        request_with("GET", &path, token, &format!("Accept: text/event-stream\r\n{after}"), "")
    }

    /// A message to a ride.
    pub(crate) fn post(self, ride: &str, token: &str) -> Post {
        match self {
            Self::Ridewire | Self::Express => Post::new(ride, token),
            // It hands out what it is given, so it is given what ours hands out.
            Self::Nchan => Post::with(|number| {
                let body = format!(
                    r#"{{"id":"01994b7e-5b1a-7c3e-9d52-0242ac120002","rideId":"{ride}","seq":123456,"senderId":"rider_000000","senderRole":"rider","content":"{}","metadata":null,"clientMessageId":"m-{number}","createdAt":"2026-01-01T00:00:00.000Z","editedAt":null,"deletedAt":null,"reactions":[],"isDelivered":false,"isRead":false}}"#,
                    Post::WORDS
                );
                request("POST", &format!("/pub/{ride}"), token, &body)
            }),
        }
    }

    /// Whether it has taken a message.
    pub(crate) fn takes(self, status: u16) -> bool {
        status == 201 || (self == Self::Nchan && status == 202)
    }

    /// What a stream says first, up to the next empty line.
    pub(crate) fn beginning(self) -> &'static [u8] {
        match self {
            Self::Ridewire => b"event: stream:sync\n",
            Self::Nchan => b": hi",
            Self::Express => b"retry:",
        }
    }
}

/// A server process. Asked to stop when dropped, and most are killed then.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) kind: Kind,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a process that prints where it listens.
    pub(crate) async fn start(kind: Kind, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.spawn().context("the server's program")?;
        let output = child.stdout.take().context("its output")?;
        let mut lines = BufReader::new(output).lines();
        let line = timeout(Duration::from_secs(30), lines.next_line()).await.context("the server says nothing")??;
        let address = line.as_deref().and_then(|line| line.strip_prefix("listening on http://")?.parse().ok());
        let address = address.with_context(|| format!("the server did not start: {line:?}"))?;
        Self::running(kind, child, address)
    }

    /// One that listens there.
    pub(crate) fn running(kind: Kind, child: Child, address: SocketAddr) -> anyhow::Result<Self> {
        let pid = child.id().context("the server has ended")?;
        Ok(Self { child, kind, pid, address })
    }

    /// Asks it to stop and waits for that.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid)?), Signal::SIGTERM)?;
        match timeout(Duration::from_secs(20), self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(ended) => bail!("the server ended badly: {ended:?}"),
            Err(_) => bail!("the server does not stop"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever has been waited for has no id any more.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}
