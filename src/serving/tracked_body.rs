//! Responses that reserve [memory](crate::memory) until the client has taken their last byte.
//!
//! hyper drops a body when it has queued the body's last bytes, long before the socket has taken them. So the bytes themselves own the
//! reservation, and everything else that must live as long as the response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use salvo::http::ResBody;
use tokio_util::sync::CancellationToken;

use super::HttpService;
use crate::deferred::completed;
use crate::memory::{Memory, MemoryReservation};

/// The largest chunk that hyper receives at once. The rest of a large body waits here, so its reservation shrinks as the client reads.
pub(super) const MAX_CHUNK: usize = 16 * 1024;

/// Smaller bodies reserve no memory. Most responses are smaller, and a connection has only one of them.
const SMALL: usize = 1024;

/// The memory of a connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionMemory {
    memory: Arc<Memory>,
    /// Cancelled to close the connection.
    pub(super) evicted: CancellationToken,
}

impl ConnectionMemory {
    pub(super) fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), evicted: CancellationToken::new() }
    }

    pub(super) fn reserve(&self, bytes: usize) -> MemoryReservation {
        self.memory.reserve(bytes, &self.evicted)
    }

    fn reserve_large(&self, bytes: usize) -> Option<Arc<MemoryReservation>> {
        (bytes >= SMALL).then(|| Arc::new(self.reserve(bytes)))
    }

    pub(super) fn track(&self, response: Response<ResBody>) -> Response<TrackedBody> {
        response.map(|body| {
            let reservation = match &body {
                ResBody::Once(bytes) => self.reserve_large(bytes.len()),
                _ => None,
            };
            TrackedBody { body, rest: Bytes::new(), reservation, memory: self.clone() }
        })
    }
}

/// A response body that reserves memory.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: ResBody,
    /// The rest of the last frame.
    rest: Bytes,
    reservation: Option<Arc<MemoryReservation>>,
    memory: ConnectionMemory,
}

/// Bytes, and a guard that is dropped with them.
struct BytesWithGuard<T>(Bytes, #[allow(dead_code, reason = "kept for its drop")] T);

impl<T> AsRef<[u8]> for BytesWithGuard<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Returns the same bytes. `guard` is dropped with the last of them.
pub(super) fn with_guard<T: Send + 'static>(bytes: Bytes, guard: T) -> Bytes {
    Bytes::from_owner(BytesWithGuard(bytes, guard))
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = <ResBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => {
                    self.reservation = None;
                    return Poll::Ready(end);
                }
            };
            match frame.into_data() {
                Ok(bytes) => self.rest = bytes,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
            if self.reservation.is_none() {
                self.reservation = self.memory.reserve_large(self.rest.len());
            }
        }
        let length = self.rest.len().min(MAX_CHUNK);
        let chunk = self.rest.split_to(length);
        // The last chunk takes the reservation along.
        let reservation = if self.rest.is_empty() { self.reservation.take() } else { self.reservation.clone() };
        Poll::Ready(Some(Ok(Frame::data(match reservation {
            Some(reservation) => with_guard(chunk, reservation),
            None => chunk,
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// A service whose responses reserve memory.
#[derive(Debug)]
pub(super) struct TrackingService<A> {
    inner: A,
    memory: ConnectionMemory,
}

impl<A> TrackingService<A> {
    pub(super) fn new(inner: A, memory: ConnectionMemory) -> Self {
        Self { inner, memory }
    }
}

impl<A: HttpService> Service<Request<Incoming>> for TrackingService<A> {
    type Response = Response<TrackedBody>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<TrackedBody>, hyper::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (response, memory) = (self.inner.call(request), self.memory.clone());
        async move { Ok(memory.track(completed(response.await?).await)) }.boxed()
    }
}
