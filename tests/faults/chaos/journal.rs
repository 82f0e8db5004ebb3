//! The journal of a client process: one entry a line, as `[milliseconds, {"entry": …}]`.
//!
//! A client writes an entry before it does anything else, so a journal is never behind its client. The checker reads
//! these files and nothing else.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// How a client receives events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Transport {
    /// The SSE stream of a ride.
    Stream,
    /// The long poll of a ride.
    Poll,
    /// The merged SSE stream of a user.
    MergedStream,
    /// The merged long poll of a user.
    MergedPoll,
    /// Requests rides of other groups, which must be denied.
    Probe,
}

impl Transport {
    pub(super) fn is_merged(self) -> bool {
        matches!(self, Self::MergedStream | Self::MergedPoll)
    }
}

/// The first entry of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClientStart {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) transport: Transport,
    /// The rides that the client may see.
    pub(super) rides: Vec<String>,
}

/// A stream or poll request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConnectionOpened {
    pub(super) client: String,
    pub(super) connection: usize,
    /// The cursor of the request; `None` is the beginning.
    pub(super) from: Option<String>,
    pub(super) replica: String,
}

/// An event as received. The events of a poll are followed by one `poll:response`, which has the response's cursor as id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Frame {
    pub(super) client: String,
    pub(super) connection: usize,
    pub(super) id: Option<String>,
    pub(super) event: String,
    pub(super) data: String,
}

/// A message that the client is about to send for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SendStarted {
    pub(super) ride: String,
    pub(super) user: String,
    /// The `clientMessageId`.
    pub(super) name: String,
    pub(super) content: String,
}

/// A 2xx response to a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Acknowledged {
    pub(super) ride: String,
    pub(super) user: String,
    pub(super) name: String,
    /// How many times the message had been sent before.
    pub(super) attempt: usize,
    pub(super) status: u16,
    pub(super) id: String,
    pub(super) seq: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "camelCase")]
pub(super) enum Entry {
    ClientStart(ClientStart),
    ConnectionOpened(ConnectionOpened),
    Frame(Frame),
    /// A stream or poll has ended. The checker ignores this; it helps a human reader.
    Closed {
        client: String,
        connection: usize,
        why: String,
    },
    SendStarted(SendStarted),
    Acknowledged(Acknowledged),
    /// A probe got a 404.
    Denied {
        client: String,
        path: String,
    },
    /// A response that no fault explains.
    Violation {
        client: String,
        what: String,
    },
}

/// The journal of a process.
#[derive(Debug)]
pub(super) struct Journal(Mutex<File>);

impl Journal {
    pub(super) fn create(path: &Path) -> Self {
        Self(Mutex::new(File::create_new(path).unwrap()))
    }

    pub(super) fn write(&self, entry: &Entry) {
        let at = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let mut line = serde_json::to_string(&(at, entry)).unwrap();
        line.push('\n');
        self.0.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// Reads all entries of a journal in their order.
pub(super) fn read(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<(u64, Entry)>(line).unwrap().1).collect()
}
