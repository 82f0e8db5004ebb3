//! The send limit: a token bucket per user that limits writes.
//!
//! The extractor of [`Session`](super::session::Session) counts every request that is not `GET` or `HEAD`, so no operation can omit
//! it. For the `service` role, only messages count. A delivery that the cursor of a poll or stream acknowledges does not count,
//! because a watermark that does not move writes nothing.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use salvo::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::api_error::ApiError;
use crate::domain::UserId;

/// The burst size, in seconds of the permitted rate.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// The number of sends after which full buckets are removed.
const CLEANUP_INTERVAL: usize = 100_000;

/// As in the IETF's draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

type Limiter = RateLimiter<UserId, DashMapStateStore<UserId>, DefaultClock, StateInformationMiddleware>;

/// The buckets of all users.
pub struct SendRateLimiter(Option<Buckets>);

struct Buckets {
    limiter: Limiter,
    policy: HeaderValue,
    taken: AtomicUsize,
}

impl SendRateLimiter {
    /// Creates a limiter with a rate in writes per second and user; 0 means no limit.
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

    /// Takes a token from the user's bucket. Returns `None` where there is no limit.
    pub(super) fn take(&self, user: &UserId) -> Option<RateLimitStatus> {
        let Buckets { limiter, policy, taken } = self.0.as_ref()?;
        if taken.fetch_add(1, Ordering::Relaxed) % CLEANUP_INTERVAL == CLEANUP_INTERVAL - 1 {
            limiter.retain_recent();
        }
        let (left, wait) = match limiter.check_key(user) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(limiter.clock().now()))),
        };
        // Whole seconds, rounded up, so that a client that retries then is not too early.
        let seconds = wait.map_or(1, |wait| wait.as_secs() + 1);
        Some(RateLimitStatus { policy: policy.clone(), left, seconds, is_over: wait.is_some() })
    }
}

/// The state of a user's bucket after a write.
#[derive(Debug, Clone)]
pub(super) struct RateLimitStatus {
    policy: HeaderValue,
    left: u32,
    seconds: u64,
    is_over: bool,
}

impl RateLimitStatus {
    /// Returns an error where the bucket was empty.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        let seconds = self.seconds;
        if self.is_over { Err(ApiError::TooMany { what: "writes from this user", seconds }) } else { Ok(()) }
    }

    /// Adds the headers with the limit and the remaining tokens.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
        let limit = [r#""sends";r="#, &self.left.to_string(), ";t=", &self.seconds.to_string()].concat();
        if let Ok(limit) = HeaderValue::try_from(limit) {
            headers.insert(RATE_LIMIT, limit);
        }
    }
}

impl std::fmt::Debug for SendRateLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendRateLimiter").finish_non_exhaustive()
    }
}
