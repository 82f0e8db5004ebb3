//! A server process, of Ridewire or of a peer, and its requests.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::{MessageRequest, find, request, request_of, request_with};

/// The key of all tokens.
pub(crate) const SECRET: &str = "the secret of a benchmark, for benchmarks only";

/// The kind of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    Ridewire,
    /// nginx with nchan: messages in memory, without access control.
    Nchan,
    /// A typical server on Express, Postgres and better-sse. It implements the part of the API that the benchmark uses.
    Express,
    /// A Mercure hub: messages in memory, and in a Bolt database.
    Mercure,
    MercureBolt,
    /// Centrifugo with unidirectional SSE: messages in memory, and in Postgres.
    Centrifugo,
    CentrifugoPostgres,
}

impl ServerKind {
    pub(crate) const ALL: [Self; 5] = [Self::Ridewire, Self::Nchan, Self::Express, Self::Mercure, Self::Centrifugo];
    pub(crate) const PEERS: [Self; 4] = [Self::Nchan, Self::Express, Self::Mercure, Self::Centrifugo];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ridewire => "Ridewire",
            Self::Nchan => "nchan",
            Self::Express => "Express",
            Self::Mercure => "Mercure",
            Self::MercureBolt => "Mercure, Bolt",
            Self::Centrifugo => "Centrifugo",
            Self::CentrifugoPostgres => "Centrifugo, Postgres",
        }
    }

    /// Returns the request for a ride's stream, after the event with the id `after` if there is one.
    pub(crate) fn stream_request(self, ride: &str, token: &str, after: Option<&str>) -> Vec<u8> {
        let path = match self {
            // Only messages, because they are counted. Presence of the other reader would be sent as well.
            Self::Ridewire => format!("/api/v1/messages/rides/{ride}/events?types=message:new"),
            Self::Express => format!("/api/v1/messages/rides/{ride}/events"),
            Self::Nchan => format!("/sub/{ride}"),
            Self::Mercure | Self::MercureBolt => format!("/.well-known/mercure?topic={ride}"),
            // cf_connect={"subs":{"ride":{}}}
            Self::Centrifugo | Self::CentrifugoPostgres => {
                format!("/connection/uni_sse?cf_connect=%7B%22subs%22:%7B%22{ride}%22:%7B%7D%7D%7D")
            }
        };
        let after = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        request_with("GET", &path, token, &format!("Accept: text/event-stream\r\n{after}"), "")
    }

    /// Returns the request that sends a message.
    pub(crate) fn message_request(self, ride: &str, token: &str) -> MessageRequest {
        match self {
            Self::Ridewire | Self::Express => MessageRequest::new(ride, token),
            Self::Nchan => MessageRequest::with(|number| {
                request("POST", &format!("/pub/{ride}"), token, &event_data(ride, number))
            }),
            Self::Mercure | Self::MercureBolt => MessageRequest::with(|number| {
                // A form. Nothing in the data must be escaped.
                let (form, body) =
                    ("application/x-www-form-urlencoded", format!("topic={ride}&data={}", event_data(ride, number)));
                request_of("POST", "/.well-known/mercure", &publisher_token(), "", form, &body)
            }),
            Self::Centrifugo | Self::CentrifugoPostgres => MessageRequest::with(|number| {
                let body = format!(r#"{{"channel":"{ride}","data":{}}}"#, event_data(ride, number));
                request("POST", "/api/publish", token, &body)
            }),
        }
    }

    /// Returns whether the status means that the message was accepted.
    pub(crate) fn accepts(self, status: u16) -> bool {
        match self {
            Self::Ridewire | Self::Express => status == 201,
            Self::Nchan => status == 201 || status == 202,
            Self::Mercure | Self::MercureBolt | Self::Centrifugo | Self::CentrifugoPostgres => status == 200,
        }
    }

    /// Returns whether a chunk of a response may end within a frame.
    pub(crate) fn splits_frames(self) -> bool {
        matches!(self, Self::Centrifugo | Self::CentrifugoPostgres)
    }

    /// Returns whether a frame with data is a heartbeat.
    pub(crate) fn is_ping(self, frame: &[u8]) -> bool {
        matches!(self, Self::Centrifugo | Self::CentrifugoPostgres) && find(frame, b"data: {}").is_some()
    }

    /// Returns the beginning of a stream's first block, and the bytes that end it.
    pub(crate) fn first_block(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Ridewire => (b"event: stream:sync\n", b"\n\n"),
            Self::Nchan => (b": hi", b"\n\n"),
            Self::Express => (b"retry:", b"\n\n"),
            // An empty comment without an empty line.
            Self::Mercure | Self::MercureBolt => (b":\n", b"\n"),
            Self::Centrifugo | Self::CentrifugoPostgres => (br#"data: {"connect""#, b"\n\n"),
        }
    }
}

/// Returns a body in the form of Ridewire's event data, for peers that forward it unchanged.
fn event_data(ride: &str, number: &str) -> String {
    format!(
        r#"{{"id":"01994b7e-5b1a-7c3e-9d52-0242ac120002","rideId":"{ride}","seq":123456,"senderId":"rider_000000","senderRole":"rider","content":"{}","metadata":null,"clientMessageId":"m-{number}","createdAt":"2026-01-01T00:00:00.000Z","editedAt":null,"deletedAt":null,"reactions":[],"isDelivered":false,"isRead":false}}"#,
        MessageRequest::CONTENT
    )
}

/// Returns a token that allows to publish on a Mercure hub.
fn publisher_token() -> String {
    static TOKEN: LazyLock<String> = LazyLock::new(|| {
        let claims = serde_json::json!({ "mercure": { "publish": ["*"] } });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap_or_default()
    });
    TOKEN.clone()
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
