//! Detection of idle and stalled HTTP/2 connections.
//!
//! hyper has a timeout for an HTTP/1 head and for a kept-alive connection. For HTTP/2 it waits without limit: for the client's preface, for
//! the rest of a head, for the next request. A client can also keep the socket busy and still read nothing of a response, because HTTP/2
//! has a flow-control window per response. So the open responses are tracked here.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::HttpService;
use super::tracked_body::{TrackedBody, TrackingService, with_guard};

/// The open responses of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenResponses(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The number of open responses.
    count: watch::Sender<usize>,
    pending: Mutex<PendingBytes>,
}

/// Bytes that hyper has received but the client has not, and since when.
#[derive(Debug, Default)]
struct PendingBytes {
    next_id: u64,
    since: HashMap<u64, Instant>,
}

impl OpenResponses {
    fn open(&self) -> ResponseGuard {
        self.0.count.send_modify(|count| *count += 1);
        ResponseGuard { open: self.clone() }
    }

    fn add_bytes(&self) -> PendingBytesGuard {
        let mut pending = self.pending();
        pending.next_id += 1;
        let id = pending.next_id;
        pending.since.insert(id, Instant::now());
        drop(pending);
        PendingBytesGuard { open: self.clone(), id }
    }

    fn pending(&self) -> MutexGuard<'_, PendingBytes> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there has been no open response for `duration`.
    pub(super) async fn idle_for(&self, duration: Duration) {
        let mut count = self.0.count.subscribe();
        loop {
            // The sender lives in `self`, so neither of these can fail.
            let _ = count.wait_for(|count| *count == 0).await;
            if timeout(duration, count.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until the client has read nothing of some response for `duration`.
    pub(super) async fn stalled_for(&self, duration: Duration) {
        while !self.pending().since.values().any(|since| since.elapsed() >= duration) {
            sleep(duration / 4).await;
        }
    }
}

/// An open response. Dropping it closes the response.
#[derive(Debug)]
struct ResponseGuard {
    open: OpenResponses,
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        self.open.0.count.send_modify(|count| *count -= 1);
    }
}

/// Bytes that the client has not received yet. Dropping it means that they are sent or discarded.
#[derive(Debug)]
struct PendingBytesGuard {
    open: OpenResponses,
    id: u64,
}

impl Drop for PendingBytesGuard {
    fn drop(&mut self) {
        self.open.pending().since.remove(&self.id);
    }
}

/// A service that tracks each response until the client has received all of it.
#[derive(Debug)]
pub(super) struct IdleService<A> {
    inner: TrackingService<A>,
    open: OpenResponses,
}

impl<A> IdleService<A> {
    pub(super) fn new(inner: TrackingService<A>, open: OpenResponses) -> Self {
        Self { inner, open }
    }
}

impl<A: HttpService> Service<Request<Incoming>> for IdleService<A> {
    type Response = Response<IdleBody>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<IdleBody>, hyper::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (response, guard) = (self.inner.call(request), self.open.open());
        async move { Ok(response.await?.map(|body| IdleBody { body, guard })) }.boxed()
    }
}

/// The body of a tracked response. It tracks the bytes themselves, not hyper's next poll, because hyper drops the last bytes of a body
/// before the client has room for them.
#[derive(Debug)]
pub(super) struct IdleBody {
    body: TrackedBody,
    guard: ResponseGuard,
}

impl Body for IdleBody {
    type Data = Bytes;
    type Error = <TrackedBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else { return Poll::Ready(None) };
        let open = &self.guard.open;
        Poll::Ready(Some(Ok(frame.map_data(|bytes| with_guard(bytes, open.add_bytes())))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
