//! What clients write down: a file a process, a line an entry, `[milliseconds, {"entry": …}]`.
//!
//! An entry is in the file before its client does anything else, so a journal never knows less than its client did.
//! The checker reads these files and nothing else.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// How a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Transport {
    /// SSE of a ride.
    Stream,
    /// Long poll of a ride.
    Poll,
    /// SSE of everything that is the user's.
    MergedStream,
    /// Long poll of the same.
    MergedPoll,
    /// Asks for others' rides, in vain.
    Pry,
}

impl Transport {
    pub(super) fn is_merged(self) -> bool {
        matches!(self, Self::MergedStream | Self::MergedPoll)
    }
}

/// A client, before anything else of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) transport: Transport,
    /// What it may see.
    pub(super) rides: Vec<String>,
}

/// A stream or poll is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) client: String,
    pub(super) connection: usize,
    /// The cursor that was given; `None` is the beginning.
    pub(super) from: Option<String>,
    pub(super) replica: String,
}

/// An event as it came. A poll's answer is its events and then one more, `poll:answer`, with the answer's cursor as id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Frame {
    pub(super) client: String,
    pub(super) connection: usize,
    pub(super) id: Option<String>,
    pub(super) event: String,
    pub(super) data: String,
}

/// A message that is about to be sent for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sending {
    pub(super) ride: String,
    pub(super) user: String,
    /// The `clientMessageId`.
    pub(super) name: String,
    pub(super) content: String,
}

/// A 2xx to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) ride: String,
    pub(super) user: String,
    pub(super) name: String,
    /// How often it had been sent before.
    pub(super) attempt: usize,
    pub(super) status: u16,
    pub(super) id: String,
    pub(super) seq: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "camelCase")]
pub(super) enum Entry {
    Begun(Begun),
    Opened(Opened),
    Frame(Frame),
    /// A stream or poll has ended: for who reads the journal.
    Closed {
        client: String,
        connection: usize,
        why: String,
    },
    Sending(Sending),
    Sent(Sent),
    /// A stranger was told that there is nothing.
    Denied {
        client: String,
        path: String,
    },
    /// An answer that nothing excuses.
    Wrong {
        client: String,
        what: String,
    },
}

/// A process' journal.
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

/// All entries of a journal, in their order.
pub(super) fn read(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<(u64, Entry)>(line).unwrap().1).collect()
}
