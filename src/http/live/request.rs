//! What a stream or poll is asked to do.

use std::sync::Arc;
use std::time::Duration;

use salvo::Request;
use salvo::http::header::HeaderName;

use crate::domain::{Caller, Error, EventType, Filter, RideSnapshot, Seq};
use crate::http::context::Api;
use crate::http::params::query;
use crate::realtime::{Attend, Places};

/// Where a browser's stream was cut.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

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

/// The last id that a browser has received, and the name of the header or parameter that has it. It takes precedence over
/// `?after=`, since a browser that reconnects repeats its old URL. An empty one is none (HTML standard, section 9.2.4).
///
/// Polyfills that cannot set headers send `?lastEventId=`.
pub(super) fn last_event_id(req: &Request) -> Result<Option<(&'static str, &str)>, Error> {
    let (name, text) = match req.headers().get(LAST_EVENT_ID) {
        Some(value) => {
            let text = value.to_str().map_err(|_| Error::invalid("Last-Event-ID", "must be plain text"))?;
            ("Last-Event-ID", text.trim())
        }
        None => ("lastEventId", query(req, "lastEventId").unwrap_or_default()),
    };
    Ok((!text.is_empty()).then_some((name, text)))
}
