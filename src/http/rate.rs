//! The send limit: how many writes a user may make, by a token bucket each.
//!
//! It counts every request that is not `GET` or `HEAD`, where the request's [`Session`](super::context::Session) is extracted:
//! an operation cannot forget it. The service is the platform itself, and only its messages count. What a poll or stream
//! acknowledges by its cursor does not: a watermark that does not move writes nothing.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use salvo::http::header::{HeaderMap, HeaderName, HeaderValue};

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

    /// Takes one out of the user's bucket; `None` where there is no limit.
    pub(super) fn take(&self, user: &UserId) -> Option<Taken> {
        let Buckets { limiter, policy, taken } = self.0.as_ref()?;
        if taken.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            limiter.retain_recent();
        }
        let (left, wait) = match limiter.check_key(user) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(limiter.clock().now()))),
        };
        // Whole seconds, up: who comes back then is not too early.
        let seconds = wait.map_or(1, |wait| wait.as_secs() + 1);
        Some(Taken { policy: policy.clone(), left, seconds, is_over: wait.is_some() })
    }
}

/// What a write has taken of its user's bucket.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    policy: HeaderValue,
    left: u32,
    seconds: u64,
    is_over: bool,
}

impl Taken {
    /// Whether there was one left.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let seconds = self.seconds;
        if self.is_over {
            Err(Refusal::TooMany { what: "writes from you in so short a time", seconds })
        } else {
            Ok(())
        }
    }

    /// Reports the limit and what is left of it.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
        let limit = [r#""sends";r="#, &self.left.to_string(), ";t=", &self.seconds.to_string()].concat();
        if let Ok(limit) = HeaderValue::try_from(limit) {
            headers.insert(RATE_LIMIT, limit);
        }
    }
}

impl std::fmt::Debug for SendRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendRate").finish_non_exhaustive()
    }
}
