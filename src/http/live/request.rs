//! What a stream or poll is asked to do.

use salvo::Request;
use salvo::http::header::{HeaderMap, HeaderName};

use crate::domain::{Caller, Error, EventType, Filter, Seq};
use crate::http::context::Api;
use crate::http::params::{query, seq};
use crate::realtime::Opened;

/// Where a browser's stream was cut.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Takes a cursor for what it says: that others' messages up to there have reached the caller. Not where the
/// caller does not take messages, and not where the cursor was not honoured.
pub(super) fn acknowledge(api: &Api, caller: &Caller, opened: &Opened, filter: &Filter, cursor: Option<Seq>) {
    if let Some(cursor) = cursor
        && cursor <= opened.snapshot.head
        && !opened.is_over
        && filter.passes(EventType::MessageNew)
    {
        api.acknowledger.delivered(caller, &opened.snapshot, cursor);
    }
}

/// The `types` parameter.
pub(super) fn filter(req: &Request) -> Filter {
    query(req, "types").map(Filter::parse).unwrap_or_default()
}

/// Where to continue: `Last-Event-ID` wins over `?after=`, since a browser that reconnects repeats its old URL.
pub(super) fn cursor(req: &Request) -> Result<Option<Seq>, Error> {
    match last_event_id(req.headers())? {
        Some(id) => seq("Last-Event-ID", Some(id)),
        None => seq("after", query(req, "after")),
    }
}

/// An empty id is none (HTML standard, section 9.2.4).
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::invalid("Last-Event-ID", "must be plain text"))?.trim();
    Ok((!text.is_empty()).then_some(text))
}
