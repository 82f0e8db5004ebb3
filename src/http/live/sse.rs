//! `GET …/events`: Server-Sent Events.

use std::time::Duration;

use salvo::http::{Method, StatusCode};
use salvo::oapi::endpoint;
use salvo::{Request, Response, Writer as _};

use super::reader::Cursor;
use super::request::{acknowledge, filter, follow_ride, last_event_id, merged_attend, places};
use super::state::{GapView, State};
use super::stream::{Beginning, EventStream, Terms, come_back_later, event_stream_headers};
use crate::domain::{Caller, Error};
use crate::http::context::{Api, LiveSession, Session};
use crate::http::params::{RidePath, number, query, seq};
use crate::http::refusal::Refusal;
use crate::realtime::Merged;

/// Follow a ride as a stream
///
/// The first event is `stream:sync`: the position, whether the given one was honoured, what the log no longer has,
/// and the ride as it is. Then what lies past the position, then what happens.
#[endpoint(tags("live"), operation_id = "streamRide",
    parameters(
        ("after" = Option<i64>, Query, minimum = 0, description = "Continue after this position; without one the stream begins now; 0 is the whole log."),
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{0,18}$", description = "The same, as an `EventSource` sends it; it takes precedence."),
        ("lastEventId" = Option<String>, Query, pattern = "^[0-9]{0,18}$", description = "The same, as polyfills of `EventSource` send it; the header takes precedence."),
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
    let Some(Session { caller, api, .. }) = or_later(session.for_ride(&ride), res)? else { return Ok(()) };
    let after = seq("after", query(req, "after"))?;
    let last_id = last_event_id(req, seq)?;
    let cursor = last_id.or(after);
    let terms = terms(req, &api, &caller)?;
    let Some(admitted) = api.admit_stream(&caller) else {
        come_back_later(res);
        return Ok(());
    };
    let opened = follow_ride(&api, &caller, ride, cursor).await;
    let Some((follow, opened)) = or_later(opened, res)? else { return Ok(()) };
    // Not one that lies past the log's end, whose reader has yet to be told where that is.
    if opened.is_over && opened.resumed {
        res.status_code(StatusCode::NO_CONTENT);
        return Ok(());
    }
    if req.method() == Method::HEAD {
        event_stream_headers(res);
        return Ok(());
    }
    // Only a browser that comes back says by its last id what has reached it; `after` may come from the history.
    if last_id.is_some() && !opened.is_over {
        acknowledge(&api, &caller, &opened.snapshot, &terms.filter, cursor);
    }
    let grace = api.limits.presence_grace;
    let attending = [api.attend(&follow, grace), api.attend_as_driver(&caller, grace)];
    let beginning = Beginning {
        cursor: Cursor::Seq(opened.cursor),
        resumed: opened.resumed,
        gap: opened.gap.map(GapView::from),
        state: State::Ride(Box::new(opened.snapshot)),
    };
    EventStream::open(follow, api, terms, (admitted, attending), beginning, res);
    Ok(())
}

/// Follow everything of one's own as a stream
///
/// One stream for the caller's rides (at most 64: rides that have not ended first, then the newest) and for what is told to
/// them alone: `ride:assigned`, `ride:closed`, `ride:reopened`, `notice`. Rides join and leave it as they begin and end. `stream:sync` names
/// rides that are left out in `omitted`, and comes again when those change; they join when there is room, from where the
/// stream left or began. The cursor is opaque and covers all of them.
#[endpoint(tags("live"), operation_id = "streamAll",
    parameters(
        ("after" = Option<String>, Query, max_length = 4096, description = "Continue after this position: the last `id`; without one the stream begins now; 0 is all that the log has."),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as an `EventSource` sends it; it takes precedence."),
        ("lastEventId" = Option<String>, Query, max_length = 4096, description = "The same, as polyfills of `EventSource` send it; the header takes precedence."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:*"), description = "Only these types of events: a comma list, `*` at the end matches a prefix. `stream:*` always passes."),
        ("heartbeat" = Option<u16>, Query, minimum = 5, maximum = 60, description = "After how many seconds of silence a comment is sent.")),
    responses(
        (status_code = 200, description = "Events", content_type = "text/event-stream", body = String),
        (status_code = 403, description = "`forbidden`: the ticket is for one ride")))]
pub(in crate::http) async fn stream_all(
    session: LiveSession,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Some(Session { caller, api, .. }) = or_later(session.for_all(), res)? else { return Ok(()) };
    let after = places("after", query(req, "after"), &caller)?;
    let last_id = last_event_id(req, |name, text| places(name, text, &caller))?;
    let (is_resumed, cursor) = (last_id.is_some(), last_id.or(after));
    let terms = terms(req, &api, &caller)?;
    let Some(admitted) = api.admit_stream(&caller) else {
        come_back_later(res);
        return Ok(());
    };
    if req.method() == Method::HEAD {
        event_stream_headers(res);
        return Ok(());
    }
    let attend = merged_attend(&api, api.limits.presence_grace);
    let opened = Merged::open(api.reader(&caller), cursor, attend).await;
    let Some((merged, opened)) = or_later(opened, res)? else { return Ok(()) };
    if is_resumed {
        for (snapshot, place) in &opened.rides {
            acknowledge(&api, &caller, snapshot, &terms.filter, *place);
        }
    }
    let beginning = Beginning {
        cursor: Cursor::Places(merged.cursor()),
        resumed: opened.resumed,
        gap: opened.gap.map(|(topic, gap)| GapView::of(&topic, gap)),
        state: State::All {
            rides: opened.rides.into_iter().map(|(ride, _)| ride).collect(),
            drivers: opened.drivers,
            omitted: merged.omitted().to_vec(),
        },
    };
    let attending = [None, api.attend_as_driver(&caller, api.limits.presence_grace)];
    EventStream::open(merged, api, terms, (admitted, attending), beginning, res);
    Ok(())
}

pub(super) fn terms(req: &Request, api: &Api, caller: &Caller) -> Result<Terms, Error> {
    let heartbeat = number(req, "heartbeat", 5..=60)?.map_or(api.limits.heartbeat, Duration::from_secs);
    Ok(Terms { filter: filter(req), heartbeat, caller: caller.clone() })
}

/// What a stream needs; `None` where it is put off until the database, or the issuer of keys, is back, which has been
/// answered: an `EventSource` that gets anything but 200 never comes back.
pub(super) fn or_later<T>(needed: Result<T, impl Into<Refusal>>, res: &mut Response) -> Result<Option<T>, Refusal> {
    let refusal = match needed.map_err(Into::into) {
        Ok(needed) => return Ok(Some(needed)),
        Err(refusal) => refusal,
    };
    let is_for_now = match &refusal {
        Refusal::Domain(error) => *error == Error::Unavailable,
        Refusal::Store(error) => Error::from(error) == Error::Unavailable,
        _ => false,
    };
    if !is_for_now {
        return Err(refusal);
    }
    tracing::debug!(error = %refusal, "a stream is put off");
    come_back_later(res);
    Ok(None)
}
