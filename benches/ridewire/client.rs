//! A minimal HTTP/1.1 client, so that little of the measured CPU time is the client's.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The number of digits of a message number.
const DIGITS: usize = 12;

/// The bytes before a message number, in requests and in frames. Some servers write a space after the field name.
pub(crate) const NUMBER_PREFIX: &[u8] = br#""m-"#;

/// A keep-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(8 * 1024) })
    }

    /// Sends a request and reads its whole response. Returns the status.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.socket.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            let Some(head) = find(&self.buffer, b"\r\n\r\n") else { continue };
            let (head, body) = self.buffer.split_at(head + 4);
            if body.len() >= content_length(head) {
                return status(head).context("a response without a status");
            }
        }
    }

    /// Returns the body of the last response.
    pub(crate) fn body(&self) -> &[u8] {
        let head = find(&self.buffer, b"\r\n\r\n").map_or(self.buffer.len(), |head| head + 4);
        self.buffer.get(head..).unwrap_or_default()
    }
}

/// Returns the first index of `needle`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    memmem::find(hay, needle)
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

fn content_length(head: &[u8]) -> usize {
    const HEADER: &[u8] = b"content-length: ";
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(HEADER.len())?;
        name.eq_ignore_ascii_case(HEADER).then_some(value)
    });
    let length = length.and_then(|length| std::str::from_utf8(length.trim_ascii()).ok()?.parse().ok());
    length.unwrap_or(0)
}

/// Returns the bytes of a request.
pub(crate) fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    request_with(method, path, token, "", body)
}

/// The same with additional headers. Each of them ends with CRLF.
pub(crate) fn request_with(method: &str, path: &str, token: &str, headers: &str, body: &str) -> Vec<u8> {
    request_of(method, path, token, headers, "application/json", body)
}

/// The same with another media type.
pub(crate) fn request_of(
    method: &str,
    path: &str,
    token: &str,
    headers: &str,
    media_type: &str,
    body: &str,
) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{headers}\
         Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A request to send a message, with a number that can be changed in place.
#[derive(Debug, Clone)]
pub(crate) struct MessageRequest {
    bytes: Vec<u8>,
    number_at: usize,
}

impl MessageRequest {
    pub(crate) const CONTENT: &str = "I am at the main gate, beside the taxi stand. Where are you?";

    pub(crate) fn new(ride: &str, token: &str) -> Self {
        Self::with_content(Self::CONTENT, ride, token)
    }

    /// A message with this content.
    pub(crate) fn with_content(content: &str, ride: &str, token: &str) -> Self {
        Self::with(|number| {
            let body = format!(r#"{{"rideId":"{ride}","content":"{content}","clientMessageId":"m-{number}"}}"#);
            request("POST", "/api/v1/messages", token, &body)
        })
    }

    /// Any request that contains its number after `"m-`.
    pub(crate) fn with(request: impl FnOnce(&str) -> Vec<u8>) -> Self {
        let bytes = request(&"0".repeat(DIGITS));
        let number_at = find(&bytes, NUMBER_PREFIX).unwrap_or(0) + NUMBER_PREFIX.len();
        Self { bytes, number_at }
    }

    /// Returns the request with this number. Each message of a run has its own number.
    pub(crate) fn with_number(&mut self, mut number: u64) -> &[u8] {
        let digits = self.bytes.get_mut(self.number_at..self.number_at + DIGITS).unwrap_or_default();
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789".get((number % 10) as usize).copied().unwrap_or(b'0');
            number /= 10;
        }
        &self.bytes
    }
}

/// Returns the message number in a frame, if it is the frame of a message.
pub(crate) fn number_in(frame: &[u8]) -> Option<u64> {
    let digits = find(frame, NUMBER_PREFIX)? + NUMBER_PREFIX.len();
    std::str::from_utf8(frame.get(digits..digits + DIGITS)?).ok()?.parse().ok()
}
