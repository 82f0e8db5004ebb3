//! The responses that are taken over from hyper: event streams, and the responses of polls that wait.
//!
//! Guarantees:
//! - The next frames of a stream are requested when the socket has taken the previous ones. Nothing is queued here.
//! - The task ends in four cases: the response ends, the client disconnects, the client does not read for too long, or the connection is
//!   closed by the server.
//! - After the response of a poll, the connection continues with the client's next request.

use std::fmt;
use std::io::{self, Write as _};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::future::{poll_fn, poll_immediate};
use futures_util::stream::{self, BoxStream};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use salvo::BoxedError;
use salvo::http::ResBody;
use salvo::http::body::BytesFrame;
use salvo::http::header::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::tracked_body::{ConnectionMemory, MAX_CHUNK};
use crate::deferred::{self, Completion};

/// The response of a poll that waits.
pub(super) struct DeferredResponse {
    head: Box<Response<ResBody>>,
    completion: Completion,
    /// Whether the client closes the connection after this response.
    is_last: bool,
}

impl fmt::Debug for DeferredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredResponse").field("head", &self.head).finish_non_exhaustive()
    }
}

impl DeferredResponse {
    pub(super) fn new(head: Response<ResBody>, completion: Completion, is_last: bool) -> Self {
        Self { head: Box::new(head), completion, is_last }
    }

    /// Waits for the response and writes it. Returns whether the connection continues with another request: not after `stopping`.
    pub(super) async fn write(
        self,
        socket: &mut (impl AsyncWrite + Unpin),
        memory: &ConnectionMemory,
        stopping: &CancellationToken,
    ) -> io::Result<bool> {
        let Self { head, completion, is_last } = self;
        let (parts, body) = deferred::complete(*head, completion.await).into_parts();
        let mut body = match body {
            ResBody::Once(bytes) => bytes,
            // No poll responds in another way.
            _ => Bytes::new(),
        };
        let is_last = is_last || stopping.is_cancelled();
        let mut head = encode_head(parts.status, &parts.headers);
        let connection = if is_last { "connection: close\r\n" } else { "" };
        head.extend_from_slice(format!("{connection}content-length: {}\r\n\r\n", body.len()).as_bytes());
        let mut head = Bytes::from(head);
        loop {
            // In pieces, so that the reservation shrinks as the client reads.
            let piece = body.split_to(body.len().min(MAX_CHUNK));
            write_reserved(socket, &mut head.split_off(0).chain(piece), body.len(), memory).await?;
            if body.is_empty() {
                break;
            }
        }
        if is_last {
            socket.shutdown().await?;
        }
        Ok(!is_last)
    }
}

/// An event stream and the socket of its client.
pub(super) struct StreamWriter<S> {
    socket: S,
    head: Bytes,
    /// Not the whole `ResBody`, which is large.
    frames: BoxStream<'static, Result<BytesFrame, BoxedError>>,
    memory: ConnectionMemory,
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamWriter<S> {
    pub(super) fn new(socket: S, response: Response<ResBody>, memory: ConnectionMemory) -> Self {
        let (head, body) = response.into_parts();
        let mut encoded = encode_head(head.status, &head.headers);
        // No response follows the stream.
        encoded.extend_from_slice(b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n");
        let frames = match body {
            ResBody::Stream(frames) => frames.into_inner(),
            // No other response is taken over as a stream.
            _ => stream::empty().boxed(),
        };
        Self { socket, head: encoded.into(), frames, memory }
    }

    /// Writes the stream until it ends or the client disconnects.
    pub(super) async fn write(&mut self) {
        let Self { socket, head, frames, memory } = self;
        if write_all(socket, &mut head.split_off(0)).await.is_err() {
            return;
        }
        loop {
            let next = tokio::select! {
                biased;
                // Only the data is kept: a frame may also be trailers, which are large.
                next = frames.next() => next.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())),
                () = disconnected(socket) => return,
            };
            let next = match next {
                Some(Ok(next)) => next,
                // The body is cut short, so the client does not mistake this for the stream's end.
                Some(Err(_)) => return,
                None => break,
            };
            // An empty chunk would end the body.
            if !next.is_empty() && write_chunk(socket, next, memory).await.is_err() {
                return;
            }
        }
        if write_all(socket, &mut b"0\r\n\r\n".as_slice()).await.is_ok() {
            drop(socket.shutdown().await);
        }
    }
}

/// Encodes the beginning of a head as hyper would. The headers about the connection and the body follow.
fn encode_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("")).into_bytes();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    // RFC 9110, section 6.6.1. This cannot fail between the years 0 and 9999.
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()) {
        head.extend_from_slice(format!("date: {date}\r\n").as_bytes());
    }
    head
}

/// Writes a chunk (RFC 9112, section 7.1). The frames are not copied, because other streams write the same bytes.
async fn write_chunk(
    socket: &mut (impl AsyncWrite + Unpin),
    frames: Bytes,
    memory: &ConnectionMemory,
) -> io::Result<()> {
    let mut size = [0; 18];
    let mut rest = size.as_mut_slice();
    write!(rest, "{:x}\r\n", frames.len())?;
    let unused = rest.len();
    let size = size.get(..size.len() - unused).unwrap_or_default();
    // Passed by reference, so that the futures do not contain copies of it.
    write_reserved(socket, &mut size.chain(frames).chain(b"\r\n".as_slice()), 0, memory).await
}

/// Writes bytes. Reserves memory for them and for the `rest` that follows, unless the socket takes them at once.
async fn write_reserved(
    socket: &mut (impl AsyncWrite + Unpin),
    bytes: &mut impl Buf,
    rest: usize,
    memory: &ConnectionMemory,
) -> io::Result<()> {
    // The usual case: the socket takes all bytes at once. Otherwise `bytes` has the ones that it has not taken.
    if let Some(written) = poll_immediate(pin!(write_all(socket, bytes))).await {
        return written;
    }
    let _reservation = memory.reserve(bytes.remaining() + rest);
    // Boxed, to keep the future of a stream small.
    match Box::pin(memory.evicted.run_until_cancelled(write_all(socket, bytes))).await {
        Some(written) => written,
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Writes bytes. Cancel-safe: `bytes` has the ones that are not written.
async fn write_all(socket: &mut (impl AsyncWrite + Unpin), bytes: &mut impl Buf) -> io::Result<()> {
    while bytes.has_remaining() {
        if socket.write_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Waits until the client disconnects. Bytes that it sends are ignored: it sends its next request on another connection.
async fn disconnected(socket: &mut (impl AsyncRead + Unpin)) {
    poll_fn(|cx| {
        loop {
            let mut bytes = [0; 256];
            let mut read = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}
