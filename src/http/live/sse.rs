//! `GET …/events`: Server-Sent Events.

use std::time::Duration;

use salvo::http::{Method, StatusCode};
use salvo::oapi::endpoint;
use salvo::{Request, Response, Writer as _};

use super::reader::Cursor;
use super::request::{acknowledge, filter, last_event_id, merged_cursor, open_ride, track_merged_presence};
use super::state::{GapView, State};
use super::stream::{EventStream, StreamParams, StreamStart, event_stream_headers, respond_retry_later};
use crate::domain::{Caller, Error};
use crate::http::api_error::ApiError;
use crate::http::context::Api;
use crate::http::params::{RidePath, number, query, seq};
use crate::http::session::{LiveSession, Session};
use crate::realtime::MergedReader;

/// Stream a ride's events
///
/// The first event is `stream:sync`: the cursor, whether the given cursor was resumed, the gap if events have expired, and the state of the
/// ride. The replay of events after the cursor follows, then live events.
#[endpoint(tags("live"), operation_id = "streamRide",
    parameters(
        ("after" = Option<i64>, Query, minimum = 0, description = "Continue after this cursor. Without it, the stream begins now. 0 is the whole log."),
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{0,18}$", description = "The same, as an `EventSource` sends it. It takes precedence."),
        ("lastEventId" = Option<String>, Query, pattern = "^[0-9]{0,18}$", description = "The same, as `EventSource` polyfills send it. The header takes precedence."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Deliver only these event types: a comma-separated list. `*` at the end matches a prefix. `stream:*` always passes."),
        ("heartbeat" = Option<u16>, Query, minimum = 5, maximum = 60, description = "Seconds of silence after which a comment is sent.")),
    responses(
        (status_code = 200, description = "Event stream", content_type = "text/event-stream", body = String),
        (status_code = 204, description = "The ride is closed and all its events were replayed. Do not reconnect"),
        (status_code = 404, description = "`ride_not_found`, also if the ticket is for another ride")))]
pub(in crate::http) async fn stream_ride(
    session: LiveSession,
    ride: RidePath,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), ApiError> {
    let RidePath(ride) = ride;
    let Some(Session { caller, api, .. }) = or_retry_later(session.for_ride(&ride), res)? else { return Ok(()) };
    let after = seq("after", query(req, "after"))?;
    let last_id = last_event_id(req, seq)?;
    let cursor = last_id.or(after);
    let params = stream_params(req, &api, &caller)?;
    let Some(admitted) = api.admit_stream(&caller) else {
        respond_retry_later(res);
        return Ok(());
    };
    let opened = open_ride(&api, &caller, ride, cursor).await;
    let Some((reader, opened)) = or_retry_later(opened, res)? else { return Ok(()) };
    // Not for a cursor past the log's end: `stream:sync` must first report where the log ends.
    if opened.is_closed && opened.resumed {
        res.status_code(StatusCode::NO_CONTENT);
        return Ok(());
    }
    if req.method() == Method::HEAD {
        event_stream_headers(res);
        return Ok(());
    }
    // Only the last id of a browser that reconnects shows what was delivered. `after` may come from the message history.
    if last_id.is_some() && !opened.is_closed {
        acknowledge(&api, &caller, &opened.snapshot, &params.filter, cursor);
    }
    let grace = api.limits.presence_grace;
    let presence = [api.track_presence(&reader, grace), api.track_driver_presence(&caller, grace)];
    let start = StreamStart {
        cursor: Cursor::Seq(opened.cursor),
        resumed: opened.resumed,
        gap: opened.gap.map(GapView::from),
        state: State::Ride(Box::new(opened.snapshot)),
    };
    EventStream::open(reader, api, params, (admitted, presence), start, res);
    Ok(())
}

/// Stream all my events
///
/// One stream for the caller's rides (at most 64: rides that have not ended first, then the newest) and for the events of the user topic:
/// `ride:assigned`, `ride:closed`, `ride:reopened`, `notice`. Rides join and leave the stream as they begin and end. `stream:sync` names
/// the rides that are left out in `omitted`, and is sent again when these change. They join when there is room, from where the stream
/// left them or began. The cursor is opaque and covers all rides.
#[endpoint(tags("live"), operation_id = "streamAll",
    parameters(
        ("after" = Option<String>, Query, max_length = 4096, description = "Continue after this cursor: the last `id`. Without it, the stream begins now. 0 is the whole retained log."),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as an `EventSource` sends it. It takes precedence."),
        ("lastEventId" = Option<String>, Query, max_length = 4096, description = "The same, as `EventSource` polyfills send it. The header takes precedence."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:*"), description = "Deliver only these event types: a comma-separated list. `*` at the end matches a prefix. `stream:*` always passes."),
        ("heartbeat" = Option<u16>, Query, minimum = 5, maximum = 60, description = "Seconds of silence after which a comment is sent.")),
    responses(
        (status_code = 200, description = "Event stream", content_type = "text/event-stream", body = String),
        (status_code = 403, description = "`forbidden`: the ticket is for one ride")))]
pub(in crate::http) async fn stream_all(
    session: LiveSession,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Some(Session { caller, api, .. }) = or_retry_later(session.for_all(), res)? else { return Ok(()) };
    let after = merged_cursor("after", query(req, "after"), &caller)?;
    let last_id = last_event_id(req, |name, text| merged_cursor(name, text, &caller))?;
    let (is_resumed, cursor) = (last_id.is_some(), last_id.or(after));
    let params = stream_params(req, &api, &caller)?;
    let Some(admitted) = api.admit_stream(&caller) else {
        respond_retry_later(res);
        return Ok(());
    };
    if req.method() == Method::HEAD {
        event_stream_headers(res);
        return Ok(());
    }
    let track_presence = track_merged_presence(&api, api.limits.presence_grace);
    let opened = MergedReader::open(api.read_context(&caller), cursor, track_presence).await;
    let Some((merged, opened)) = or_retry_later(opened, res)? else { return Ok(()) };
    if is_resumed {
        for (snapshot, seq) in &opened.rides {
            acknowledge(&api, &caller, snapshot, &params.filter, *seq);
        }
    }
    let start = StreamStart {
        cursor: Cursor::Merged(merged.cursor()),
        resumed: opened.resumed,
        gap: opened.gap.map(|(topic, gap)| GapView::of(&topic, gap)),
        state: State::All {
            rides: opened.rides.into_iter().map(|(ride, _)| ride).collect(),
            drivers: opened.drivers,
            omitted: merged.omitted().to_vec(),
        },
    };
    let presence = [None, api.track_driver_presence(&caller, api.limits.presence_grace)];
    EventStream::open(merged, api, params, (admitted, presence), start, res);
    Ok(())
}

pub(super) fn stream_params(req: &Request, api: &Api, caller: &Caller) -> Result<StreamParams, Error> {
    let heartbeat = number(req, "heartbeat", 5..=60)?.map_or(api.limits.heartbeat, Duration::from_secs);
    Ok(StreamParams { filter: filter(req), heartbeat, caller: caller.clone() })
}

/// Returns the value that a stream needs. If the database or the issuer of keys is unavailable, it responds with 200 and `retry:` and
/// returns `None`: an `EventSource` never reconnects after any other status.
pub(super) fn or_retry_later<T>(
    needed: Result<T, impl Into<ApiError>>,
    res: &mut Response,
) -> Result<Option<T>, ApiError> {
    let error = match needed.map_err(Into::into) {
        Ok(needed) => return Ok(Some(needed)),
        Err(error) => error,
    };
    let is_temporary = match &error {
        ApiError::Domain(error) => *error == Error::Unavailable,
        ApiError::Store(error) => Error::from(error) == Error::Unavailable,
        _ => false,
    };
    if !is_temporary {
        return Err(error);
    }
    tracing::debug!(%error, "stream rejected, client retries later");
    respond_retry_later(res);
    Ok(None)
}
