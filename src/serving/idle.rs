//! When a connection of HTTP/2 does nothing, or takes nothing.
//!
//! hyper gives a head of HTTP/1 its time, and a kept connection as much. In HTTP/2 it waits without end: for the client's
//! preface, for a head that was begun, for the next request. And a client that takes bytes, but none of an answer (it gives a
//! window to each), has the socket as busy as anybody's. So the answers that are open are watched here.

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

use super::Answer;
use super::counted::{CountedBody, Counting, holding};

/// The answers of a connection that are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Open(Arc<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// How many there are.
    count: watch::Sender<usize>,
    given: Mutex<Waiting>,
}

/// What was given and not taken yet, and since when.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    waiting: HashMap<u64, Instant>,
}

impl Open {
    fn one_more(&self) -> One {
        self.0.count.send_modify(|count| *count += 1);
        One { open: self.clone() }
    }

    fn give(&self) -> Given {
        let mut given = self.given();
        given.next += 1;
        let name = given.next;
        given.waiting.insert(name, Instant::now());
        drop(given);
        Given { open: self.clone(), name }
    }

    fn given(&self) -> MutexGuard<'_, Waiting> {
        self.0.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there has been none for so long.
    pub(super) async fn none_for(&self, patience: Duration) {
        let mut count = self.0.count.subscribe();
        loop {
            // The sender lives in `self`, so neither of these can fail.
            let _ = count.wait_for(|count| *count == 0).await;
            if timeout(patience, count.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until nothing has been taken of one for so long.
    pub(super) async fn one_stalls_for(&self, patience: Duration) {
        while !self.given().waiting.values().any(|since| since.elapsed() >= patience) {
            sleep(patience / 4).await;
        }
    }
}

/// One that is open, until it is dropped.
#[derive(Debug)]
struct One {
    open: Open,
}

impl Drop for One {
    fn drop(&mut self) {
        self.open.0.count.send_modify(|count| *count -= 1);
    }
}

/// Bytes that were given and not taken, until it is dropped.
#[derive(Debug)]
struct Given {
    open: Open,
    name: u64,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.open.given().waiting.remove(&self.name);
    }
}

/// Answers requests, and watches each answer until all of it was taken.
#[derive(Debug)]
pub(super) struct Watching<A> {
    answer: Counting<A>,
    open: Open,
}

impl<A> Watching<A> {
    pub(super) fn new(answer: Counting<A>, open: Open) -> Self {
        Self { answer, open }
    }
}

impl<A: Answer> Service<Request<Incoming>> for Watching<A> {
    type Response = Response<WatchedBody>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<WatchedBody>, hyper::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (answer, one) = (self.answer.call(request), self.open.one_more());
        async move { Ok(answer.await?.map(|body| WatchedBody { body, one })) }.boxed()
    }
}

/// The body of an answer. Its bytes are watched, not when hyper asks for more: of its last bytes hyper lets go before the
/// client has room for them.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: CountedBody,
    one: One,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = <CountedBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else { return Poll::Ready(None) };
        let open = &self.one.open;
        Poll::Ready(Some(Ok(frame.map_data(|bytes| holding(bytes, open.give())))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
