//! Responses that hold [memory](crate::memory) until their last byte was taken.
//!
//! hyper lets go of a body when it has queued the body's last bytes, long before the socket has taken them. So the bytes
//! themselves hold the memory, and whatever else a response holds on to.

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

use super::Answer;
use crate::memory::{Held, Memory};

/// The largest piece that hyper is given: what of a large body was taken is seen, and the rest waits here.
const PIECE: usize = 16 * 1024;

/// What is smaller is not counted: a connection has one of it, and most responses are.
const SMALL: usize = 1024;

/// A connection, as far as its memory goes.
#[derive(Debug, Clone)]
pub(super) struct Track {
    memory: Arc<Memory>,
    /// Ends the connection.
    pub(super) cut: CancellationToken,
}

impl Track {
    pub(super) fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), cut: CancellationToken::new() }
    }

    pub(super) fn hold(&self, bytes: usize) -> Held {
        self.memory.hold(bytes, &self.cut)
    }

    fn hold_large(&self, bytes: usize) -> Option<Arc<Held>> {
        (bytes >= SMALL).then(|| Arc::new(self.hold(bytes)))
    }

    pub(super) fn count(&self, response: Response<ResBody>) -> Response<CountedBody> {
        response.map(|body| {
            let held = match &body {
                ResBody::Once(bytes) => self.hold_large(bytes.len()),
                _ => None,
            };
            CountedBody { body, rest: Bytes::new(), held, track: self.clone() }
        })
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: ResBody,
    /// Of the last frame.
    rest: Bytes,
    held: Option<Arc<Held>>,
    track: Track,
}

/// Bytes with what they hold.
struct Holding<T>(Bytes, #[allow(dead_code, reason = "held, not read")] T);

impl<T> AsRef<[u8]> for Holding<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The same bytes; `held` is dropped with the last of them.
pub(super) fn holding<T: Send + 'static>(bytes: Bytes, held: T) -> Bytes {
    Bytes::from_owner(Holding(bytes, held))
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = <ResBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => {
                    self.held = None;
                    return Poll::Ready(end);
                }
            };
            match frame.into_data() {
                Ok(bytes) => self.rest = bytes,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
            if self.held.is_none() {
                self.held = self.track.hold_large(self.rest.len());
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        // The last piece takes it along.
        let held = if self.rest.is_empty() { self.held.take() } else { self.held.clone() };
        Poll::Ready(Some(Ok(Frame::data(match held {
            Some(held) => holding(piece, held),
            None => piece,
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

/// Answers requests, and counts what its responses hold.
#[derive(Debug)]
pub(super) struct Counting<A> {
    answer: A,
    track: Track,
}

impl<A> Counting<A> {
    pub(super) fn new(answer: A, track: Track) -> Self {
        Self { answer, track }
    }
}

impl<A: Answer> Service<Request<Incoming>> for Counting<A> {
    type Response = Response<CountedBody>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<CountedBody>, hyper::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (answer, track) = (self.answer.call(request), self.track.clone());
        async move { Ok(track.count(answer.await?)) }.boxed()
    }
}
