//! A server process, of Ridewire or of a peer, and its requests.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::{MessageRequest, request, request_with};

/// The kind of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    Ridewire,
    /// nginx with nchan: messages in memory, without access control.
    Nchan,
    /// A typical server on Express, Postgres and better-sse. It implements the part of the API that the benchmark uses.
    Express,
}

impl ServerKind {
    pub(crate) const ALL: [Self; 3] = [Self::Ridewire, Self::Nchan, Self::Express];
    pub(crate) const PEERS: [Self; 2] = [Self::Nchan, Self::Express];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ridewire => "Ridewire",
            Self::Nchan => "nchan",
            Self::Express => "Express",
        }
    }

    /// Returns the request for a ride's stream, after the event with the id `after` if there is one.
    pub(crate) fn stream_request(self, ride: &str, token: &str, after: Option<&str>) -> Vec<u8> {
        let path = match self {
            // Only messages, because they are counted. Presence of the other reader would be sent as well.
            Self::Ridewire => format!("/api/v1/messages/rides/{ride}/events?types=message:new"),
            Self::Express => format!("/api/v1/messages/rides/{ride}/events"),
            Self::Nchan => format!("/sub/{ride}"),
        };
        let after = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        request_with("GET", &path, token, &format!("Accept: text/event-stream\r\n{after}"), "")
    }

    /// Returns the request that sends a message.
    pub(crate) fn message_request(self, ride: &str, token: &str) -> MessageRequest {
        match self {
            Self::Ridewire | Self::Express => MessageRequest::new(ride, token),
            // nchan forwards the body unchanged, so the body has the form of our event data.
            Self::Nchan => MessageRequest::with(|number| {
                let body = format!(
                    r#"{{"id":"01994b7e-5b1a-7c3e-9d52-0242ac120002","rideId":"{ride}","seq":123456,"senderId":"rider_000000","senderRole":"rider","content":"{}","metadata":null,"clientMessageId":"m-{number}","createdAt":"2026-01-01T00:00:00.000Z","editedAt":null,"deletedAt":null,"reactions":[],"isDelivered":false,"isRead":false}}"#,
                    MessageRequest::CONTENT
                );
                request("POST", &format!("/pub/{ride}"), token, &body)
            }),
        }
    }

    /// Returns whether the status means that the message was accepted.
    pub(crate) fn accepts(self, status: u16) -> bool {
        status == 201 || (self == Self::Nchan && status == 202)
    }

    /// Returns the beginning of a stream's first block, which ends at the next empty line.
    pub(crate) fn first_bytes(self) -> &'static [u8] {
        match self {
            Self::Ridewire => b"event: stream:sync\n",
            Self::Nchan => b": hi",
            Self::Express => b"retry:",
        }
    }
}

/// A server process. It gets SIGTERM on drop, and is killed then except nginx.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) kind: ServerKind,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a process and waits until it prints its address.
    pub(crate) async fn start(kind: ServerKind, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.spawn().context("the server's program")?;
        let output = child.stdout.take().context("its output")?;
        let mut lines = BufReader::new(output).lines();
        let line =
            timeout(Duration::from_secs(30), lines.next_line()).await.context("the server printed no address")??;
        let address = line.as_deref().and_then(|line| line.strip_prefix("listening on http://")?.parse().ok());
        let address = address.with_context(|| format!("the server did not start: {line:?}"))?;
        Self::running(kind, child, address)
    }

    /// Wraps a process that listens on this address.
    pub(crate) fn running(kind: ServerKind, child: Child, address: SocketAddr) -> anyhow::Result<Self> {
        let pid = child.id().context("the server has ended")?;
        Ok(Self { child, kind, pid, address })
    }

    /// Sends SIGTERM and waits until the process exits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid)?), Signal::SIGTERM)?;
        match timeout(Duration::from_secs(20), self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(ended) => bail!("the server failed: {ended:?}"),
            Err(_) => bail!("the server does not stop"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that was waited for has no id any more.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}
