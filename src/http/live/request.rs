//! The parameters of streams and polls, and the opening of a ride.

use std::sync::Arc;
use std::time::Duration;

use salvo::Request;
use salvo::http::header::HeaderName;

use crate::domain::{Caller, Error, EventType, Filter, RideId, RideSnapshot, Seq};
use crate::http::context::Api;
use crate::http::params::query;
use crate::realtime::{MergedCursor, OpenError, RideReader, RideStart, TrackPresence};
use crate::writer::CloseRide;

/// The last id that a browser received before it reconnected.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Opens a ride. If the chat window has passed for everyone and the ride is not closed yet, it is closed first, because only the closing
/// determines whether more events will follow.
pub(super) async fn open_ride(
    api: &Api,
    caller: &Caller,
    ride: RideId,
    cursor: Option<Seq>,
) -> Result<(RideReader, RideStart), OpenError> {
    let context = Arc::new(api.read_context(caller));
    let (reader, opened) = RideReader::open(Arc::clone(&context), ride.clone(), cursor).await?;
    if !opened.is_due_to_close {
        return Ok((reader, opened));
    }
    match api.shards.of_ride(&ride).writer.submit(CloseRide { ride: ride.clone() }).await {
        Ok(()) => RideReader::open(context, ride, cursor).await,
        // Another replica will close it. Until then, the ride is read as any other.
        Err(_) => Ok((reader, opened)),
    }
}

/// Acknowledges delivery of others' messages up to the cursor. It does nothing if the filter excludes messages, or if the cursor is from a
/// time before the database was restored. Returns the acknowledged position, if any.
pub(super) fn acknowledge(
    api: &Api,
    caller: &Caller,
    snapshot: &RideSnapshot,
    filter: &Filter,
    cursor: Option<Seq>,
) -> Option<Seq> {
    let up_to = cursor.filter(|cursor| *cursor <= snapshot.head && filter.passes(EventType::MessageNew))?;
    api.shards.of_ride(&snapshot.ride.id).acknowledger.delivered(caller, snapshot, up_to);
    Some(up_to)
}

/// Returns a function that tracks the caller's presence on each ride of a merged stream, until `grace` after the stream's end.
pub(super) fn track_merged_presence(api: &Arc<Api>, grace: Duration) -> TrackPresence {
    let api = Arc::clone(api);
    Box::new(move |reader| api.track_presence(reader, grace))
}

/// Parses the `types` parameter.
pub(super) fn filter(req: &Request) -> Filter {
    query(req, "types").map(Filter::parse).unwrap_or_default()
}

/// Parses a cursor of a merged stream, if one was given.
pub(super) fn merged_cursor(name: &str, text: Option<&str>, caller: &Caller) -> Result<Option<MergedCursor>, Error> {
    let parse = |text| MergedCursor::parse(text, &caller.user).map_err(|detail| Error::invalid(name, detail));
    text.map(parse).transpose()
}

/// Parses the last id that a browser has received, with `parse`. It takes precedence over `?after=`, because a browser that reconnects
/// repeats its old URL. An empty id counts as absent (HTML standard, section 9.2.4).
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
