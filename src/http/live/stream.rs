//! An open event stream (HTML standard, section 9.2): of a ride, of all the caller's rides, or of the feed.
//!
//! The response body requests its next bytes only when the socket has room, and only then requests the next events from its reader. So a
//! slow client holds at most one page of 100 events.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use salvo::Response;
use salvo::http::ResBody;
use salvo::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::delivery_record;
use super::reader::{Cursor, EventWithCursor, Reader, StreamItem, record_spans};
use super::state::{GapView, ReasonView, State, SyncView};
use crate::domain::{Caller, Filter, Time};
use crate::http::context::{Api, ConnectionGuard};
use crate::http::interruption::Interruption;
use crate::http::metrics::Transport;
use crate::realtime::{CloseReason, PresenceGuard, StateFrame};

/// The largest number of events that are sent at once.
const PAGE: usize = 100;

/// The reconnect delay of a client that was cut off, in milliseconds; jittered, so that not all clients reconnect at once.
const RETRY_MS: std::ops::Range<u64> = 1_000..3_000;

/// The reconnect delay of a client that was disconnected by a stopping server, in milliseconds.
const SHUTDOWN_RETRY_MS: u64 = 1_000;

/// A comment: a line that begins with a colon. Clients ignore it. It shows both ends and every proxy in between that the stream is alive.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// The content of a stream's first frame.
pub(super) struct StreamStart {
    pub(super) cursor: Cursor,
    pub(super) resumed: bool,
    pub(super) gap: Option<GapView>,
    pub(super) state: State,
}

/// The parameters of a stream.
pub(super) struct StreamParams {
    pub(super) filter: Filter,
    pub(super) heartbeat: Duration,
    /// The user that opens the stream. The stream ends when their token expires.
    pub(super) caller: Caller,
}

/// Responds with 200 and a stream that has only `retry:`. After an error status an `EventSource` would not reconnect, and the stream may
/// succeed later.
pub(super) fn respond_retry_later(res: &mut Response) {
    event_stream_headers(res);
    res.body(Bytes::from(retry_line() + "\n"));
}

fn retry_line() -> String {
    format!("retry: {}\n", fastrand::u64(RETRY_MS))
}

/// Sets the headers of an event stream.
pub(super) fn event_stream_headers(res: &mut Response) {
    let headers = res.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Without this header, nginx buffers frames.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

/// Encodes a stream control event. Only `stream:sync` has an id.
fn control_frame(kind: &str, id: Option<&str>, data: &impl Serialize) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    format!("{id}event: {kind}\ndata: {data}\n\n")
}

/// An open event stream.
pub(super) struct EventStream<R> {
    reader: R,
    api: Arc<Api>,
    filter: Filter,
    heartbeat: Duration,
    ends_at: Instant,
    /// The last cursor that was sent to the client, as an SSE id.
    last_sent: Cursor,
    /// Held while the stream is open: the connection count, and presence on the ride and among the drivers.
    _guards: StreamGuards,
    /// When the stream ends because of the drain; `None` before the drain starts.
    drain_deadline: Option<Instant>,
    /// When the next heartbeat is due, if nothing is sent before.
    heartbeat_at: Instant,
}

/// The guards that an open stream holds.
type StreamGuards = (ConnectionGuard, [Option<PresenceGuard>; 2]);

/// Why a stream has woken up.
enum Wake {
    Item(StreamItem),
    Heartbeat,
    /// The timer has fired before anything is due.
    Early,
    Expired,
    /// The stream's time within the drain has come.
    DrainedOut,
    Interrupted(Interruption),
}

impl<R: Reader> EventStream<R> {
    /// Responds with a stream.
    pub(super) fn open(
        reader: R,
        api: Arc<Api>,
        params: StreamParams,
        guards: StreamGuards,
        start: StreamStart,
        res: &mut Response,
    ) {
        let mut stream = Self {
            reader,
            api,
            filter: params.filter,
            heartbeat: params.heartbeat,
            ends_at: Instant::now() + params.caller.expires_at.since(Time::now()),
            last_sent: start.cursor.clone(),
            _guards: guards,
            drain_deadline: None,
            heartbeat_at: Instant::now() + params.heartbeat,
        };
        event_stream_headers(res);
        let sync = stream.sync(&params.caller, start);
        // The comment is sent immediately, so that the client sees an open stream; in one write with `stream:sync`.
        let first = Bytes::from([":\n\n", &retry_line(), &sync].concat());
        res.body(ResBody::stream(stream.run(params.caller, first)));
    }

    fn run(mut self, caller: Caller, first: Bytes) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static {
        stream! {
            yield Ok(first);
            // These waits last until the stream ends. Starting and dropping them with each frame would cost as much as the frame, because
            // they are in lists that all streams share.
            let api = Arc::clone(&self.api);
            let mut interrupted = pin!(api.interruptions.wait(&caller, false));
            let mut timer = pin!(sleep_until(self.due_at()));
            loop {
                let wake = tokio::select! {
                    biased;
                    interruption = interrupted.as_mut() => Wake::Interrupted(interruption),
                    () = timer.as_mut() => self.due_wake(),
                    item = self.reader.next(PAGE) => Wake::Item(item),
                };
                match wake {
                    Wake::Item(StreamItem::Events(events)) => {
                        // Events that the filter excludes do not reset the heartbeat.
                        if let Some(frames) = self.event_frames(events, &caller) {
                            self.heartbeat_at = Instant::now() + self.heartbeat;
                            yield Ok(frames);
                        }
                    }
                    Wake::Item(StreamItem::Updates(updates)) => {
                        if let Some(frames) = self.update_frames(&updates) {
                            self.heartbeat_at = Instant::now() + self.heartbeat;
                            yield Ok(frames);
                        }
                    }
                    Wake::Item(StreamItem::Gap(gap, cursor)) => {
                        // If the state cannot be loaded, the client reconnects with its last id and receives the gap then.
                        let Ok(state) = Box::pin(self.reader.state()).await else { break };
                        yield Ok(self.sync(&caller, StreamStart { cursor, resumed: false, gap: Some(gap), state }).into());
                    }
                    Wake::Item(StreamItem::OmittedRidesChanged) => {
                        let Ok(state) = Box::pin(self.reader.state()).await else { break };
                        let cursor = self.reader.cursor();
                        yield Ok(self.sync(&caller, StreamStart { cursor, resumed: true, gap: None, state }).into());
                    }
                    Wake::Item(StreamItem::Closed(reason)) => {
                        yield Ok(closing_frame(reason).into());
                        break;
                    }
                    Wake::Interrupted(Interruption::Draining) => {
                        self.drain_deadline = Some(api.admission.drain_deadline(self.reader.source_is_ongoing()));
                        interrupted.set(api.interruptions.wait(&caller, true));
                        timer.as_mut().reset(self.due_at());
                    }
                    // A frame was sent after the timer was set.
                    Wake::Early => timer.as_mut().reset(self.due_at()),
                    Wake::Heartbeat => {
                        self.heartbeat_at = Instant::now() + self.heartbeat;
                        timer.as_mut().reset(self.due_at());
                        yield Ok(Box::pin(self.heartbeat_frame(&caller)).await);
                    }
                    Wake::Expired => {
                        yield Ok(control_frame("auth:expired", None, &ReasonView { reason: "token_expired" }).into());
                        break;
                    }
                    Wake::Interrupted(Interruption::Rejected(error)) => {
                        yield Ok(control_frame("auth:expired", None, &ReasonView { reason: error.code() }).into());
                        break;
                    }
                    Wake::DrainedOut | Wake::Interrupted(Interruption::Stopping) => {
                        let closing = control_frame("stream:closing", None, &ReasonView { reason: "shutdown" });
                        // A drain ends the streams at different times (`http/admission.rs`), so all clients may use the same delay.
                        yield Ok([format!("retry: {SHUTDOWN_RETRY_MS}\n"), closing].concat().into());
                        break;
                    }
                }
            }
        }
    }

    /// Returns when the timer must fire next.
    fn due_at(&self) -> Instant {
        let drain_deadline = self.drain_deadline.unwrap_or(self.ends_at);
        self.heartbeat_at.min(self.ends_at).min(drain_deadline)
    }

    /// Returns what is due now.
    fn due_wake(&self) -> Wake {
        let now = Instant::now();
        if now >= self.ends_at {
            Wake::Expired
        } else if self.drain_deadline.is_some_and(|at| now >= at) {
            Wake::DrainedOut
        } else if now >= self.heartbeat_at {
            Wake::Heartbeat
        } else {
            Wake::Early
        }
    }

    /// Encodes the events that pass the filter into one buffer.
    fn event_frames(&mut self, mut events: Vec<EventWithCursor>, caller: &Caller) -> Option<Bytes> {
        events.retain(|one| self.filter.passes(one.event.kind));
        let last = events.last()?;
        self.last_sent = last.cursor.clone();
        record_spans(&events, &self.api, Transport::Stream);
        delivery_record::record(&events, &self.reader, caller, &self.api, Transport::Stream);
        self.api.metrics.event_delivery.observe(last.event.received_at.elapsed().as_secs_f64());
        match events.as_slice() {
            // The usual case: one event.
            [one] => Some(one.frame()),
            many => {
                let mut joined = BytesMut::new();
                many.iter().for_each(|one| joined.extend_from_slice(&one.frame()));
                Some(joined.freeze())
            }
        }
    }

    /// Encodes the state updates that pass the filter.
    fn update_frames(&self, updates: &[StateFrame]) -> Option<Bytes> {
        let passing = updates.iter().filter(|update| self.filter.passes(update.kind));
        let frames: Vec<&[u8]> = passing.map(|update| &*update.bytes).collect();
        (!frames.is_empty()).then(|| frames.concat().into())
    }

    /// Returns a comment. If the filter has excluded events since the last id, it returns `stream:sync` with the cursor after them instead,
    /// so that the server does not read the excluded events again after a reconnect.
    async fn heartbeat_frame(&mut self, caller: &Caller) -> Bytes {
        let cursor = self.reader.cursor();
        if cursor == self.last_sent {
            return COMMENT;
        }
        match self.reader.state().await {
            Ok(state) => self.sync(caller, StreamStart { cursor, resumed: true, gap: None, state }).into(),
            Err(_) => COMMENT,
        }
    }

    fn sync(&mut self, caller: &Caller, StreamStart { cursor, resumed, gap, state }: StreamStart) -> String {
        self.last_sent = cursor;
        let cursor = self.last_sent.to_string();
        let omitted = state.omitted();
        let state = state.view(&self.api, caller);
        control_frame("stream:sync", Some(&cursor), &SyncView { cursor: &cursor, resumed, gap, state, omitted })
    }
}

/// Encodes the last frame of a stream that its reader has closed.
fn closing_frame(reason: CloseReason) -> String {
    let reason = match reason {
        CloseReason::RideClosed => "ride_over",
        CloseReason::Removed => "removed",
        CloseReason::Reset => "reset",
    };
    control_frame("stream:closing", None, &ReasonView { reason })
}
