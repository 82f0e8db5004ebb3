//! The parameters of a poll.

use std::time::Duration;

use salvo::http::header::{HeaderMap, HeaderName, HeaderValue};
use salvo::{Request, Response};
use tokio::time::Instant;

use super::PAGE;
use crate::domain::{Caller, Error, Filter, Time};
use crate::http::context::Api;
use crate::http::live::acknowledged::Acknowledged;
use crate::http::live::request::filter;
use crate::http::params::number;

/// How long a poll waits by default, and at most, in seconds.
const DEFAULT_WAIT: u64 = 25;
const MAX_WAIT: u64 = 55;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The parameters of a poll.
pub(in crate::http::live) struct PollParams {
    pub(super) filter: Filter,
    pub(super) deadline: Instant,
    /// The largest number of events in the response.
    pub(in crate::http::live) limit: usize,
    /// The user that polls. The poll ends when this login does.
    pub(super) caller: Caller,
    /// How long the user is still present after the poll: the wait of the next poll, and the grace period.
    pub(super) presence_ttl: Duration,
    /// The deliveries that the poll's cursor acknowledges.
    pub(super) acknowledged: Acknowledged,
}

impl PollParams {
    pub(in crate::http::live) fn parse(
        req: &Request,
        res: &mut Response,
        api: &Api,
        caller: &Caller,
    ) -> Result<Self, Error> {
        let wait = match number(req, "wait", 0..=MAX_WAIT)? {
            Some(wait) => wait,
            None => match preferred_wait(req.headers()) {
                Some(wait) => {
                    res.headers_mut().insert(PREFERENCE_APPLIED, preference_applied(wait));
                    wait
                }
                None => DEFAULT_WAIT,
            },
        };
        let wait = Duration::from_secs(wait);
        let left = caller.expires_at.since(Time::now());
        let deadline = Instant::now() + wait.min(left);
        let (presence_ttl, acknowledged) = (api.limits.presence_grace + wait, Acknowledged::by(caller));
        Ok(Self { filter: filter(req), deadline, limit: PAGE, caller: caller.clone(), presence_ttl, acknowledged })
    }
}

/// Parses `Prefer: wait=10` among other preferences. An unusable preference is ignored (RFC 7240, section 2).
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).filter_map(|one| one.split(';').next());
    let wait = preferences.find_map(|one| {
        let (name, value) = one.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    wait.parse().ok().filter(|seconds| *seconds <= MAX_WAIT)
}

fn preference_applied(wait: u64) -> HeaderValue {
    HeaderValue::try_from(format!("wait={wait}")).unwrap_or(HeaderValue::from_static("wait"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_preference_is_ignored() {
        let wait =
            |prefer: &'static str| preferred_wait(&HeaderMap::from_iter([(PREFER, HeaderValue::from_static(prefer))]));
        assert_eq!(wait("wait=10"), Some(10));
        assert_eq!(wait("respond-async, Wait = \"7\"; x=y"), Some(7));
        for unusable in ["wait", "wait=", "wait=-1", "wait=56", "wait=x", "handling=lenient"] {
            assert_eq!(wait(unusable), None, "{unusable}");
        }
    }
}
