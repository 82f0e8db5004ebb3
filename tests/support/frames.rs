//! Splits a connection into the messages of the Postgres protocol, for proxies.

use tokio::io::AsyncReadExt;

/// A buffer of protocol messages. A message is a type byte, a length that includes itself, and the body. The first message of
/// a client has no type byte.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    is_started: bool,
}

impl Frames {
    /// Reads the messages of a client: the first one has no type byte.
    pub fn of_client() -> Self {
        Self { buffer: Vec::new(), is_started: false }
    }

    /// Reads the messages of Postgres.
    pub fn of_postgres() -> Self {
        Self { buffer: Vec::new(), is_started: true }
    }

    /// Reads more bytes. Returns `false` at the end of the connection.
    pub async fn read(&mut self, from: &mut (impl AsyncReadExt + Unpin)) -> bool {
        matches!(from.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    /// Appends bytes that were read elsewhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete message, or `None` until it is complete.
    #[allow(clippy::should_implement_trait, reason = "a message may follow after `None`")]
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let kind = usize::from(self.is_started);
        let length = self.buffer.get(kind..kind + 4)?;
        let length = kind + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        if self.buffer.len() < length {
            return None;
        }
        self.is_started = true;
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}
