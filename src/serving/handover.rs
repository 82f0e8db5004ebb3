//! Takes HTTP/1.1 responses over from hyper before their head is written: event streams, and the responses of polls that wait.
//!
//! hyper keeps two buffers of 8 kB and its whole state machine for each connection, as long as a response lasts. A stream lasts for
//! hours, a poll for half a minute, and neither needs that: its client can only disconnect. So such a response is not given to hyper.
//! Instead, the connection is taken apart, and a small task of its own writes the response (`taken_over`).
//!
//! The takeover happens before any byte of the response is written, and only if all bytes of earlier responses are sent. So no byte is
//! lost between the two. Otherwise hyper writes the response, as it does for TLS, HTTP/2 and HTTP/1.0.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_fn};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use salvo::http::ResBody;
use salvo::http::header::{CONNECTION, CONTENT_TYPE, HeaderMap};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::HttpService;
use super::rejected::log_rejected;
use super::taken_over::DeferredResponse;
use super::tracked_body::{ConnectionMemory, TrackedBody};
use crate::deferred;

/// How long a response may be awaited before its connection is taken over. So a poll that finds events does not change hands.
const HANDOVER_DELAY: Duration = Duration::from_millis(50);

/// A response that hyper does not write.
#[derive(Debug)]
pub(super) enum TakenOver {
    /// An event stream.
    Stream(Response<ResBody>),
    /// The response of a poll that waits.
    Deferred(DeferredResponse),
}

/// The state that both sides of a connection share: hyper, which reads requests and writes responses, and the task that drives hyper.
#[derive(Debug, Default)]
pub(super) struct HandoverSlot {
    taken_over: Mutex<Option<TakenOver>>,
    /// Whether hyper has written bytes that may not be flushed yet.
    is_writing: AtomicBool,
}

impl HandoverSlot {
    /// Drives a connection until there is a response to take over. Returns `None` if the connection has ended without one.
    pub(super) async fn next<C>(&self, connection: &mut C) -> Option<TakenOver>
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        poll_fn(|cx| {
            let ended = Pin::new(&mut *connection).poll(cx).map(|ended| log_rejected(&ended));
            // The service stores a response only while the connection is polled.
            let taken_over = self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (taken_over, ended) {
                (None, Poll::Pending) => Poll::Pending,
                (taken_over, _) => Poll::Ready(taken_over),
            }
        })
        .await
    }

    /// Hands a response over. The task that polls this future then checks the slot and drops the whole connection, so it never ends.
    async fn hand_over(&self, response: TakenOver) -> ! {
        *self.taken_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
        std::future::pending().await
    }

    fn has_flushed(&self) -> bool {
        !self.is_writing.load(Ordering::Relaxed)
    }
}

/// A service that responds through hyper, but stores the responses of event streams and of waiting polls in the slot.
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
        let may_take_over = request.version() == Version::HTTP_11 && request.method() == Method::GET;
        // After a poll, the connection continues with the next request, so nothing of this one may be unread.
        let may_wait = may_take_over && request.body().is_end_stream();
        let is_last = has_close(request.headers());
        let (response, slot, memory) = (self.inner.call(request), Arc::clone(&self.slot), self.memory.clone());
        let handed_over = async move {
            let mut response = response.await?;
            if may_take_over && is_event_stream(&response) && slot.has_flushed() {
                slot.hand_over(TakenOver::Stream(response)).await
            }
            let Some(mut completion) = deferred::take(response.extensions_mut()) else {
                return Ok(memory.track(response));
            };
            if may_wait {
                match timeout(HANDOVER_DELAY, &mut completion).await {
                    Ok(completed) => return Ok(memory.track(deferred::complete(response, completed))),
                    Err(_) if slot.has_flushed() => {
                        let waiting = DeferredResponse::new(response, completion, is_last);
                        slot.hand_over(TakenOver::Deferred(waiting)).await
                    }
                    Err(_) => {}
                }
            }
            Ok(memory.track(deferred::complete(response, completion.await)))
        };
        handed_over.boxed()
    }
}

/// Whether the client closes the connection after the response (RFC 9112, section 9.6).
fn has_close(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    options.any(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close")))
}

fn is_event_stream(response: &Response<ResBody>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    response.status() == StatusCode::OK
        && matches!(response.body(), ResBody::Stream(_))
        && kind.is_some_and(|kind| kind.as_bytes() == b"text/event-stream")
}

/// The socket as hyper reads and writes it. It returns the bytes that were received before first. It notes in the slot whether all
/// written bytes are flushed; hyper flushes only when its buffer is empty.
#[derive(Debug)]
pub(super) struct HyperSocket<S> {
    socket: S,
    received: Bytes,
    slot: Arc<HandoverSlot>,
}

impl<S> HyperSocket<S> {
    pub(super) fn new(socket: S, received: Bytes, slot: Arc<HandoverSlot>) -> Self {
        Self { socket, received, slot }
    }

    /// Returns the socket, and the received bytes that hyper has not read.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.socket, self.received)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HyperSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let length = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HyperSocket<S> {
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
