//! An HTTP/1.1 event stream that is taken over from hyper before its head is written, and is then written by a small task of its own.
//!
//! hyper keeps two buffers of 8 kB and its whole state machine for each connection, as long as a response lasts. A stream lasts for
//! hours and needs none of that: its frames are encoded already, and its client can only disconnect. So the response of a stream is not
//! given to hyper. Instead, the connection is taken apart, and only the socket and the frames remain.
//!
//! Guarantees:
//! - The takeover happens before any byte of the response is written, and only if all bytes of earlier responses are sent. So no byte is
//!   lost between the two. Otherwise hyper writes the stream, as it does for TLS, HTTP/2 and HTTP/1.0.
//! - The next frames are requested when the socket has taken the previous ones. Nothing is queued here.
//! - The task ends in four cases: the stream ends, the client disconnects, the client does not read for too long, or the connection is
//!   closed by the server.

use std::io::{self, Write as _};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::future::{BoxFuture, poll_fn, poll_immediate};
use futures_util::{FutureExt, StreamExt};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use salvo::http::ResBody;
use salvo::http::header::{CONTENT_TYPE, HeaderMap};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::HttpService;
use super::rejected::log_rejected;
use super::tracked_body::{ConnectionMemory, TrackedBody};

/// The state that both sides of a connection share: hyper, which reads requests and writes responses, and the task that drives hyper.
#[derive(Debug, Default)]
pub(super) struct HandoverSlot {
    /// The response of an event stream, which hyper must not write.
    stream: Mutex<Option<Response<ResBody>>>,
    /// Whether hyper has written bytes that may not be flushed yet.
    is_writing: AtomicBool,
}

impl HandoverSlot {
    /// Drives a connection until there is a stream to take over. Returns `None` if the connection has ended without one.
    pub(super) async fn next_stream<C>(&self, connection: &mut C) -> Option<Response<ResBody>>
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        poll_fn(|cx| {
            let ended = Pin::new(&mut *connection).poll(cx).map(|ended| log_rejected(&ended));
            // The service stores a response only while the connection is polled.
            let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (stream, ended) {
                (None, Poll::Pending) => Poll::Pending,
                (stream, _) => Poll::Ready(stream),
            }
        })
        .await
    }
}

/// A service that responds through hyper, but stores the responses of event streams in the slot.
#[derive(Debug)]
pub(super) struct HandoverService<A> {
    inner: A,
    slot: Arc<HandoverSlot>,
    memory: ConnectionMemory,
}

impl<A> HandoverService<A> {
    pub(super) fn new(inner: A, slot: Arc<HandoverSlot>, memory: ConnectionMemory) -> Self {
        Self { inner, slot, memory }
    }
}

impl<A: HttpService> Service<Request<Incoming>> for HandoverService<A> {
    type Response = Response<TrackedBody>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<TrackedBody>, hyper::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let may_be_stream = request.version() == Version::HTTP_11 && request.method() == Method::GET;
        let (response, slot, memory) = (self.inner.call(request), Arc::clone(&self.slot), self.memory.clone());
        let handed_over = async move {
            let response = response.await?;
            if !may_be_stream || !is_event_stream(&response) || slot.is_writing.load(Ordering::Relaxed) {
                return Ok(memory.track(response));
            }
            *slot.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
            // The task that polls this future then checks the slot and drops the whole connection.
            std::future::pending().await
        };
        handed_over.boxed()
    }
}

fn is_event_stream(response: &Response<ResBody>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    response.status() == StatusCode::OK
        && matches!(response.body(), ResBody::Stream(_))
        && kind.is_some_and(|kind| kind.as_bytes() == b"text/event-stream")
}

/// A socket that notes in the slot whether all written bytes are flushed. hyper flushes only when its buffer is empty.
#[derive(Debug)]
pub(super) struct FlushTracker<S> {
    socket: S,
    slot: Arc<HandoverSlot>,
}

impl<S> FlushTracker<S> {
    pub(super) fn new(socket: S, slot: Arc<HandoverSlot>) -> Self {
        Self { socket, slot }
    }

    pub(super) fn into_inner(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FlushTracker<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FlushTracker<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.slot.is_writing.store(true, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.slot.is_writing.store(true, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        self.slot.is_writing.store(false, Ordering::Relaxed);
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// An event stream and the socket of its client.
#[derive(Debug)]
pub(super) struct StreamWriter<S> {
    socket: S,
    head: Bytes,
    body: ResBody,
    memory: ConnectionMemory,
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamWriter<S> {
    pub(super) fn new(socket: S, response: Response<ResBody>, memory: ConnectionMemory) -> Self {
        let (head, body) = response.into_parts();
        Self { socket, head: encode_head(&head.headers).into(), body, memory }
    }

    /// Writes the stream until it ends or the client disconnects.
    pub(super) async fn write(&mut self) {
        let Self { socket, head, body, memory } = self;
        if write_all(socket, head.split_off(0)).await.is_err() {
            return;
        }
        loop {
            let next = tokio::select! {
                biased;
                next = body.next() => next,
                () = disconnected(socket) => return,
            };
            let frames = match next {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                // The body is cut short, so the client does not mistake this for the stream's end.
                Some(Err(_)) => return,
                None => break,
            };
            // An empty chunk would end the body.
            if !frames.is_empty() && write_chunk(socket, frames, memory).await.is_err() {
                return;
            }
        }
        if write_all(socket, b"0\r\n\r\n".as_slice()).await.is_ok() {
            drop(socket.shutdown().await);
        }
    }
}

/// Encodes the head as hyper would, except for `connection: close`: no response follows the stream.
fn encode_head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    // RFC 9110, section 6.6.1. This cannot fail between the years 0 and 9999.
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()) {
        head.extend_from_slice(format!("date: {date}\r\n").as_bytes());
    }
    head.extend_from_slice(b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    head
}

/// Writes a chunk (RFC 9112, section 7.1). The frames are not copied, because other streams write the same bytes.
async fn write_chunk(
    socket: &mut (impl AsyncWrite + Unpin),
    frames: Bytes,
    memory: &ConnectionMemory,
) -> io::Result<()> {
    let length = frames.len();
    let mut size = [0; 18];
    let mut rest = size.as_mut_slice();
    write!(rest, "{:x}\r\n", frames.len())?;
    let unused = rest.len();
    let size = size.get(..size.len() - unused).unwrap_or_default();
    let mut writing = pin!(write_all(socket, size.chain(frames).chain(b"\r\n".as_slice())));
    // The usual case: the socket takes all bytes at once.
    if let Some(written) = poll_immediate(writing.as_mut()).await {
        return written;
    }
    let _reservation = memory.reserve(length);
    // Boxed, to keep the future of a stream small.
    match Box::pin(memory.evicted.run_until_cancelled(writing)).await {
        Some(written) => written,
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn write_all(socket: &mut (impl AsyncWrite + Unpin), mut bytes: impl Buf) -> io::Result<()> {
    while bytes.has_remaining() {
        if socket.write_buf(&mut bytes).await? == 0 {
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
