//! Sends one push.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;

use super::{PATIENCE, PushOutcome, TTL, WebPush, payload};
use crate::store::{DuePush, NextPush, PushLease, StoreError};
use crate::web::outbound::OutboundError;
use crate::web::retry_after::{delay, retry_after};

/// How long to wait after each attempt that has failed; the last one is used again and again.
const DELAYS: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(1_800),
    Duration::from_secs(3_600),
];

/// When a push is due again that could not be read or recorded.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Where outcomes are counted.
pub(super) type Observe = dyn Fn(PushOutcome) + Send + Sync;

/// What a push service has made of a request.
enum Sent {
    Taken,
    /// It has no such subscription.
    Gone(StatusCode),
    /// It may take the push later.
    Later(Option<Duration>),
    /// It will never take the push.
    Never(String),
}

/// Sends a push, and records what has come of it.
pub(super) async fn work(push: &WebPush, lease: &PushLease, observe: &Observe) {
    match attempt(push, lease).await {
        Ok(Some(outcome)) => observe(outcome),
        Ok(None) => {}
        Err(error) => {
            tracing::debug!(%error, host = lease.host, "push cannot go on now");
            // Where this fails as well, the lease expires.
            drop(push.store.postpone_push(lease, UNKNOWN, 0).await);
        }
    }
}

async fn attempt(push: &WebPush, lease: &PushLease) -> Result<Option<PushOutcome>, StoreError> {
    let due = match push.store.next_push(lease, push.after).await? {
        NextPush::Lost => return Ok(None),
        NextPush::Unneeded => {
            push.store.end_push(lease).await?;
            return Ok(Some(PushOutcome::Unneeded));
        }
        NextPush::Early(wait) => {
            push.store.postpone_push(lease, wait, 0).await?;
            return Ok(None);
        }
        NextPush::Due(due) => due,
    };
    let Some(left) = TTL.checked_sub(due.age).filter(|left| !left.is_zero()) else {
        push.store.end_push(lease).await?;
        return Ok(Some(PushOutcome::Expired));
    };
    let outcome = match send(push, lease, &due, left).await {
        Sent::Taken => PushOutcome::Sent,
        Sent::Gone(status) => {
            if push.store.remove_subscription(lease, &due.endpoint).await? {
                let (user, host, status) = (&due.user, &lease.host, status.as_u16());
                tracing::info!(user.id = user, host, status, "push subscription removed");
            }
            PushOutcome::Gone
        }
        Sent::Later(wanted) => {
            let delay = delay(&DELAYS, due.attempts, wanted);
            if delay < left {
                push.store.postpone_push(lease, delay, 1).await?;
                return Ok(Some(PushOutcome::Retried));
            }
            PushOutcome::Expired
        }
        Sent::Never(error) => {
            tracing::warn!(error, host = lease.host, "push rejected");
            PushOutcome::Rejected
        }
    };
    push.store.end_push(lease).await?;
    Ok(Some(outcome))
}

async fn send(push: &WebPush, lease: &PushLease, due: &DuePush, left: Duration) -> Sent {
    let plaintext = payload::plaintext(&lease.ride, due.message, due.unread);
    let Some(body) = payload::encrypt(plaintext, &due.p256dh, &due.auth) else {
        return Sent::Never("the subscription's keys cannot be used".to_owned());
    };
    let origin = match push.outbound.check(&due.endpoint) {
        Ok(uri) => format!("{}://{}", uri.scheme_str().unwrap_or("https"), lease.host),
        Err(why) => return Sent::Never(format!("the endpoint {why}")),
    };
    let authorization = match push.vapid.authorization(&origin) {
        Ok(authorization) => authorization,
        Err(error) => return Sent::Never(error.to_string()),
    };
    let headers = [
        ("authorization", authorization),
        ("content-encoding", "aes128gcm".to_owned()),
        ("ttl", left.as_secs().to_string()),
        ("urgency", "high".to_owned()),
        ("topic", payload::topic(&due.auth, &lease.ride)),
    ];
    let body = Bytes::from(body);
    match push.outbound.post_as("application/octet-stream", &due.endpoint, &headers, body, PATIENCE).await {
        Ok(answer) => judge(answer.status, retry_after(&answer.headers)),
        Err(error @ (OutboundError::Url(_) | OutboundError::Request(_))) => Sent::Never(error.to_string()),
        Err(error @ (OutboundError::Timeout(_) | OutboundError::Failed(_))) => {
            tracing::debug!(%error, host = lease.host, "push not sent");
            Sent::Later(None)
        }
    }
}

fn judge(status: StatusCode, wanted: Option<Duration>) -> Sent {
    match status {
        status if status.is_success() => Sent::Taken,
        StatusCode::NOT_FOUND | StatusCode::GONE => Sent::Gone(status),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Sent::Later(wanted),
        status if status.is_server_error() => Sent::Later(wanted),
        status => Sent::Never(format!("the push service answered {}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_a_push_service_chooses_longer_ones() {
        let seconds =
            |attempts, wanted: Option<u64>| delay(&DELAYS, attempts, wanted.map(Duration::from_secs)).as_secs_f64();
        assert!((4.0..6.0).contains(&seconds(0, None)) && (100.0..140.0).contains(&seconds(2, None)));
        assert!((3_000.0..4_200.0).contains(&seconds(99, None)) && (3_000.0..4_200.0).contains(&seconds(-1, None)));
        assert!((600.0..=660.0).contains(&seconds(0, Some(600))));
        assert!((5.0..6.0).contains(&seconds(0, Some(0))));
    }

    #[test]
    fn what_is_final_is_not_tried_again() {
        let judged = |status: u16| match judge(StatusCode::from_u16(status).unwrap(), None) {
            Sent::Taken => "taken",
            Sent::Gone(_) => "gone",
            Sent::Later(_) => "later",
            Sent::Never(_) => "never",
        };
        assert_eq!([200, 201, 202].map(judged), ["taken"; 3]);
        assert_eq!([404, 410].map(judged), ["gone"; 2]);
        assert_eq!([408, 425, 429, 500, 502, 503].map(judged), ["later"; 6]);
        assert_eq!([301, 307, 400, 401, 403, 413].map(judged), ["never"; 6]);
    }
}
