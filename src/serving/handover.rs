//! An event stream of HTTP/1.1, once its head is due: taken over from hyper, and written by a small task of its own.
//!
//! hyper keeps a connection's two buffers of 8 kB, and all of its state machine, as long as an answer lasts. A stream lasts
//! for hours and needs none of it: its frames come encoded, and all that its client may still do is to go. So the answer of
//! a stream is not given to hyper; the connection is taken apart instead, and what is left is the socket and the frames.
//!
//! What holds here:
//! - It is taken over before any byte of the answer, and only where every byte of the answers before has left; so nothing is
//!   lost between the two. Else hyper goes on, as it does for TLS, HTTP/2 and HTTP/1.0.
//! - The next frames are asked for when those before have been taken by the socket: nothing is queued here.
//! - It ends when the stream does, when the client goes, when the client takes nothing for too long, or when it is cut.

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

use super::Answer;
use super::counted::{CountedBody, Track};
use super::rejected::log_rejected;

/// What a connection's two sides share: hyper, which reads requests and writes answers, and the task that drives it.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// An answer that is not hyper's.
    stream: Mutex<Option<Response<ResBody>>>,
    /// Whether bytes were written that may not have left.
    is_writing: AtomicBool,
}

impl Desk {
    /// Drives a connection until there is a stream to take over; `None` when it has ended without.
    pub(super) async fn next<C>(&self, connection: &mut C) -> Option<Response<ResBody>>
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        poll_fn(|cx| {
            let ended = Pin::new(&mut *connection).poll(cx).map(|ended| log_rejected(&ended));
            // Laid there while the connection was polled, or not at all.
            let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (stream, ended) {
                (None, Poll::Pending) => Poll::Pending,
                (stream, _) => Poll::Ready(stream),
            }
        })
        .await
    }
}

/// Answers requests, but lays event streams on the desk.
#[derive(Debug)]
pub(super) struct Handing<A> {
    answer: A,
    desk: Arc<Desk>,
    track: Track,
}

impl<A> Handing<A> {
    pub(super) fn new(answer: A, desk: Arc<Desk>, track: Track) -> Self {
        Self { answer, desk, track }
    }
}

impl<A: Answer> Service<Request<Incoming>> for Handing<A> {
    type Response = Response<CountedBody>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<CountedBody>, hyper::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let may_be_stream = request.version() == Version::HTTP_11 && request.method() == Method::GET;
        let (answer, desk, track) = (self.answer.call(request), Arc::clone(&self.desk), self.track.clone());
        let handing = async move {
            let response = answer.await?;
            if !may_be_stream || !is_event_stream(&response) || desk.is_writing.load(Ordering::Relaxed) {
                return Ok(track.count(response));
            }
            *desk.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
            // The task that polls this looks at the desk next, and drops all of it.
            std::future::pending().await
        };
        handing.boxed()
    }
}

fn is_event_stream(response: &Response<ResBody>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    response.status() == StatusCode::OK
        && matches!(response.body(), ResBody::Stream(_))
        && kind.is_some_and(|kind| kind.as_bytes() == b"text/event-stream")
}

/// A socket that tells the desk whether all that was written has left. hyper flushes when its buffer is empty, not before.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    desk: Arc<Desk>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, desk: Arc<Desk>) -> Self {
        Self { socket, desk }
    }

    pub(super) fn into_inner(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.desk.is_writing.store(true, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.desk.is_writing.store(true, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        self.desk.is_writing.store(false, Ordering::Relaxed);
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A stream and who takes it.
#[derive(Debug)]
pub(super) struct EventStream<S> {
    socket: S,
    head: Bytes,
    body: ResBody,
    track: Track,
}

impl<S: AsyncRead + AsyncWrite + Unpin> EventStream<S> {
    pub(super) fn new(socket: S, response: Response<ResBody>, track: Track) -> Self {
        let (head, body) = response.into_parts();
        Self { socket, head: encode_head(&head.headers).into(), body, track }
    }

    /// Writes it to its end, or until the client goes.
    pub(super) async fn write(&mut self) {
        let Self { socket, head, body, track } = self;
        if write_all(socket, head.split_off(0)).await.is_err() {
            return;
        }
        loop {
            let next = tokio::select! {
                biased;
                next = body.next() => next,
                () = gone(socket) => return,
            };
            let frames = match next {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                // Cut short, so that nobody takes it for the end.
                Some(Err(_)) => return,
                None => break,
            };
            // An empty chunk would be the end.
            if !frames.is_empty() && write_chunk(socket, frames, track).await.is_err() {
                return;
            }
        }
        if write_all(socket, b"0\r\n\r\n".as_slice()).await.is_ok() {
            drop(socket.shutdown().await);
        }
    }
}

/// The head, as hyper would write it, but for the connection: nothing comes after the stream.
fn encode_head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    // RFC 9110, section 6.6.1. It cannot fail between the years 0 and 9999.
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()) {
        head.extend_from_slice(format!("date: {date}\r\n").as_bytes());
    }
    head.extend_from_slice(b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    head
}

/// RFC 9112, section 7.1. The frames themselves are not copied: other streams write the same bytes.
async fn write_chunk(socket: &mut (impl AsyncWrite + Unpin), frames: Bytes, track: &Track) -> io::Result<()> {
    let length = frames.len();
    let mut size = [0; 18];
    let mut rest = size.as_mut_slice();
    write!(rest, "{:x}\r\n", frames.len())?;
    let unused = rest.len();
    let size = size.get(..size.len() - unused).unwrap_or_default();
    let mut writing = pin!(write_all(socket, size.chain(frames).chain(b"\r\n".as_slice())));
    // The usual case: the socket takes it at once.
    if let Some(written) = poll_immediate(writing.as_mut()).await {
        return written;
    }
    let _held = track.hold(length);
    // Boxed: a stream is not to be as large as this.
    match Box::pin(track.cut.run_until_cancelled(writing)).await {
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

/// Waits until the client has gone. Whatever else it says is not heard: its next request has another connection.
async fn gone(socket: &mut (impl AsyncRead + Unpin)) {
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
