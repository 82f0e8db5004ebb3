//! `GET …/poll`: long polling, one turn of the loop with a time-out.

use std::time::Duration;

use salvo::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use salvo::http::{Method, StatusCode};
use salvo::oapi::endpoint;
use salvo::{Request, Response, Writer as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use super::acknowledged::{Acknowledged, Page};
use super::handed;
use super::reader::{Cursor, Handed, Reader, Turn, trace};
use super::request::{acknowledge, filter, follow_ride, merged_attend, places};
use super::state::{AnyStateView, GapView, State};
use crate::domain::{Caller, Error, Filter, RideId, RideSnapshot, Seq, Time};
use crate::http::body::render_holding;
use crate::http::context::{Api, LiveSession, Open, Session};
use crate::http::metrics::Transport;
use crate::http::params::{RidePath, number, query, seq};
use crate::http::refusal::Refusal;
use crate::http::schema;
use crate::realtime::{Closed, Merged};

/// The most events in an answer.
pub(super) const PAGE: usize = 500;

/// How long a poll waits where it does not say, and at most, in seconds.
const WAIT: u64 = 25;
const LONGEST_WAIT: u64 = 55;

/// How long a page that has begun may take to be filled from the log.
const FILL: Duration = Duration::from_millis(500);

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

#[derive(Serialize)]
struct EventView<'a> {
    id: String,
    r#type: &'a str,
    data: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    events: Vec<EventView<'a>>,
    cursor: String,
    resumed: bool,
    gap: Option<GapView>,
    state: AnyStateView<'a>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<&'a [RideId]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
}

/// What a poll has found.
#[derive(Default)]
pub(super) struct Found {
    resumed: bool,
    page: Page,
    /// What retention has taken before the first event of the page.
    gap: Option<GapView>,
    /// Where the reader is behind that.
    after_gap: Option<Cursor>,
    closed: bool,
    /// Whether events were left to the next poll because a response does not hold them.
    is_cut: bool,
    /// Where the next poll begins, where this one has left events to it.
    next_from: Option<Cursor>,
}

/// Follow a ride by polling
///
/// Without `after`: where the log ends, at once. With it: what lies past it, at once if there is anything, else as
/// soon as there is, or an empty answer after `wait` seconds, with a cursor that may have advanced. Where the types include
/// `message:new`, `after` acknowledges delivery of others' messages up to there; the caller's own `message:delivered`, which
/// reports just that, does not end the wait.
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
    let Session { caller, api, .. } = session.for_ride(&ride)?;
    let after = seq("after", query(req, "after"))?;
    let mut terms = Terms::of(req, res, &api, &caller)?;
    let admitted = api.admit_poll(&caller)?;
    let (mut follow, opened) = follow_ride(&api, &caller, ride, after).await?;
    if req.method() == Method::HEAD {
        head(res);
        return Ok(());
    }
    if !opened.is_over
        && let Some(up_to) = acknowledge(&api, &caller, &opened.snapshot, &terms.filter, after)
    {
        terms.acknowledged.note(&opened.snapshot, up_to);
    }
    let _attending = (api.attend(&follow, terms.away), api.attend_as_driver(&caller, terms.away));
    let mut found = Found::of(opened.resumed, opened.gap.map(|gap| (gap.into(), Cursor::Seq(gap.to))));
    found.closed = opened.is_over;
    let mut cursor = opened.cursor;
    found.closed |= opened.gap.is_some() && has_ended(&opened.snapshot, &caller, cursor);
    let mut state = State::Ride(Box::new(opened.snapshot));
    // A poll that has nothing to wait for, or a cursor that is none of this log's, is answered with the look that it has.
    if (opened.resumed || found.gap.is_some()) && !found.closed {
        found.collect(&mut follow, &api, &terms).await?;
        // Where events were found, not a position that the filter has moved further.
        cursor = match found.next_from {
            Some(Cursor::Seq(left_at)) => left_at,
            _ => cursor.max(follow.cursor()),
        };
        let snapshot = follow.snapshot().await?;
        found.closed |= has_ended(&snapshot, &caller, cursor);
        state = State::Ride(Box::new(snapshot));
    }
    found.answer((&api, &caller, admitted), &follow, &cursor, &state, res)
}

/// Follow everything of one's own by polling
///
/// One poll for the caller's rides (at most 64: rides that have not ended first, then the newest) and for what is told to
/// them alone: `ride:assigned`, `ride:closed`, `ride:reopened`, `notice`. Rides that are left out are named in `omitted`; they come in when
/// there is room, from where the cursor left them. The cursor is opaque and covers all of them.
#[endpoint(tags("live"), operation_id = "pollAll",
    parameters(
        ("after" = Option<String>, Query, max_length = 4096, description = "Continue after this position: the `cursor` of the last answer; 0 is all that the log has."),
        ("wait" = Option<u16>, Query, minimum = 0, maximum = 55, description = "How many seconds to wait for an event: 0 to 55, 25 where not given."),
        ("Prefer" = Option<String>, Header, example = json!("wait=10"), description = "The same (after RFC 7240), where `wait` is not given."),
        ("types" = Option<String>, Query, example = json!("message:*,ride:*"), description = "Only these types of events: a comma list, `*` at the end matches a prefix.")),
    responses(
        (status_code = 200, description = "What there is", body = schema::PollAll),
        (status_code = 403, description = "`forbidden`: the ticket is for one ride")))]
pub(in crate::http) async fn poll_all(
    session: LiveSession,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Session { caller, api, .. } = session.for_all()?;
    let after = places("after", query(req, "after"), &caller)?;
    let has_cursor = after.is_some();
    let mut terms = Terms::of(req, res, &api, &caller)?;
    let admitted = api.admit_poll(&caller)?;
    if req.method() == Method::HEAD {
        head(res);
        return Ok(());
    }
    let _attending = api.attend_as_driver(&caller, terms.away);
    let attend = merged_attend(&api, terms.away);
    let (mut merged, opened) = Merged::open(api.reader(&caller), after, attend).await?;
    for (snapshot, place) in &opened.rides {
        if let Some(up_to) = acknowledge(&api, &caller, snapshot, &terms.filter, *place) {
            terms.acknowledged.note(snapshot, up_to);
        }
    }
    let gap = opened.gap.map(|(topic, gap)| (GapView::of(&topic, gap), Cursor::Places(merged.cursor())));
    let mut found = Found::of(opened.resumed, gap);
    let rides = opened.rides.into_iter().map(|(snapshot, _)| snapshot).collect();
    let mut state = State::All { rides, drivers: opened.drivers, omitted: merged.omitted().to_vec() };
    if has_cursor && (opened.resumed || found.gap.is_some()) {
        found.collect(&mut merged, &api, &terms).await?;
        state = merged.state().await?;
    }
    let cursor = found.next_from().unwrap_or_else(|| Cursor::Places(merged.cursor()));
    found.answer((&api, &caller, admitted), &merged, &cursor, &state, res)
}

/// Whether a reader has all that there will be for them: of what is theirs, or of a ride that is closed.
fn has_ended(snapshot: &RideSnapshot, caller: &Caller, cursor: Seq) -> bool {
    let end = snapshot.left_at(caller).or_else(|| snapshot.ride.closed_at.map(|_| snapshot.head));
    end.is_some_and(|end| cursor >= end)
}

/// How a poll is to be.
pub(super) struct Terms {
    filter: Filter,
    deadline: Instant,
    /// The most events in its response.
    pub(super) limit: usize,
    /// Whose login it is made with, and ends with.
    caller: Caller,
    /// How long after it its reader is still there: as long as the next one might wait, and the grace.
    away: Duration,
    /// What it acknowledges by its cursor.
    acknowledged: Acknowledged,
}

impl Terms {
    pub(super) fn of(req: &Request, res: &mut Response, api: &Api, caller: &Caller) -> Result<Self, Error> {
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
        let wait = Duration::from_secs(wait);
        let left = caller.expires_at.since(Time::now());
        let deadline = Instant::now() + wait.min(left);
        let (away, acknowledged) = (api.limits.presence_grace + wait, Acknowledged::by(caller));
        Ok(Self { filter: filter(req), deadline, limit: PAGE, caller: caller.clone(), away, acknowledged })
    }
}

impl Found {
    /// Nothing but how the reader has begun.
    pub(super) fn of(resumed: bool, gap: Option<(GapView, Cursor)>) -> Self {
        let (gap, after_gap) = gap.unzip();
        Self { resumed, gap, after_gap, ..Self::default() }
    }

    /// Where the next poll begins, where this one has left events to it.
    pub(super) fn next_from(&mut self) -> Option<Cursor> {
        self.next_from.take()
    }

    /// Waits until there is something to answer with, and takes along what else is there already.
    /// Refused where the login was revoked, or its key withdrawn, meanwhile: not even the state is theirs to see then.
    pub(super) async fn collect(&mut self, reader: &mut impl Reader, api: &Api, terms: &Terms) -> Result<(), Refusal> {
        let is_going_on = reader.is_going_on();
        let drained = async { sleep_until(api.admission.leaves_at(is_going_on).await).await };
        tokio::select! {
            () = api.stopping.cancelled() => {}
            () = drained => {}
            error = api.rejected(&terms.caller) => return Err(Refusal::Unauthorized(Some(error))),
            () = self.collect_until(reader, terms) => {}
        }
        if self.gap.is_none() && !self.closed && !self.is_cut {
            self.next_from = self.page.leave();
        }
        if let Some(cursor) = self.page.cut() {
            (self.next_from, self.is_cut) = (Some(cursor), true);
        }
        Ok(())
    }

    async fn collect_until<R: Reader>(&mut self, reader: &mut R, terms: &Terms) {
        // A gap is worth an answer: what there is behind it comes along, and nothing is waited for.
        let mut deadline = if self.gap.is_some() { Instant::now() } else { terms.deadline };
        if reader.is_behind() {
            // What is there is not there at once: it may have to be read.
            deadline = deadline.max(Instant::now() + FILL);
        }
        loop {
            if self.gap.is_some() && !reader.is_behind() {
                return;
            }
            let room = terms.limit - self.page.events.len();
            self.page.begin(|| reader.cursor());
            let turn = tokio::select! {
                biased;
                turn = reader.next(room) => turn,
                () = sleep_until(deadline) => return,
            };
            match turn {
                Turn::Events(events) => {
                    for handed in events {
                        let passes = terms.filter.passes(handed.event.kind);
                        self.page.take(handed, passes, &terms.acknowledged);
                    }
                }
                // What they are at the time of the answer is in it.
                Turn::Values(_) | Turn::Omitted => {}
                Turn::Gap(gap, behind) => {
                    // A response has one gap, and all of its events lie behind that: another one is left to the next poll.
                    let before = self.page.events.last().map(|last| last.cursor.clone()).or(self.after_gap.take());
                    if before.is_some() {
                        (self.next_from, self.is_cut) = (before, true);
                        return;
                    }
                    (self.gap, self.after_gap) = (Some(gap), Some(behind));
                    deadline = Instant::now() + FILL;
                }
                Turn::Closed(closed) => {
                    // A reset is no end: the next poll is judged by the new log.
                    self.closed = closed != Closed::Reset;
                    return;
                }
            }
            let is_full = self.page.is_full() || self.page.events.len() + R::LEAST > terms.limit;
            if self.page.wakes() || is_full {
                if is_full || !reader.is_behind() {
                    return;
                }
                deadline = deadline.max(Instant::now() + FILL);
            }
        }
    }

    pub(super) fn answer(
        &self,
        (api, caller, admitted): (&Api, &Caller, Open),
        reader: &impl Reader,
        cursor: &impl ToString,
        state: &State,
        res: &mut Response,
    ) -> Result<(), Refusal> {
        api.require_room()?;
        trace(&self.page.events, api, Transport::Poll);
        handed::record(&self.page.events, reader, caller, api, Transport::Poll);
        let answer = Answer {
            events: self.page.events.iter().map(view).collect::<Result<_, _>>()?,
            cursor: cursor.to_string(),
            resumed: self.resumed && self.gap.is_none(),
            gap: self.gap.clone(),
            state: state.view(api, caller),
            has_more: self.is_cut || !self.closed && reader.is_behind(),
            omitted: state.omitted(),
            closed: self.closed,
        };
        res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // It counts until its client has it.
        render_holding(&answer, admitted, res)
    }
}

/// The head of a response, for HEAD: which waits for nothing and has no effects (RFC 9110, section 9.2.1).
pub(super) fn head(res: &mut Response) {
    res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    res.status_code(StatusCode::OK);
}

fn view(handed: &Handed) -> Result<EventView<'_>, Error> {
    let data = serde_json::from_str(handed.event.data()).map_err(|_| Error::Internal)?;
    Ok(EventView { id: handed.cursor.to_string(), r#type: handed.event.kind.as_str(), data })
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
