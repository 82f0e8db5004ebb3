//! Sends one push.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;

use super::{PushOutcome, TIMEOUT, TTL, WebPush, payload};
use crate::store::{DuePush, NextPush, PushLease, StoreError};
use crate::web::outbound::OutboundError;
use crate::web::retry_after::{delay, retry_after};

/// The delay after each failed attempt. The last one is used for all further attempts.
const DELAYS: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(1_800),
    Duration::from_secs(3_600),
];

/// The delay until a push is due again that could not be loaded or recorded.
const STORE_ERROR_DELAY: Duration = Duration::from_secs(1);

/// The callback that counts outcomes.
pub(super) type OnOutcome = dyn Fn(PushOutcome) + Send + Sync;

/// The push service's response to a request.
enum SendResult {
    /// It accepted the push.
    Accepted,
    /// It does not have the subscription.
    Gone(StatusCode),
    /// A temporary failure, with the delay that the push service requested.
    Retry(Option<Duration>),
    /// A permanent failure.
    Rejected(String),
}

/// Sends a push, and records the outcome.
pub(super) async fn run(push: &WebPush, lease: &PushLease, on_outcome: &OnOutcome) {
    match attempt(push, lease).await {
        Ok(Some(outcome)) => on_outcome(outcome),
        Ok(None) => {}
        Err(error) => {
            tracing::debug!(%error, host = lease.host, "push interrupted");
            // If this fails as well, the lease expires.
            drop(push.store.postpone_push(lease, STORE_ERROR_DELAY, 0).await);
        }
    }
}

async fn attempt(push: &WebPush, lease: &PushLease) -> Result<Option<PushOutcome>, StoreError> {
    let due = match push.store.next_push(lease, push.after).await? {
        NextPush::Lost => return Ok(None),
        NextPush::Unneeded => {
            push.store.end_push(lease).await?;
            return Ok(Some(PushOutcome::Skipped));
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
        SendResult::Accepted => PushOutcome::Sent,
        SendResult::Gone(status) => {
            if push.store.remove_subscription(lease, &due.endpoint).await? {
                let (user, host, status) = (&due.user, &lease.host, status.as_u16());
                tracing::info!(user.id = user, host, status, "push subscription removed");
            }
            PushOutcome::Gone
        }
        SendResult::Retry(requested) => {
            let delay = delay(&DELAYS, due.attempts, requested);
            if delay < left {
                push.store.postpone_push(lease, delay, 1).await?;
                return Ok(Some(PushOutcome::Retried));
            }
            PushOutcome::Expired
        }
        SendResult::Rejected(error) => {
            tracing::warn!(error, host = lease.host, "push rejected");
            PushOutcome::Rejected
        }
    };
    push.store.end_push(lease).await?;
    Ok(Some(outcome))
}

async fn send(push: &WebPush, lease: &PushLease, due: &DuePush, left: Duration) -> SendResult {
    let plaintext = payload::plaintext(&lease.ride, due.message, due.unread);
    let Some(body) = payload::encrypt(plaintext, &due.p256dh, &due.auth) else {
        return SendResult::Rejected("the subscription's keys are invalid".to_owned());
    };
    let origin = match push.outbound.check(&due.endpoint) {
        Ok(uri) => format!("{}://{}", uri.scheme_str().unwrap_or("https"), lease.host),
        Err(reason) => return SendResult::Rejected(format!("the endpoint {reason}")),
    };
    let authorization = match push.vapid.authorization(&origin) {
        Ok(authorization) => authorization,
        Err(error) => return SendResult::Rejected(error.to_string()),
    };
    let headers = [
        ("authorization", authorization),
        ("content-encoding", "aes128gcm".to_owned()),
        ("ttl", left.as_secs().to_string()),
        ("urgency", "high".to_owned()),
        ("topic", payload::topic(&due.auth, &lease.ride)),
    ];
    let body = Bytes::from(body);
    match push.outbound.post_as("application/octet-stream", &due.endpoint, &headers, body, TIMEOUT).await {
        Ok(head) => classify(head.status, retry_after(&head.headers)),
        Err(error @ (OutboundError::Url(_) | OutboundError::Request(_))) => SendResult::Rejected(error.to_string()),
        Err(error @ (OutboundError::Timeout(_) | OutboundError::Failed(_))) => {
            tracing::debug!(%error, host = lease.host, "push attempt failed");
            SendResult::Retry(None)
        }
    }
}

fn classify(status: StatusCode, requested: Option<Duration>) -> SendResult {
    match status {
        status if status.is_success() => SendResult::Accepted,
        StatusCode::NOT_FOUND | StatusCode::GONE => SendResult::Gone(status),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            SendResult::Retry(requested)
        }
        status if status.is_server_error() => SendResult::Retry(requested),
        status => SendResult::Rejected(format!("the push service returned {}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_a_push_service_can_request_longer_ones() {
        let seconds = |attempts, requested: Option<u64>| {
            delay(&DELAYS, attempts, requested.map(Duration::from_secs)).as_secs_f64()
        };
        assert!((4.0..6.0).contains(&seconds(0, None)) && (100.0..140.0).contains(&seconds(2, None)));
        assert!((3_000.0..4_200.0).contains(&seconds(99, None)) && (3_000.0..4_200.0).contains(&seconds(-1, None)));
        assert!((600.0..=660.0).contains(&seconds(0, Some(600))));
        assert!((5.0..6.0).contains(&seconds(0, Some(0))));
    }

    #[test]
    fn statuses_are_classified() {
        let result = |status: u16| match classify(StatusCode::from_u16(status).unwrap(), None) {
            SendResult::Accepted => "accepted",
            SendResult::Gone(_) => "gone",
            SendResult::Retry(_) => "retry",
            SendResult::Rejected(_) => "rejected",
        };
        assert_eq!([200, 201, 202].map(result), ["accepted"; 3]);
        assert_eq!([404, 410].map(result), ["gone"; 2]);
        assert_eq!([408, 425, 429, 500, 502, 503].map(result), ["retry"; 6]);
        assert_eq!([301, 307, 400, 401, 403, 413].map(result), ["rejected"; 6]);
    }
}
