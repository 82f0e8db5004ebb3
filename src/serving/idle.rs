//! When a connection of HTTP/2 does nothing, or takes nothing.
//!
//! hyper gives a head of HTTP/1 its time, and a kept connection as much. In HTTP/2 it waits without end: for the client's
//! preface, for a head that was begun, for the next request. And a client that takes bytes, but none of an answer (it gives a
//! window to each), has the socket as busy as anybody's. So the answers that are open are watched here.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use salvo::http::ResBody;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Answer;

/// The answers of a connection that are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Open(Arc<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// How many there are, and the name of the next.
    count: watch::Sender<(usize, u64)>,
    /// Those of which something was given that was not taken yet, and since when.
    given: Mutex<HashMap<u64, Instant>>,
}

impl Open {
    fn one_more(&self) -> One {
        let mut name = 0;
        self.0.count.send_modify(|(count, next)| {
            (*count, name) = (*count + 1, *next);
            *next += 1;
        });
        One { open: self.clone(), name }
    }

    fn given(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.0.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there has been none for so long.
    pub(super) async fn none_for(&self, patience: Duration) {
        let mut count = self.0.count.subscribe();
        loop {
            // The sender lives in `self`, so neither of these can fail.
            let _ = count.wait_for(|(count, _)| *count == 0).await;
            if timeout(patience, count.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until nothing has been taken of one for so long.
    pub(super) async fn one_stalls_for(&self, patience: Duration) {
        while !self.given().values().any(|since| since.elapsed() >= patience) {
            sleep(patience / 4).await;
        }
    }
}

/// One that is open, until it is dropped.
#[derive(Debug)]
struct One {
    open: Open,
    name: u64,
}

impl Drop for One {
    fn drop(&mut self) {
        self.open.given().remove(&self.name);
        self.open.0.count.send_modify(|(count, _)| *count -= 1);
    }
}

/// Answers requests, and watches each answer until all of it was taken.
#[derive(Debug)]
pub(super) struct Watching<A> {
    answer: A,
    open: Open,
}

impl<A> Watching<A> {
    pub(super) fn new(answer: A, open: Open) -> Self {
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

/// The body of an answer. hyper asks it for more where the client has room for more.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: ResBody,
    one: One,
}

impl Body for WatchedBody {
    type Data = <ResBody as Body>::Data;
    type Error = <ResBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let mut given = self.one.open.given();
        match polled {
            Poll::Ready(Some(_)) => drop(given.insert(self.one.name, Instant::now())),
            _ => drop(given.remove(&self.one.name)),
        }
        drop(given);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
