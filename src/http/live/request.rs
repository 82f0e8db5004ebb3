//! What a stream or poll is asked to do.

use std::sync::Arc;
use std::time::Duration;

use salvo::Request;
use salvo::http::header::HeaderName;

use crate::domain::{Caller, Error, EventType, Filter, RideId, RideSnapshot, Seq};
use crate::http::context::Api;
use crate::http::params::query;
use crate::realtime::{Attend, Follow, OpenError, Opened, Places};
use crate::writer::CloseRide;

/// Where a browser's stream was cut.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Begins to follow a ride. One whose chat window has passed for everyone is closed first, if nobody has done that yet: whether
/// anything more will come is decided by that alone.
pub(super) async fn follow_ride(
    api: &Api,
    caller: &Caller,
    ride: RideId,
    cursor: Option<Seq>,
) -> Result<(Follow, Opened), OpenError> {
    let reader = Arc::new(api.reader(caller));
    let (follow, opened) = Follow::open(Arc::clone(&reader), ride.clone(), cursor).await?;
    if !opened.is_to_be_closed {
        return Ok((follow, opened));
    }
    match api.writer.submit(CloseRide { ride: ride.clone() }).await {
        Ok(()) => Follow::open(reader, ride, cursor).await,
        // Then somebody else will; until then it is followed as any.
        Err(_) => Ok((follow, opened)),
    }
}

/// Takes a cursor for what it says: that others' messages up to there have reached the caller. Not where the caller
/// does not take messages, and not where the cursor is from another life of the log. Returns up to where, if at all.
pub(super) fn acknowledge(
    api: &Api,
    caller: &Caller,
    snapshot: &RideSnapshot,
    filter: &Filter,
    cursor: Option<Seq>,
) -> Option<Seq> {
    let up_to = cursor.filter(|cursor| *cursor <= snapshot.head && filter.passes(EventType::MessageNew))?;
    api.acknowledger.delivered(caller, snapshot, up_to);
    Some(up_to)
}

/// What a reader of everything attends: each ride that they are on, and for `grace` after.
pub(super) fn merged_attend(api: &Arc<Api>, grace: Duration) -> Attend {
    let api = Arc::clone(api);
    Box::new(move |follow| api.attend(follow, grace))
}

/// The `types` parameter.
pub(super) fn filter(req: &Request) -> Filter {
    query(req, "types").map(Filter::parse).unwrap_or_default()
}

/// A position on everything of the caller's, if one was given.
pub(super) fn places(name: &str, text: Option<&str>, caller: &Caller) -> Result<Option<Places>, Error> {
    let parse = |text| Places::parse(text, &caller.user).map_err(|detail| Error::invalid(name, detail));
    text.map(parse).transpose()
}

/// The last id that a browser has received, as `parse` reads it. It takes precedence over `?after=`, since a browser that
/// reconnects repeats its old URL. An empty one is none (HTML standard, section 9.2.4).
///
/// Polyfills that cannot set headers send `?lastEventId=`; the header takes precedence. Both must be well-formed.
pub(super) fn last_event_id<T>(
    req: &Request,
    parse: impl Fn(&str, Option<&str>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let header = req.headers().get(LAST_EVENT_ID).map(|value| value.to_str().map(str::trim)).transpose();
    let header = header.map_err(|_| Error::invalid("Last-Event-ID", "must be plain text"))?;
    let header = parse("Last-Event-ID", header.filter(|text| !text.is_empty()))?;
    let parameter = parse("lastEventId", query(req, "lastEventId").filter(|text| !text.is_empty()))?;
    Ok(header.or(parameter))
}
