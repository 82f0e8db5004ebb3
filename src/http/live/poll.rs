//! Long polling: one turn of the loop, with a time-out.

use std::time::Duration;

use salvo::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use salvo::oapi::endpoint;
use salvo::{Request, Response, Scribe, Writer as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use super::request::{acknowledge, filter};
use super::state::StateView;
use crate::domain::{Error, Filter, Time};
use crate::http::body::Json;
use crate::http::context::{LiveSession, Session};
use crate::http::params::{RidePath, number, query, seq};
use crate::http::refusal::Refusal;
use crate::http::schema;
use crate::realtime::{Closed, Event, Follow, Gap, Next};

/// The most events in an answer.
const PAGE: usize = 500;

/// How long a poll waits where it does not say, and at most, in seconds.
const WAIT: u64 = 25;
const LONGEST_WAIT: u64 = 55;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

#[derive(Serialize)]
struct EventView<'a> {
    id: String,
    r#type: &'static str,
    data: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    events: Vec<EventView<'a>>,
    cursor: String,
    resumed: bool,
    gap: Option<Gap>,
    state: StateView<'a>,
    has_more: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
}

/// What a poll has found.
#[derive(Default)]
struct Found {
    events: Vec<Event>,
    gap: Option<Gap>,
    closed: bool,
}

/// Follow a ride by polling
///
/// Without `after`: where the log ends, at once. With it: what lies past it, at once if there is anything, else as
/// soon as there is, or an empty answer after `wait` seconds, with a cursor that may have advanced.
#[endpoint(tags("live"), operation_id = "pollRide",
    parameters(
        ("after" = Option<i64>, Query, minimum = 0, description = "Continue after this position: the `cursor` of the last answer, or of the history."),
        ("wait" = Option<u16>, Query, minimum = 0, maximum = 55, description = "How many seconds to wait for an event: 0 to 55, 25 where not given."),
        ("Prefer" = Option<String>, Header, example = json!("wait=10"), description = "The same (after RFC 7240), where `wait` is not given."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:status"), description = "Only these types of events: a comma list, `*` at the end matches a prefix.")),
    responses(
        (status_code = 200, description = "What there is", body = schema::Poll),
        (status_code = 404, description = "`ride_not_found`; also where the ticket is for another ride")))]
pub(in crate::http) async fn poll_ride(
    session: LiveSession,
    ride: RidePath,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), Refusal> {
    let RidePath(ride) = ride;
    let Session { caller, api } = session.for_ride(&ride)?;
    let after = seq("after", query(req, "after"))?;
    let filter = filter(req);
    let wait = match number(req, "wait", 0..=LONGEST_WAIT)? {
        Some(wait) => wait,
        None => match preferred_wait(req.headers()) {
            Some(wait) => {
                res.headers_mut().insert(PREFERENCE_APPLIED, applied(wait));
                wait
            }
            None => WAIT,
        },
    };
    let left = caller.expires_at.since(Time::now());
    let deadline = Instant::now() + Duration::from_secs(wait).min(left);

    let opened = Follow::open(&api.hub, &api.store, caller.clone(), ride.clone(), after, api.limits.chat_grace).await;
    let (mut follow, opened) = opened?;
    acknowledge(&api, &caller, &opened, &filter, after);
    // A poller is there between its polls: as long as it might have waited, and the grace.
    let away = api.limits.presence_grace + Duration::from_secs(wait);
    let _attending = api.attend(&follow, &ride, &caller.user, away);
    let mut found = Found { gap: opened.gap, ..Found::default() };
    let mut snapshot = opened.snapshot;
    // A poll that has nothing to wait for answers with the look that it has.
    if after.is_some() && opened.gap.is_none() && !opened.is_over {
        tokio::select! {
            () = api.stopping.cancelled() => {}
            () = collect(&mut follow, &filter, deadline, &mut found) => {}
        }
        snapshot = follow.snapshot().await?;
    }
    // Where events were found, not a position that the filter has moved further.
    let cursor = follow.cursor().max(opened.cursor);
    let events = found.events.iter().map(view).collect::<Result<_, _>>()?;
    let answer = Answer {
        events,
        cursor: cursor.to_string(),
        resumed: opened.resumed && found.gap.is_none(),
        gap: found.gap,
        state: StateView::of(&snapshot, &api.hub, &api.limits),
        has_more: !found.closed && follow.is_behind(),
        closed: found.closed || opened.is_over,
    };
    res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Json::<schema::Poll>::ok(&answer)?.render(res);
    Ok(())
}

/// Waits until there is something to answer with, and takes along what else is there.
async fn collect(follow: &mut Follow, filter: &Filter, deadline: Instant, found: &mut Found) {
    loop {
        let room = PAGE - found.events.len();
        let next = tokio::select! {
            biased;
            next = follow.next(room) => next,
            () = sleep_until(deadline) => return,
        };
        match next {
            Next::Events(events) => found.events.extend(events.into_iter().filter(|event| filter.passes(event.kind))),
            // What they are at the time of the answer is in its `state`.
            Next::Values(_) => {}
            Next::Gap(gap) => {
                found.gap = Some(gap);
                return;
            }
            Next::Closed(closed) => {
                // A reset is no end: the next poll is judged by the new log.
                found.closed = closed != Closed::Reset;
                return;
            }
        }
        if !found.events.is_empty() && (found.events.len() >= PAGE || !follow.is_behind()) {
            return;
        }
    }
}

fn view(event: &Event) -> Result<EventView<'_>, Error> {
    let data = serde_json::from_str(event.data()).map_err(|_| Error::Internal)?;
    Ok(EventView { id: event.seq.to_string(), r#type: event.kind.as_str(), data })
}

/// `Prefer: wait=10` among other preferences. What cannot be used is ignored (RFC 7240, section 2).
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).filter_map(|one| one.split(';').next());
    let wait = preferences.find_map(|one| {
        let (name, value) = one.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    wait.parse().ok().filter(|seconds| *seconds <= LONGEST_WAIT)
}

fn applied(wait: u64) -> HeaderValue {
    HeaderValue::try_from(format!("wait={wait}")).unwrap_or(HeaderValue::from_static("wait"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_that_cannot_be_used_is_ignored() {
        let wait =
            |prefer: &'static str| preferred_wait(&HeaderMap::from_iter([(PREFER, HeaderValue::from_static(prefer))]));
        assert_eq!(wait("wait=10"), Some(10));
        assert_eq!(wait("respond-async, Wait = \"7\"; x=y"), Some(7));
        for unusable in ["wait", "wait=", "wait=-1", "wait=56", "wait=x", "handling=lenient"] {
            assert_eq!(wait(unusable), None, "{unusable}");
        }
    }
}
