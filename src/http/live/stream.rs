//! An open event stream (HTML standard, section 9.2), of whatever it follows.
//!
//! The body is a stream that is asked for its next bytes when the socket has room, and only then asks its reader for
//! the next events: a slow client holds one page of the log and nothing else.

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

use super::handed;
use super::reader::{Cursor, Handed, Reader, Turn, trace};
use super::state::{GapView, ReasonView, State, SyncView};
use crate::auth::TokenError;
use crate::domain::{Caller, Filter, Time};
use crate::http::context::{Api, Open};
use crate::http::metrics::Transport;
use crate::realtime::{Attending, Closed, Value};

/// The most events handed out at once.
const PAGE: usize = 100;

/// After how long a client that was cut off comes back, in milliseconds: jittered, so that not all come at once.
const RETRY_MS: std::ops::Range<u64> = 1_000..3_000;

/// After how long a client comes back that a server which stops has sent away, in milliseconds.
const RETURN_MS: u64 = 1_000;

/// A comment (a line that begins with a colon), which clients ignore: it shows that the stream lives, to both
/// ends and to every proxy between.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Where a stream begins: what its first frame says.
pub(super) struct Beginning {
    pub(super) cursor: Cursor,
    pub(super) resumed: bool,
    pub(super) gap: Option<GapView>,
    pub(super) state: State,
}

/// How a stream is to be.
pub(super) struct Terms {
    pub(super) filter: Filter,
    pub(super) heartbeat: Duration,
    /// Whose login it is opened with, and ends with.
    pub(super) caller: Caller,
}

/// A stream that may be had later: 200, when to come back, and the end.
pub(super) fn come_back_later(res: &mut Response) {
    event_stream_headers(res);
    res.body(Bytes::from(retry_line() + "\n"));
}

fn retry_line() -> String {
    format!("retry: {}\n", fastrand::u64(RETRY_MS))
}

/// The head of an event stream.
pub(super) fn event_stream_headers(res: &mut Response) {
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

/// One open stream.
pub(super) struct EventStream<R> {
    reader: R,
    api: Arc<Api>,
    filter: Filter,
    heartbeat: Duration,
    ends_at: Instant,
    /// The last id that the client has been told.
    told: Cursor,
    /// As long as the stream is open, it counts, and its reader is there: on the ride, and among the drivers.
    _held: Held,
    /// When it leaves a server that drains.
    leaves_at: Option<Instant>,
    /// When the client will have heard nothing for long enough.
    silent_at: Instant,
}

/// What an open stream holds on to.
type Held = (Open, [Option<Attending>; 2]);

/// What woke a stream.
enum Wake {
    Turn(Turn),
    Silence,
    Early,
    Draining,
    Expired,
    Rejected(TokenError),
    Stopping,
}

impl<R: Reader> EventStream<R> {
    /// Answers with a stream.
    pub(super) fn open(reader: R, api: Arc<Api>, terms: Terms, held: Held, beginning: Beginning, res: &mut Response) {
        let stream = Self {
            reader,
            api,
            filter: terms.filter,
            heartbeat: terms.heartbeat,
            ends_at: Instant::now() + terms.caller.expires_at.since(Time::now()),
            told: beginning.cursor.clone(),
            _held: held,
            leaves_at: None,
            silent_at: Instant::now() + terms.heartbeat,
        };
        event_stream_headers(res);
        res.body(ResBody::stream(stream.run(terms.caller, beginning)));
    }

    fn run(
        mut self,
        caller: Caller,
        beginning: Beginning,
    ) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static {
        stream! {
            let opening = self.sync(&caller, beginning);
            // A comment at once, so that the client sees an open stream; and with the sync, in one write.
            yield Ok(Bytes::from([":\n\n", &retry_line(), &opening].concat()));
            drop(opening);
            // What ends a stream, or breaks its silence, is waited for from here to its end. To begin and to end these waits
            // with each frame, in lists that all streams share, costs as much as the frame.
            let api = Arc::clone(&self.api);
            let mut stopping = pin!(api.stopping.cancelled());
            let mut draining = pin!(api.admission.drains());
            let mut rejected = pin!(api.rejected(&caller));
            let mut alarm = pin!(sleep_until(self.due_at()));
            loop {
                let wake = tokio::select! {
                    biased;
                    () = stopping.as_mut() => Wake::Stopping,
                    () = draining.as_mut(), if self.leaves_at.is_none() => Wake::Draining,
                    () = alarm.as_mut() => self.alarmed(),
                    error = rejected.as_mut() => Wake::Rejected(error),
                    turn = self.reader.next(PAGE) => Wake::Turn(turn),
                };
                match wake {
                    Wake::Turn(Turn::Events(events)) => {
                        // Events that the filter holds back break no silence.
                        if let Some(frames) = self.frames(events, &caller) {
                            self.silent_at = Instant::now() + self.heartbeat;
                            yield Ok(frames);
                        }
                    }
                    Wake::Turn(Turn::Values(values)) => {
                        if let Some(frames) = self.values(&values) {
                            self.silent_at = Instant::now() + self.heartbeat;
                            yield Ok(frames);
                        }
                    }
                    Wake::Turn(Turn::Gap(gap, cursor)) => {
                        // Where the state cannot be had, the client comes back with its last id, and is told then.
                        let Ok(state) = Box::pin(self.reader.state()).await else { break };
                        yield Ok(self.sync(&caller, Beginning { cursor, resumed: false, gap: Some(gap), state }).into());
                    }
                    Wake::Turn(Turn::Omitted) => {
                        let Ok(state) = Box::pin(self.reader.state()).await else { break };
                        let cursor = self.reader.cursor();
                        yield Ok(self.sync(&caller, Beginning { cursor, resumed: true, gap: None, state }).into());
                    }
                    Wake::Turn(Turn::Closed(closed)) => {
                        yield Ok(closing(closed).into());
                        break;
                    }
                    Wake::Draining => {
                        self.leaves_at = Some(api.admission.leaves_at(self.reader.is_going_on()).await);
                        alarm.as_mut().reset(self.due_at());
                    }
                    // It has been heard since the alarm was set.
                    Wake::Early => alarm.as_mut().reset(self.due_at()),
                    Wake::Silence => {
                        self.silent_at = Instant::now() + self.heartbeat;
                        alarm.as_mut().reset(self.due_at());
                        yield Ok(Box::pin(self.break_silence(&caller)).await);
                    }
                    Wake::Expired => {
                        yield Ok(own_frame("auth:expired", None, &ReasonView { reason: "token_expired" }).into());
                        break;
                    }
                    Wake::Rejected(error) => {
                        yield Ok(own_frame("auth:expired", None, &ReasonView { reason: error.code() }).into());
                        break;
                    }
                    Wake::Stopping => {
                        let closing = own_frame("stream:closing", None, &ReasonView { reason: "shutdown" });
                        // Each leaves at a moment of its own, so all may come back after the same time.
                        yield Ok([format!("retry: {RETURN_MS}\n"), closing].concat().into());
                        break;
                    }
                }
            }
        }
    }

    /// When something is due though nobody has said anything.
    fn due_at(&self) -> Instant {
        let leaves_at = self.leaves_at.unwrap_or(self.ends_at);
        self.silent_at.min(self.ends_at).min(leaves_at)
    }

    /// What is due now.
    fn alarmed(&self) -> Wake {
        let now = Instant::now();
        if now >= self.ends_at {
            Wake::Expired
        } else if self.leaves_at.is_some_and(|at| now >= at) {
            Wake::Stopping
        } else if now >= self.silent_at {
            Wake::Silence
        } else {
            Wake::Early
        }
    }

    /// The frames of those events that pass the filter, in one piece.
    fn frames(&mut self, mut events: Vec<Handed>, caller: &Caller) -> Option<Bytes> {
        events.retain(|handed| self.filter.passes(handed.event.kind));
        let last = events.last()?;
        self.told = last.cursor.clone();
        trace(&events, &self.api, Transport::Stream);
        handed::record(&events, &self.reader, caller, &self.api, Transport::Stream);
        self.api.metrics.handed_out.observe(last.event.arrived.elapsed().as_secs_f64());
        match events.as_slice() {
            // The usual case.
            [one] => Some(one.frame()),
            many => {
                let mut joined = BytesMut::new();
                many.iter().for_each(|handed| joined.extend_from_slice(&handed.frame()));
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
    async fn break_silence(&mut self, caller: &Caller) -> Bytes {
        let cursor = self.reader.cursor();
        if cursor == self.told {
            return COMMENT;
        }
        match self.reader.state().await {
            Ok(state) => self.sync(caller, Beginning { cursor, resumed: true, gap: None, state }).into(),
            Err(_) => COMMENT,
        }
    }

    fn sync(&mut self, caller: &Caller, Beginning { cursor, resumed, gap, state }: Beginning) -> String {
        self.told = cursor;
        let cursor = self.told.to_string();
        let omitted = state.omitted();
        let state = state.view(&self.api, caller);
        own_frame("stream:sync", Some(&cursor), &SyncView { cursor: &cursor, resumed, gap, state, omitted })
    }
}

/// How a stream ends by itself.
fn closing(closed: Closed) -> String {
    let reason = match closed {
        Closed::RideOver => "ride_over",
        Closed::Removed => "removed",
        Closed::Reset => "reset",
    };
    own_frame("stream:closing", None, &ReasonView { reason })
}
