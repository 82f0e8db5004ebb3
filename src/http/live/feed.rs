//! `GET /feed` and `GET /feed/poll`: every durable event of all rides and users, for the platform.

use std::sync::Arc;

use salvo::http::Method;
use salvo::oapi::endpoint;
use salvo::{Request, Response, Writer as _};

use super::poll::{self, Found, PAGE};
use super::reader::Cursor;
use super::request::last_event_id;
use super::sse::{or_later, terms};
use super::state::{GapView, State};
use super::stream::{Beginning, EventStream, come_back_later, event_stream_headers};
use crate::domain::{Error, Role, Seq};
use crate::http::context::{Api, LiveSession, Session};
use crate::http::params::{digits, number, query};
use crate::http::refusal::Refusal;
use crate::http::schema;
use crate::realtime::FeedReader;
use crate::writer::relay::Relay;

/// Stream the feed
///
/// Every durable event of all rides and users, in one order in which each ride's events have the order of the ride. For the
/// `service` role. The first event is `stream:sync`, without `state`. Positions are opaque. An event's data is
/// `{topic, seq, at, data}`, with `data` as on the ride.
#[endpoint(tags("platform"), operation_id = "streamFeed",
    parameters(
        ("after" = Option<String>, Query, max_length = 20, description = "Continue after this position: the last `id`; without one the stream begins now; 0 is the whole retained feed."),
        ("Last-Event-ID" = Option<String>, Header, max_length = 20, description = "The same, as an `EventSource` sends it; it takes precedence."),
        ("lastEventId" = Option<String>, Query, max_length = 20, description = "The same, as polyfills of `EventSource` send it; the header takes precedence."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Only these types of events: a comma-separated list, `*` at the end matches a prefix. `stream:*` always passes."),
        ("heartbeat" = Option<u16>, Query, minimum = 5, maximum = 60, description = "After how many seconds of silence a comment is sent.")),
    responses(
        (status_code = 200, description = "Events", content_type = "text/event-stream", body = String),
        (status_code = 403, description = "`forbidden`: only the `service` role can read the feed"),
        (status_code = 404, description = "`not_found`: the feed is off")))]
pub(in crate::http) async fn stream_feed(
    session: LiveSession,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Some(Session { caller, api, .. }) = or_later(session.for_all(), res)? else { return Ok(()) };
    let relay = authorize(&api, caller.role)?;
    let after = position("after", query(req, "after"))?;
    let cursor = last_event_id(req, position)?.or(after);
    let terms = terms(req, &api, &caller)?;
    let Some(admitted) = api.admit_stream(&caller) else {
        come_back_later(res);
        return Ok(());
    };
    if req.method() == Method::HEAD {
        event_stream_headers(res);
        return Ok(());
    }
    let opened = FeedReader::open(&api.hub, &api.store, cursor, || relay.wake_for_reader()).await;
    let Some((reader, opened)) = or_later(opened, res)? else { return Ok(()) };
    let beginning = Beginning {
        cursor: Cursor::Seq(opened.cursor),
        resumed: opened.resumed,
        gap: opened.gap.map(GapView::from),
        state: State::Feed,
    };
    EventStream::open(reader, api, terms, (admitted, [None, None]), beginning, res);
    Ok(())
}

/// Poll the feed
///
/// The same by long polling. Without `after` the poll returns the end of the feed at once. `limit` bounds the events of a page.
#[endpoint(tags("platform"), operation_id = "pollFeed",
    parameters(
        ("after" = Option<String>, Query, max_length = 20, description = "Continue after this position: the `cursor` of the last response; 0 is the whole retained feed."),
        ("wait" = Option<u16>, Query, minimum = 0, maximum = 55, description = "How many seconds to wait for an event: 0 to 55, 25 where not given."),
        ("Prefer" = Option<String>, Header, example = json!("wait=10"), description = "The same (after RFC 7240), where `wait` is not given."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 500, description = "The most events: 1 to 500, 500 where not given."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Only these types of events: a comma-separated list, `*` at the end matches a prefix.")),
    responses(
        (status_code = 200, description = "Events", body = schema::FeedPage),
        (status_code = 403, description = "`forbidden`: only the `service` role can read the feed"),
        (status_code = 404, description = "`not_found`: the feed is off")))]
pub(in crate::http) async fn poll_feed(
    session: LiveSession,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Session { caller, api, .. } = session.for_all()?;
    let relay = authorize(&api, caller.role)?;
    let after = position("after", query(req, "after"))?;
    let limit = number(req, "limit", 1..=PAGE)?.unwrap_or(PAGE);
    let mut terms = poll::Terms::of(req, res, &api, &caller)?;
    terms.limit = limit;
    let admitted = api.admit_poll(&caller)?;
    if req.method() == Method::HEAD {
        poll::head(res);
        return Ok(());
    }
    let (mut reader, opened) = FeedReader::open(&api.hub, &api.store, after, || relay.wake_for_reader()).await?;
    let mut found = Found::of(opened.resumed, opened.gap.map(|gap| (gap.into(), Cursor::Seq(gap.to))));
    if opened.resumed || opened.gap.is_some() {
        found.collect(&mut reader, &api, &terms).await?;
    }
    let cursor = found.next_from().unwrap_or_else(|| Cursor::Seq(reader.cursor().max(opened.cursor)));
    found.answer((&api, &caller, admitted), &reader, &cursor, &State::Feed, res)
}

/// The relay of the feed, for those who may read it.
fn authorize(api: &Arc<Api>, role: Role) -> Result<Arc<Relay>, Refusal> {
    let relay = api.relay.as_ref().ok_or(Refusal::NotFound)?;
    match role {
        Role::Service => Ok(Arc::clone(relay)),
        _ => Err(Error::Forbidden("only the `service` role can read the feed").into()),
    }
}

/// A position in the feed, if one was given. What it says is nobody's business but ours.
fn position(name: &str, text: Option<&str>) -> Result<Option<Seq>, Error> {
    let Some(text) = text else { return Ok(None) };
    digits(text).map(Some).ok_or_else(|| Error::invalid(name, "must be a cursor of the feed, or 0"))
}
