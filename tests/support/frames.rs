//! The frames of Postgres's protocol, as a proxy reads them off a connection.

use tokio::io::AsyncReadExt;

/// Messages of the protocol: a type, a length that counts itself, and the rest. A client's first has no type.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    is_started: bool,
}

impl Frames {
    /// What a client sends: its first message has no type.
    pub fn of_client() -> Self {
        Self { buffer: Vec::new(), is_started: false }
    }

    /// What Postgres sends.
    pub fn of_postgres() -> Self {
        Self { buffer: Vec::new(), is_started: true }
    }

    /// Reads more. `false`: there is no more.
    pub async fn read(&mut self, from: &mut (impl AsyncReadExt + Unpin)) -> bool {
        matches!(from.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    /// Takes what was read otherwise.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it has been read.
    #[allow(clippy::should_implement_trait, reason = "more may come after `None`")]
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
