//! How many messages a user may send, by a token bucket each.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use salvo::Response;
use salvo::http::header::{HeaderName, HeaderValue};

use super::refusal::Refusal;
use crate::domain::UserId;

/// How many seconds' worth may be sent at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// After how many sends the buckets that are full again are forgotten.
const SWEEP: usize = 100_000;

/// As in the IETF's draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

type Limiter = RateLimiter<UserId, DashMapStateStore<UserId>, DefaultClock, StateInformationMiddleware>;

/// The buckets of all users.
pub struct SendRate(Option<Buckets>);

struct Buckets {
    limiter: Limiter,
    policy: HeaderValue,
    taken: AtomicUsize,
}

impl SendRate {
    /// So many a second and user; 0 for no limit.
    pub fn per_second(rate: u32) -> Self {
        let buckets = NonZeroU32::new(rate).map(|rate| {
            let burst = rate.saturating_mul(BURST_SECONDS);
            let policy = format!(r#""sends";q={burst};w={BURST_SECONDS}"#);
            Buckets {
                limiter: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)).with_middleware(),
                policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("")),
                taken: AtomicUsize::new(0),
            }
        });
        Self(buckets)
    }

    /// Takes one out of the user's bucket, and says in the answer what is left.
    pub(super) fn take(&self, user: &UserId, res: &mut Response) -> Result<(), Refusal> {
        let Some(Buckets { limiter, policy, taken }) = &self.0 else { return Ok(()) };
        if taken.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            limiter.retain_recent();
        }
        let (left, wait) = match limiter.check_key(user) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(limiter.clock().now()))),
        };
        // Whole seconds, up: who comes back then is not too early.
        let seconds = wait.map_or(1, |wait| wait.as_secs() + 1);
        res.headers_mut().insert(RATE_LIMIT_POLICY, policy.clone());
        if let Ok(value) =
            HeaderValue::try_from([r#""sends";r="#, &left.to_string(), ";t=", &seconds.to_string()].concat())
        {
            res.headers_mut().insert(RATE_LIMIT, value);
        }
        match wait {
            None => Ok(()),
            Some(_) => Err(Refusal::TooMany { what: "messages from you in so short a time", seconds }),
        }
    }
}

impl std::fmt::Debug for SendRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendRate").finish_non_exhaustive()
    }
}
