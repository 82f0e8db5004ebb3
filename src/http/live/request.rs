//! What a stream or poll is asked to do.

use salvo::Request;
use salvo::http::HeaderMap;

use crate::domain::{Error, Filter, Seq};
use crate::http::params::{query, seq};

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
fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::invalid("Last-Event-ID", "must be plain text"))?.trim();
    Ok((!text.is_empty()).then_some(text))
}
