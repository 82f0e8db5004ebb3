//! `GET …/poll`: long polling, one iteration of the reader's loop with a timeout.

mod params;

use std::time::Duration;

use futures_util::TryFutureExt;
use salvo::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use salvo::http::{Method, StatusCode};
use salvo::oapi::endpoint;
use salvo::{Depot, Request, Response, Writer as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout_at};

pub(super) use self::params::PollParams;
use super::acknowledged::Page;
use super::delivery_record;
use super::reader::{Cursor, EventWithCursor, Reader, StreamItem, record_spans};
use super::request::{acknowledge, merged_cursor, open_ride, track_merged_presence};
use super::state::{AnyStateView, GapView, State};
use crate::deferred;
use crate::domain::{Caller, Error, RideId, RideSnapshot, Seq};
use crate::http::api_error::ApiError;
use crate::http::body::render_with_guard;
use crate::http::context::{Api, ConnectionGuard};
use crate::http::interruption::Interruption;
use crate::http::metrics::Transport;
use crate::http::params::{RidePath, query, seq};
use crate::http::problem::ProblemContext;
use crate::http::schema;
use crate::http::session::{LiveSession, Session};
use crate::realtime::{CloseReason, MergedReader};

/// The largest number of events in a response.
pub(super) const PAGE: usize = 500;

/// How long the rest of a page may take to load from the log.
const FILL_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct EventView<'a> {
    id: String,
    r#type: &'a str,
    data: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PollResponse<'a> {
    events: Vec<EventView<'a>>,
    cursor: String,
    resumed: bool,
    gap: Option<GapView>,
    state: AnyStateView<'a>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<&'a [RideId]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
}

/// The result of a poll.
#[derive(Default)]
pub(super) struct PollResult {
    resumed: bool,
    page: Page,
    /// The gap before the first event of the page.
    gap: Option<GapView>,
    /// The reader's cursor after the gap.
    after_gap: Option<Cursor>,
    closed: bool,
    /// Whether events were left to the next poll because the response was full.
    is_truncated: bool,
    /// The cursor from which the next poll continues, if this one has left events to it.
    next_from: Option<Cursor>,
}

/// Poll a ride's events
///
/// Without `after`, the poll returns the end of the log immediately. With `after`, it returns the events after that cursor: immediately if
/// there are any, otherwise as soon as one is committed. After `wait` seconds it returns no events and a cursor that may have advanced. If
/// the types include `message:new`, `after` acknowledges delivery of others' messages up to there. The caller's own `message:delivered`
/// that reports only this does not end the wait.
#[endpoint(tags("live"), operation_id = "pollRide",
    parameters(
        ("after" = Option<i64>, Query, minimum = 0, description = "Continue after this cursor: the `cursor` of the last response, or of the message history."),
        ("wait" = Option<u16>, Query, minimum = 0, maximum = 55, description = "Seconds to wait for an event: 0 to 55, default 25."),
        ("Prefer" = Option<String>, Header, example = json!("wait=10"), description = "The same (borrowed from RFC 7240), if `wait` is absent."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Return only these event types: a comma-separated list. `*` at the end matches a prefix.")),
    responses(
        (status_code = 200, description = "Events, cursor and state", body = schema::Poll),
        (status_code = 404, description = "`ride_not_found`, also if the ticket is for another ride")))]
pub(in crate::http) async fn poll_ride(
    session: LiveSession,
    ride: RidePath,
    req: &mut Request,
    depot: &mut Depot,
    res: &mut Response,
) -> Result<(), ApiError> {
    let RidePath(ride) = ride;
    let Session { caller, api, .. } = session.for_ride(&ride)?;
    let after = seq("after", query(req, "after"))?;
    let mut params = PollParams::parse(req, res, &api, &caller)?;
    let admitted = api.admit_poll(&caller)?;
    let (mut reader, opened) = open_ride(&api, &caller, ride, after).await?;
    if req.method() == Method::HEAD {
        head(res);
        return Ok(());
    }
    if !opened.is_closed
        && let Some(up_to) = acknowledge(&api, &caller, &opened.snapshot, &params.filter, after)
    {
        params.acknowledged.note(&opened.snapshot, up_to);
    }
    let presence =
        (api.track_presence(&reader, params.presence_ttl), api.track_driver_presence(&caller, params.presence_ttl));
    let mut result = PollResult::of(opened.resumed, opened.gap.map(|gap| (gap.into(), Cursor::Seq(gap.to))));
    result.closed = opened.is_closed;
    let mut cursor = opened.cursor;
    result.closed |= opened.gap.is_some() && has_ended(&opened.snapshot, &caller, cursor);
    // If the cursor is absent or past the log's end, the response contains only the state.
    let waits = (opened.resumed || result.gap.is_some()) && !result.closed;
    // A poll that waits needs a newer state anyway.
    let snapshot = (!waits).then(|| Box::new(opened.snapshot));
    respond_later(res, ProblemContext::of(req, depot), async move {
        let _presence = presence;
        let snapshot = match snapshot {
            Some(snapshot) => snapshot,
            None => {
                result.collect(&mut reader, &api, &params).await?;
                // The cursor after the returned events, not the one to which the filter has advanced.
                cursor = match result.next_from {
                    Some(Cursor::Seq(seq)) => seq,
                    _ => cursor.max(reader.cursor()),
                };
                let snapshot = Box::pin(reader.snapshot()).await?;
                result.closed |= has_ended(&snapshot, &caller, cursor);
                Box::new(snapshot)
            }
        };
        result.respond((&api, &caller, admitted), &reader, &cursor, &State::Ride(snapshot))
    });
    Ok(())
}

/// Poll all my events
///
/// One poll for the caller's rides (at most 64: rides that have not ended first, then the newest) and for the events of the user topic:
/// `ride:assigned`, `ride:closed`, `ride:reopened`, `notice`. Rides that are left out are named in `omitted`. They are included when
/// there is room, from where the cursor left them. The cursor is opaque and covers all rides.
#[endpoint(tags("live"), operation_id = "pollAll",
    parameters(
        ("after" = Option<String>, Query, max_length = 4096, description = "Continue after this cursor: the `cursor` of the last response. 0 is the whole retained log."),
        ("wait" = Option<u16>, Query, minimum = 0, maximum = 55, description = "Seconds to wait for an event: 0 to 55, default 25."),
        ("Prefer" = Option<String>, Header, example = json!("wait=10"), description = "The same (borrowed from RFC 7240), if `wait` is absent."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:*"), description = "Return only these event types: a comma-separated list. `*` at the end matches a prefix.")),
    responses(
        (status_code = 200, description = "Events, cursor and state", body = schema::PollAll),
        (status_code = 403, description = "`forbidden`: the ticket is for one ride")))]
pub(in crate::http) async fn poll_all(
    session: LiveSession,
    req: &mut Request,
    depot: &mut Depot,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Session { caller, api, .. } = session.for_all()?;
    let after = merged_cursor("after", query(req, "after"), &caller)?;
    let has_cursor = after.is_some();
    let mut params = PollParams::parse(req, res, &api, &caller)?;
    let admitted = api.admit_poll(&caller)?;
    if req.method() == Method::HEAD {
        head(res);
        return Ok(());
    }
    let presence = api.track_driver_presence(&caller, params.presence_ttl);
    let track_presence = track_merged_presence(&api, params.presence_ttl);
    let (mut merged, opened) = MergedReader::open(api.read_context(&caller), after, track_presence).await?;
    for (snapshot, seq) in &opened.rides {
        if let Some(up_to) = acknowledge(&api, &caller, snapshot, &params.filter, *seq) {
            params.acknowledged.note(snapshot, up_to);
        }
    }
    let gap = opened.gap.map(|(topic, gap)| (GapView::of(&topic, gap), Cursor::Merged(merged.cursor())));
    let mut result = PollResult::of(opened.resumed, gap);
    let waits = has_cursor && (opened.resumed || result.gap.is_some());
    let state = (!waits).then(|| {
        let rides = opened.rides.into_iter().map(|(snapshot, _)| snapshot).collect();
        State::All { rides, drivers: opened.drivers, omitted: merged.omitted().to_vec() }
    });
    respond_later(res, ProblemContext::of(req, depot), async move {
        let _presence = presence;
        let state = match state {
            Some(state) => state,
            None => {
                result.collect(&mut merged, &api, &params).await?;
                Box::pin(merged.state()).await?
            }
        };
        let cursor = result.next_from().unwrap_or_else(|| Cursor::Merged(merged.cursor()));
        result.respond((&api, &caller, admitted), &merged, &cursor, &state)
    });
    Ok(())
}

/// Responds when the result of a poll is complete. The connection may wait for it without hyper ([`deferred`]).
pub(super) fn respond_later(
    res: &mut Response,
    problems: ProblemContext,
    result: impl Future<Output = Result<Response, ApiError>> + Send + 'static,
) {
    // Combinators, because an async block would hold `result` twice: before and while it is awaited.
    let or_problem = result.unwrap_or_else(move |error| {
        let mut res = Response::new();
        problems.write(error, &mut res);
        res
    });
    deferred::defer(res, or_problem);
}

/// Returns whether a reader has received all events that it may see: its access has ended, or the ride is closed.
fn has_ended(snapshot: &RideSnapshot, caller: &Caller, cursor: Seq) -> bool {
    let end = snapshot.left_at(caller).or_else(|| snapshot.ride.closed_at.map(|_| snapshot.head));
    end.is_some_and(|end| cursor >= end)
}

impl PollResult {
    /// Creates a result without events.
    pub(super) fn of(resumed: bool, gap: Option<(GapView, Cursor)>) -> Self {
        let (gap, after_gap) = gap.unzip();
        Self { resumed, gap, after_gap, ..Self::default() }
    }

    /// Returns the cursor from which the next poll continues, if this one has left events to it.
    pub(super) fn next_from(&mut self) -> Option<Cursor> {
        self.next_from.take()
    }

    /// Waits for the first event that ends the wait, and takes the other available events too. If the login is revoked or its key is
    /// withdrawn meanwhile, it returns an error: the caller may not even see the state then.
    pub(super) async fn collect(
        &mut self,
        reader: &mut impl Reader,
        api: &Api,
        params: &PollParams,
    ) -> Result<(), ApiError> {
        let is_ongoing = reader.source_is_ongoing();
        tokio::select! {
            interrupted = until_interrupted(api, &params.caller, is_ongoing) => interrupted?,
            () = self.collect_until(reader, params) => {}
        }
        if self.gap.is_none() && !self.closed && !self.is_truncated {
            self.next_from = self.page.defer();
        }
        if let Some(cursor) = self.page.truncate() {
            (self.next_from, self.is_truncated) = (Some(cursor), true);
        }
        Ok(())
    }

    async fn collect_until<R: Reader>(&mut self, reader: &mut R, params: &PollParams) {
        // A gap is returned immediately, with the events after it that are available.
        let mut deadline = if self.gap.is_some() { Instant::now() } else { params.deadline };
        if reader.is_behind() {
            // Available events may have to be loaded first.
            deadline = deadline.max(Instant::now() + FILL_TIMEOUT);
        }
        loop {
            if self.gap.is_some() && !reader.is_behind() {
                return;
            }
            let room = params.limit - self.page.events.len();
            self.page.note_cursor(|| reader.cursor());
            let item = tokio::select! {
                biased;
                item = reader.next(room) => item,
                () = sleep_until(deadline) => return,
            };
            match item {
                StreamItem::Events(events) => {
                    for event in events {
                        let passes = params.filter.passes(event.event.kind);
                        self.page.push(event, passes, &params.acknowledged);
                    }
                }
                // The response contains the current state instead.
                StreamItem::Updates(_) | StreamItem::OmittedRidesChanged => {}
                StreamItem::Gap(gap, after_gap) => {
                    // A response has one gap, before all of its events. A later gap is left to the next poll.
                    let before = self.page.events.last().map(|last| last.cursor.clone()).or(self.after_gap.take());
                    if before.is_some() {
                        (self.next_from, self.is_truncated) = (before, true);
                        return;
                    }
                    (self.gap, self.after_gap) = (Some(gap), Some(after_gap));
                    deadline = Instant::now() + FILL_TIMEOUT;
                }
                StreamItem::Closed(reason) => {
                    // After a reset, the ride is not closed: the next poll reads the new log.
                    self.closed = reason != CloseReason::Reset;
                    return;
                }
            }
            let is_full = self.page.is_full() || self.page.events.len() + R::MIN_LIMIT > params.limit;
            if self.page.ends_wait() || is_full {
                if is_full || !reader.is_behind() {
                    return;
                }
                deadline = deadline.max(Instant::now() + FILL_TIMEOUT);
            }
        }
    }

    pub(super) fn respond(
        &self,
        (api, caller, admitted): (&Api, &Caller, ConnectionGuard),
        reader: &impl Reader,
        cursor: &impl ToString,
        state: &State,
    ) -> Result<Response, ApiError> {
        api.require_memory()?;
        record_spans(&self.page.events, api, Transport::Poll);
        delivery_record::record(&self.page.events, reader, caller, api, Transport::Poll);
        let response = PollResponse {
            events: self.page.events.iter().map(view).collect::<Result<_, _>>()?,
            cursor: cursor.to_string(),
            resumed: self.resumed && self.gap.is_none(),
            gap: self.gap.clone(),
            state: state.view(api, caller),
            has_more: self.is_truncated || !self.closed && reader.is_behind(),
            omitted: state.omitted(),
            closed: self.closed,
        };
        let mut res = Response::new();
        res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // The connection guard is held until the client has received the response.
        render_with_guard(&response, admitted, &mut res)?;
        Ok(res)
    }
}

/// Waits until a poll must end early. Returns an error if the token is rejected.
async fn until_interrupted(api: &Api, caller: &Caller, is_ongoing: bool) -> Result<(), ApiError> {
    let interruption = match api.interruptions.wait(caller, false).await {
        Interruption::Draining => {
            let deadline = api.admission.drain_deadline(is_ongoing);
            // Boxed, because a drain is rare and short.
            let waiting = Box::pin(timeout_at(deadline, api.interruptions.wait(caller, true)));
            waiting.await.unwrap_or(Interruption::Stopping)
        }
        interruption => interruption,
    };
    match interruption {
        Interruption::Rejected(error) => Err(ApiError::Unauthorized(Some(error))),
        Interruption::Stopping | Interruption::Draining => Ok(()),
    }
}

/// Writes the headers of a response to HEAD. HEAD does not wait and has no effects (RFC 9110, section 9.2.1).
pub(super) fn head(res: &mut Response) {
    res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    res.status_code(StatusCode::OK);
}

fn view(event: &EventWithCursor) -> Result<EventView<'_>, Error> {
    let data = serde_json::from_str(event.event.data()).map_err(|_| Error::Internal)?;
    Ok(EventView { id: event.cursor.to_string(), r#type: event.event.kind.as_str(), data })
}
