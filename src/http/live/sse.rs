//! Server-Sent Events (HTML standard, section 9.2).
//!
//! The body is a stream that is asked for its next bytes when the socket has room, and only then asks the
//! subscription for its next events: a slow client holds one page of the log and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use salvo::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use salvo::http::{ResBody, StatusCode};
use salvo::oapi::endpoint;
use salvo::{Request, Response, Writer as _};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::request::{acknowledge, cursor, filter, last_event_id};
use super::state::{ReasonView, StateView, SyncView};
use crate::domain::{Error, Filter, RideSnapshot, Seq, Time};
use crate::http::context::{Limits, LiveSession, Session};
use crate::http::params::{RidePath, number};
use crate::http::refusal::Refusal;
use crate::realtime::{Attending, Closed, Event, Follow, Gap, Hub, Next, Opened, Value};

/// The most events handed out at once.
const PAGE: usize = 100;

/// After how long a client that was cut off comes back, in milliseconds: jittered, so that not all come at once.
const RETRY_MS: std::ops::Range<u64> = 1_000..3_000;

/// A comment (a line that begins with a colon), which clients ignore: it shows that the stream lives, to both
/// ends and to every proxy between.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Follow a ride as a stream
///
/// The first event is `stream:sync`: the position, whether the given one was honoured, what the log no longer has,
/// and the ride as it is. Then what lies past the position, then what happens.
#[endpoint(tags("live"), operation_id = "streamRide",
    parameters(
        ("after" = Option<i64>, Query, minimum = 0, description = "Continue after this position; without one the stream begins now; 0 is the whole log."),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as an `EventSource` sends it; it wins."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Only these types of events: a comma list, `*` at the end matches a prefix. `stream:*` always passes."),
        ("heartbeat" = Option<u16>, Query, minimum = 5, maximum = 60, description = "After how many seconds of silence a comment is sent.")),
    responses(
        (status_code = 200, description = "Events", content_type = "text/event-stream", body = String),
        (status_code = 204, description = "The ride is over for good, and there is nothing left to replay: do not come back"),
        (status_code = 404, description = "`ride_not_found`; also where the ticket is for another ride")))]
pub(in crate::http) async fn stream_ride(
    session: LiveSession,
    ride: RidePath,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), Refusal> {
    let RidePath(ride) = ride;
    let Session { caller, api } = session.for_ride(&ride)?;
    let cursor = cursor(req)?;
    let filter = filter(req);
    let heartbeat = number(req, "heartbeat", 5..=60)?.map_or(api.limits.heartbeat, Duration::from_secs);
    let expires_at = caller.expires_at;
    if api.stopping.is_cancelled() {
        come_back_later(res);
        return Ok(());
    }
    let opened = Follow::open(&api.hub, &api.store, caller.clone(), ride.clone(), cursor, api.limits.chat_grace).await;
    let (follow, opened) = match opened.map_err(Refusal::from) {
        Ok(opened) => opened,
        // An `EventSource` that gets anything but 200 never comes back.
        Err(Refusal::Store(error)) if Error::from(&error) == Error::Unavailable => {
            tracing::debug!(%error, "a stream is put off");
            come_back_later(res);
            return Ok(());
        }
        Err(refusal) => return Err(refusal),
    };
    // Only a browser that comes back says by its last id what has reached it; `after` may come from the history.
    if last_event_id(req.headers())?.is_some() {
        acknowledge(&api, &caller, &opened, &filter, cursor);
    }
    if opened.is_over && cursor.is_some() {
        res.status_code(StatusCode::NO_CONTENT);
        return Ok(());
    }
    let attending = api.attend(&follow, &ride, &caller.user, api.limits.presence_grace);
    let stream = RideStream {
        _attending: attending,
        told: opened.cursor,
        follow,
        filter,
        hub: Arc::clone(&api.hub),
        limits: api.limits.clone(),
        heartbeat,
        ends_at: Instant::now() + expires_at.since(Time::now()),
        silent_at: Instant::now() + heartbeat,
    };
    event_stream_headers(res);
    res.body(ResBody::stream(stream.run(opened, api.stopping.clone())));
    Ok(())
}

/// A stream that may be had later: 200, when to come back, and the end.
fn come_back_later(res: &mut Response) {
    event_stream_headers(res);
    res.body(Bytes::from(retry_line() + "\n"));
}

fn retry_line() -> String {
    format!("retry: {}\n", fastrand::u64(RETRY_MS))
}

fn event_stream_headers(res: &mut Response) {
    let headers = res.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold frames back otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

/// A frame of the stream's own; only `stream:sync` has an id.
fn own_frame(kind: &str, id: Option<&str>, data: &impl Serialize) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    format!("{id}event: {kind}\ndata: {data}\n\n")
}

/// One open stream of a ride.
struct RideStream {
    follow: Follow,
    filter: Filter,
    hub: Arc<Hub>,
    limits: Limits,
    heartbeat: Duration,
    /// The token's end.
    ends_at: Instant,
    /// The last id that the client has been told.
    told: Seq,
    /// As long as the stream is open, its reader is there.
    _attending: Option<Attending>,
    /// When the client will have heard nothing for long enough.
    silent_at: Instant,
}

/// What woke a stream.
enum Wake {
    Next(Next),
    Silence,
    Expired,
    Stopping,
}

impl RideStream {
    fn run(
        mut self,
        opened: Opened,
        stopping: CancellationToken,
    ) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static {
        stream! {
            let opening = self.sync(opened.cursor, opened.resumed, opened.gap, &opened.snapshot);
            drop(opened);
            // A comment at once, so that the client sees an open stream; and with the sync, in one write.
            yield Ok(Bytes::from([":\n\n", &retry_line(), &opening].concat()));
            loop {
                match self.wake(&stopping).await {
                    Wake::Next(Next::Events(events)) => {
                        // Events that the filter holds back break no silence.
                        if let Some(frames) = self.frames(&events) {
                            self.silent_at = Instant::now() + self.heartbeat;
                            yield Ok(frames);
                        }
                    }
                    Wake::Next(Next::Values(values)) => {
                        if let Some(frames) = self.values(&values) {
                            self.silent_at = Instant::now() + self.heartbeat;
                            yield Ok(frames);
                        }
                    }
                    Wake::Next(Next::Gap(gap)) => {
                        if let Ok(snapshot) = self.follow.snapshot().await {
                            yield Ok(self.sync(gap.to, false, Some(gap), &snapshot).into());
                        } else {
                            // The client comes back with its last id, and is told of the gap then.
                            break;
                        }
                    }
                    Wake::Next(Next::Closed(closed)) => {
                        yield Ok(closing(closed).into());
                        break;
                    }
                    Wake::Silence => {
                        self.silent_at = Instant::now() + self.heartbeat;
                        yield Ok(self.break_silence().await);
                    }
                    Wake::Expired => {
                        yield Ok(own_frame("auth:expired", None, &ReasonView { reason: "token_expired" }).into());
                        break;
                    }
                    Wake::Stopping => {
                        let closing = own_frame("stream:closing", None, &ReasonView { reason: "shutdown" });
                        yield Ok([retry_line(), closing].concat().into());
                        break;
                    }
                }
            }
        }
    }

    async fn wake(&mut self, stopping: &CancellationToken) -> Wake {
        tokio::select! {
            biased;
            () = stopping.cancelled() => Wake::Stopping,
            () = sleep_until(self.silent_at.min(self.ends_at)) => {
                if Instant::now() >= self.ends_at { Wake::Expired } else { Wake::Silence }
            }
            next = self.follow.next(PAGE) => Wake::Next(next),
        }
    }

    /// The frames of those events that pass the filter, in one piece.
    fn frames(&mut self, events: &[Event]) -> Option<Bytes> {
        let mut passing = events.iter().filter(|event| self.filter.passes(event.kind));
        let first = passing.next()?;
        let mut frames = vec![first];
        frames.extend(passing);
        self.told = frames.last().map_or(self.told, |last| last.seq);
        match frames.as_slice() {
            // The usual case: the bytes that all readers share.
            [one] => Some(one.frame().clone()),
            many => {
                let mut joined = BytesMut::with_capacity(many.iter().map(|event| event.frame().len()).sum());
                many.iter().for_each(|event| joined.extend_from_slice(event.frame()));
                Some(joined.freeze())
            }
        }
    }

    /// The frames of those values that pass the filter.
    fn values(&self, values: &[Value]) -> Option<Bytes> {
        let passing = values.iter().filter(|value| self.filter.passes(value.kind));
        let frames: Vec<&[u8]> = passing.map(|value| &*value.frame).collect();
        (!frames.is_empty()).then(|| frames.concat().into())
    }

    /// A comment; or, where the filter has held events back since the last id, the position after them, so that
    /// a client that is cut off does not have to pass them again.
    async fn break_silence(&mut self) -> Bytes {
        let cursor = self.follow.cursor();
        if cursor == self.told {
            return COMMENT;
        }
        match self.follow.snapshot().await {
            Ok(snapshot) => self.sync(cursor, true, None, &snapshot).into(),
            Err(_) => COMMENT,
        }
    }

    fn sync(&mut self, cursor: Seq, resumed: bool, gap: Option<Gap>, snapshot: &RideSnapshot) -> String {
        self.told = cursor;
        let cursor = cursor.to_string();
        let state = StateView::of(snapshot, &self.hub, &self.limits);
        own_frame("stream:sync", Some(&cursor), &SyncView { cursor: cursor.clone(), resumed, gap, state })
    }
}

/// How a stream ends of itself.
fn closing(closed: Closed) -> String {
    let reason = match closed {
        Closed::RideOver => "ride_over",
        Closed::Removed => "removed",
        Closed::Reset => "reset",
    };
    own_frame("stream:closing", None, &ReasonView { reason })
}
