//! `GET /feed` and `GET /feed/poll`: every durable event of all rides and users, for the platform.

use std::sync::Arc;

use salvo::http::Method;
use salvo::oapi::endpoint;
use salvo::{Depot, Request, Response, Writer as _};

use super::poll::{self, PAGE, PollResult};
use super::reader::Cursor;
use super::request::last_event_id;
use super::sse::{or_retry_later, stream_params};
use super::state::{GapView, State};
use super::stream::{EventStream, StreamStart, event_stream_headers, respond_retry_later};
use crate::domain::{Error, Role, Seq};
use crate::http::api_error::ApiError;
use crate::http::context::Api;
use crate::http::params::{digits, number, query};
use crate::http::problem::ProblemContext;
use crate::http::schema;
use crate::http::session::{LiveSession, Session};
use crate::realtime::FeedReader;
use crate::writer::relay::Relay;

/// Stream the feed
///
/// Streams every durable event of all rides and users, in one order that keeps the order of each ride's events. Requires the `service`
/// role. The first event is `stream:sync`, without `state`. The cursor is opaque. The data of an event is `{topic, seq, at, data}`, with
/// `data` as on the ride.
#[endpoint(tags("platform"), operation_id = "streamFeed",
    parameters(
        ("after" = Option<String>, Query, max_length = 20, description = "Continue after this cursor: the last `id`. Without it, the stream begins now. 0 is the whole retained feed."),
        ("Last-Event-ID" = Option<String>, Header, max_length = 20, description = "The same, as an `EventSource` sends it. It takes precedence."),
        ("lastEventId" = Option<String>, Query, max_length = 20, description = "The same, as `EventSource` polyfills send it. The header takes precedence."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Deliver only these event types: a comma-separated list. `*` at the end matches a prefix. `stream:*` always passes."),
        ("heartbeat" = Option<u16>, Query, minimum = 5, maximum = 60, description = "Seconds of silence after which a comment is sent.")),
    responses(
        (status_code = 200, description = "Event stream", content_type = "text/event-stream", body = String),
        (status_code = 403, description = "`forbidden`: only the `service` role can read the feed"),
        (status_code = 404, description = "`not_found`: the feed is off")))]
pub(in crate::http) async fn stream_feed(
    session: LiveSession,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Some(Session { caller, api, .. }) = or_retry_later(session.for_all(), res)? else { return Ok(()) };
    let relay = authorize(&api, caller.role)?;
    let after = cursor("after", query(req, "after"))?;
    let from = last_event_id(req, cursor)?.or(after);
    let params = stream_params(req, &api, &caller)?;
    let Some(admitted) = api.admit_stream(&caller) else {
        respond_retry_later(res);
        return Ok(());
    };
    if req.method() == Method::HEAD {
        event_stream_headers(res);
        return Ok(());
    }
    let opened = FeedReader::open(api.logs.first(), from, || relay.wake_now()).await;
    let Some((reader, opened)) = or_retry_later(opened, res)? else { return Ok(()) };
    let start = StreamStart {
        cursor: Cursor::Seq(opened.cursor),
        resumed: opened.resumed,
        gap: opened.gap.map(GapView::from),
        state: State::Feed,
    };
    EventStream::open(reader, api, params, (admitted, [None, None]), start, res);
    Ok(())
}

/// Poll the feed
///
/// Polls the feed. Without `after`, the poll returns the end of the feed immediately. `limit` is the largest number of events per page.
#[endpoint(tags("platform"), operation_id = "pollFeed",
    parameters(
        ("after" = Option<String>, Query, max_length = 20, description = "Continue after this cursor: the `cursor` of the last response. 0 is the whole retained feed."),
        ("wait" = Option<u16>, Query, minimum = 0, maximum = 55, description = "Seconds to wait for an event: 0 to 55, default 25."),
        ("Prefer" = Option<String>, Header, example = json!("wait=10"), description = "The same (borrowed from RFC 7240), if `wait` is absent."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 500, description = "The largest number of events: 1 to 500, default 500."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Return only these event types: a comma-separated list. `*` at the end matches a prefix.")),
    responses(
        (status_code = 200, description = "Events", body = schema::FeedPage),
        (status_code = 403, description = "`forbidden`: only the `service` role can read the feed"),
        (status_code = 404, description = "`not_found`: the feed is off")))]
pub(in crate::http) async fn poll_feed(
    session: LiveSession,
    req: &mut Request,
    depot: &mut Depot,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Session { caller, api, .. } = session.for_all()?;
    let relay = authorize(&api, caller.role)?;
    let after = cursor("after", query(req, "after"))?;
    let limit = number(req, "limit", 1..=PAGE)?.unwrap_or(PAGE);
    let mut params = poll::PollParams::parse(req, res, &api, &caller)?;
    params.limit = limit;
    let admitted = api.admit_poll(&caller)?;
    if req.method() == Method::HEAD {
        poll::head(res);
        return Ok(());
    }
    let (mut reader, opened) = FeedReader::open(api.logs.first(), after, || relay.wake_now()).await?;
    let mut result = PollResult::of(opened.resumed, opened.gap.map(|gap| (gap.into(), Cursor::Seq(gap.to))));
    poll::respond_later(res, ProblemContext::of(req, depot), async move {
        if opened.resumed || opened.gap.is_some() {
            result.collect(&mut reader, &api, &params).await?;
        }
        let cursor = result.next_from().unwrap_or_else(|| Cursor::Seq(reader.cursor().max(opened.cursor)));
        result.respond((&api, &caller, admitted), &reader, &cursor, &State::Feed)
    });
    Ok(())
}

/// Returns the relay of the feed, if the caller may read the feed.
fn authorize(api: &Arc<Api>, role: Role) -> Result<Arc<Relay>, ApiError> {
    let relay = api.relay.as_ref().ok_or(ApiError::NotFound)?;
    match role {
        Role::Service => Ok(Arc::clone(relay)),
        _ => Err(Error::Forbidden("only the `service` role can read the feed").into()),
    }
}

/// Parses a feed cursor, if one was given. Clients treat it as opaque.
fn cursor(name: &str, text: Option<&str>) -> Result<Option<Seq>, Error> {
    let Some(text) = text else { return Ok(None) };
    digits(text).map(Some).ok_or_else(|| Error::invalid(name, "must be a cursor of the feed, or 0"))
}
