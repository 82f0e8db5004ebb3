//! Attempts the deliveries of one queue, one after another.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Outcome, TIMEOUT, Webhooks};
use crate::domain::Time;
use crate::signature::{self, signatures};
use crate::store::{AttemptOutcome, DeliveryState, DueDelivery, Lease, StoreError};
use crate::web::outbound::Outbound;
use crate::web::retry_after::retry_after;

/// How long a worker keeps a queue that has more deliveries. After it, other queues of the endpoint can be claimed.
const TIME_SLICE: Duration = Duration::from_secs(2);

/// The delay until a queue is due again that had nothing to attempt, or whose deliveries could not be read. A queue has nothing
/// to attempt if, for example, its endpoint was paused meanwhile.
const EMPTY_DELAY: Duration = Duration::from_secs(1);

/// How often the worker tries to record an outcome.
const RECORD_ATTEMPTS: u32 = 5;

/// The callback that counts outcomes.
pub(super) type OnOutcome = dyn Fn(Outcome) + Send + Sync;

/// The result of a request.
pub(super) struct SendResult {
    pub(super) status: Option<u16>,
    pub(super) duration: Duration,
    /// `None` if the endpoint accepted the event.
    pub(super) error: Option<String>,
    retry_after: Option<Duration>,
}

/// Sends an event, given by its type, time and data.
pub(super) async fn send(
    outbound: &Outbound,
    url: &str,
    secrets: &[Vec<u8>],
    id: &str,
    (kind, at, data): (&str, Time, &str),
) -> SendResult {
    // No escaping needed: a type has no characters that JSON escapes.
    let body = format!(r#"{{"type":"{}","timestamp":"{at}","data":{data}}}"#, kind.replace(':', "."));
    let timestamp = Time::now().as_unix_seconds();
    let headers = [
        (signature::ID, id.to_owned()),
        (signature::TIMESTAMP, timestamp.to_string()),
        (signature::SIGNATURE, signatures(secrets, id, timestamp, body.as_bytes())),
    ];
    let started = Instant::now();
    let response = outbound.post(url, &headers, body, TIMEOUT).await;
    let duration = started.elapsed();
    match response {
        Ok(head) => {
            let error = match head.status {
                status if status.is_success() => None,
                status if status.is_redirection() => {
                    Some(format!("the endpoint returned {}: redirects are not followed", status.as_u16()))
                }
                status => Some(format!("the endpoint returned {}", status.as_u16())),
            };
            SendResult { status: Some(head.status.as_u16()), duration, error, retry_after: retry_after(&head.headers) }
        }
        Err(error) => SendResult { status: None, duration, error: Some(error.to_string()), retry_after: None },
    }
}

/// Attempts the deliveries of a queue until the queue is empty, an attempt fails, or the time slice ends.
///
/// Returns the delay until the queue is due again if an attempt failed.
pub(super) async fn run(
    webhooks: &Webhooks,
    lease: &Lease,
    stopping: &CancellationToken,
    on_outcome: &OnOutcome,
) -> Option<Duration> {
    match attempt_all(webhooks, lease, stopping, on_outcome).await {
        Ok(retry) => retry,
        Err(error) => {
            tracing::debug!(%error, webhook.id = lease.webhook, "webhook deliveries interrupted");
            // If this fails as well, the lease expires.
            drop(webhooks.store.release_queues(vec![lease.clone()], EMPTY_DELAY).await);
            Some(EMPTY_DELAY)
        }
    }
}

async fn attempt_all(
    webhooks: &Webhooks,
    lease: &Lease,
    stopping: &CancellationToken,
    on_outcome: &OnOutcome,
) -> Result<Option<Duration>, StoreError> {
    let until = Instant::now() + TIME_SLICE;
    loop {
        let Some(due) = webhooks.store.next_delivery(lease).await? else {
            webhooks.store.release_queues(vec![lease.clone()], EMPTY_DELAY).await?;
            return Ok(None);
        };
        let outcome = attempt(webhooks, lease, &due).await?;
        on_outcome(match outcome.state {
            DeliveryState::Delivered => Outcome::Delivered,
            DeliveryState::Pending => Outcome::Retried,
            DeliveryState::Failed => Outcome::Failed,
        });
        let retry = (outcome.state == DeliveryState::Pending).then_some(outcome.delay);
        if !record(webhooks, lease, outcome).await? {
            return Ok(retry);
        }
        if stopping.is_cancelled() || Instant::now() > until {
            webhooks.store.release_queues(vec![lease.clone()], Duration::ZERO).await?;
            webhooks.due.notify_one();
            return Ok(None);
        }
    }
}

/// Attempts a delivery once.
async fn attempt(webhooks: &Webhooks, lease: &Lease, due: &DueDelivery) -> Result<AttemptOutcome, StoreError> {
    let outcome = |state, sent: SendResult, delay| AttemptOutcome {
        position: due.position,
        state,
        status: sent.status,
        took: sent.duration,
        error: sent.error,
        delay,
    };
    let Some(data) = &due.data else {
        let error = Some("the event expired or was erased before it was delivered".to_owned());
        let unsent = SendResult { status: None, duration: Duration::ZERO, error, retry_after: None };
        return Ok(outcome(DeliveryState::Failed, unsent, Duration::ZERO));
    };
    let id = webhooks.ids.of(due.position, &due.topic, due.seq, due.at);
    let sent = send(&webhooks.outbound, &due.url, &due.secrets, &id, (&due.kind, due.at, data)).await;
    if sent.error.is_none() {
        if due.failing.is_some() {
            webhooks.store.set_webhook_failing(&lease.webhook, false).await?;
        }
        return Ok(outcome(DeliveryState::Delivered, sent, Duration::ZERO));
    }
    // The delivery stays pending for an endpoint that is gone, in case it becomes active again.
    if disable_if_gone(webhooks, &lease.webhook, &sent).await? {
        return Ok(outcome(DeliveryState::Pending, sent, Duration::ZERO));
    }
    match due.failing {
        None => webhooks.store.set_webhook_failing(&lease.webhook, true).await?,
        Some(failing) if webhooks.retries.disables(failing) => {
            disable(webhooks, &lease.webhook, "failed for too long").await?
        }
        Some(_) => {}
    }
    let delay = webhooks.retries.delay(due.attempts, due.age.unwrap_or_default(), sent.retry_after);
    let state = if delay.is_some() { DeliveryState::Pending } else { DeliveryState::Failed };
    Ok(outcome(state, sent, delay.unwrap_or_default()))
}

/// Disables an endpoint that returned 410 (Gone). Returns whether it did.
pub(super) async fn disable_if_gone(webhooks: &Webhooks, webhook: &str, sent: &SendResult) -> Result<bool, StoreError> {
    let is_gone = sent.status == Some(StatusCode::GONE.as_u16());
    if is_gone {
        disable(webhooks, webhook, "returned 410").await?;
    }
    Ok(is_gone)
}

async fn disable(webhooks: &Webhooks, webhook: &str, reason: &str) -> Result<(), StoreError> {
    if webhooks.store.disable_webhook(webhook).await? {
        tracing::warn!(
            webhook.id = webhook,
            reason,
            "webhook disabled; it receives nothing until its state is set to active"
        );
        webhooks.wake();
    }
    Ok(())
}

/// Records the outcome of an attempt. Returns whether the worker keeps the queue, which has more deliveries.
///
/// Retries while the database is unavailable for a moment; otherwise the event would be delivered twice. An outcome that is
/// recorded twice may count as two attempts; it has no other effect.
async fn record(webhooks: &Webhooks, lease: &Lease, outcome: AttemptOutcome) -> Result<bool, StoreError> {
    for tried in 1..RECORD_ATTEMPTS {
        if let Ok(has_more) = webhooks.store.record_attempt(lease, outcome.clone()).await {
            return Ok(has_more);
        }
        sleep(Duration::from_millis(200) * tried).await;
    }
    webhooks.store.record_attempt(lease, outcome).await
}
