//! Attempts the deliveries of one queue, one after the other.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Outcome, PATIENCE, Webhooks};
use crate::domain::Time;
use crate::signature::{self, signatures};
use crate::store::{Attempted, DeliveryState, Due, Lease, StoreError};
use crate::web::outbound::Outbound;
use crate::web::retry_after::retry_after;

/// How long a worker keeps a queue that has more, before other queues of the endpoint have their turn.
const TURN: Duration = Duration::from_secs(2);

/// When a queue is due again in which there is nothing to attempt, as of an endpoint that was paused meanwhile, or whose deliveries
/// cannot be read now.
const NOTHING: Duration = Duration::from_secs(1);

/// How often an outcome is recorded again that the database did not take.
const RECORDED: u32 = 5;

/// Where outcomes are counted.
pub(super) type Observe = dyn Fn(Outcome) + Send + Sync;

/// What has come of a request.
pub(super) struct Sent {
    pub(super) status: Option<u16>,
    pub(super) took: Duration,
    /// `None` where it was delivered.
    pub(super) error: Option<String>,
    retry_after: Option<Duration>,
}

/// Sends an event: its type, time and data.
pub(super) async fn send(
    outbound: &Outbound,
    url: &str,
    secrets: &[Vec<u8>],
    id: &str,
    (kind, at, data): (&str, Time, &str),
) -> Sent {
    // No escaping: the characters of a type are all plain.
    let body = format!(r#"{{"type":"{}","timestamp":"{at}","data":{data}}}"#, kind.replace(':', "."));
    let timestamp = Time::now().as_unix_seconds();
    let headers = [
        (signature::ID, id.to_owned()),
        (signature::TIMESTAMP, timestamp.to_string()),
        (signature::SIGNATURE, signatures(secrets, id, timestamp, body.as_bytes())),
    ];
    let began = Instant::now();
    let answer = outbound.post(url, &headers, body, PATIENCE).await;
    let took = began.elapsed();
    match answer {
        Ok(answer) => {
            let error = match answer.status {
                status if status.is_success() => None,
                status if status.is_redirection() => {
                    Some(format!("the endpoint answered {}: redirects are not followed", status.as_u16()))
                }
                status => Some(format!("the endpoint answered {}", status.as_u16())),
            };
            Sent { status: Some(answer.status.as_u16()), took, error, retry_after: retry_after(&answer.headers) }
        }
        Err(error) => Sent { status: None, took, error: Some(error.to_string()), retry_after: None },
    }
}

/// Attempts the deliveries of a queue, until it has no more, one has failed, or others have their turn. Returns when the queue is due
/// again, where one has failed.
pub(super) async fn work(
    webhooks: &Webhooks,
    lease: &Lease,
    stopping: &CancellationToken,
    observe: &Observe,
) -> Option<Duration> {
    match attempt_all(webhooks, lease, stopping, observe).await {
        Ok(retry) => retry,
        Err(error) => {
            tracing::debug!(%error, webhook.id = lease.webhook, "webhook deliveries cannot go on now");
            // Where this fails as well, the lease expires.
            drop(webhooks.store.release_queues(vec![lease.clone()], NOTHING).await);
            Some(NOTHING)
        }
    }
}

async fn attempt_all(
    webhooks: &Webhooks,
    lease: &Lease,
    stopping: &CancellationToken,
    observe: &Observe,
) -> Result<Option<Duration>, StoreError> {
    let until = Instant::now() + TURN;
    loop {
        let Some(due) = webhooks.store.next_delivery(lease).await? else {
            webhooks.store.release_queues(vec![lease.clone()], NOTHING).await?;
            return Ok(None);
        };
        let attempted = attempt(webhooks, lease, &due).await?;
        observe(match attempted.state {
            DeliveryState::Delivered => Outcome::Delivered,
            DeliveryState::Pending => Outcome::Retried,
            DeliveryState::Failed => Outcome::Failed,
        });
        let retry = (attempted.state == DeliveryState::Pending).then_some(attempted.delay);
        if !record(webhooks, lease, attempted).await? {
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
async fn attempt(webhooks: &Webhooks, lease: &Lease, due: &Due) -> Result<Attempted, StoreError> {
    let attempted = |state, sent: Sent, delay| Attempted {
        position: due.position,
        state,
        status: sent.status,
        took: sent.took,
        error: sent.error,
        delay,
    };
    let Some(data) = &due.data else {
        let error = Some("the event has expired or was erased before it was delivered".to_owned());
        let none = Sent { status: None, took: Duration::ZERO, error, retry_after: None };
        return Ok(attempted(DeliveryState::Failed, none, Duration::ZERO));
    };
    let id = webhooks.ids.of(due.position, &due.topic, due.seq, due.at);
    let sent = send(&webhooks.outbound, &due.url, &due.secrets, &id, (&due.kind, due.at, data)).await;
    if sent.error.is_none() {
        if due.failing.is_some() {
            webhooks.store.set_webhook_failing(&lease.webhook, false).await?;
        }
        return Ok(attempted(DeliveryState::Delivered, sent, Duration::ZERO));
    }
    // An endpoint that is gone keeps the event, for when it is active again.
    if disable_if_gone(webhooks, &lease.webhook, &sent).await? {
        return Ok(attempted(DeliveryState::Pending, sent, Duration::ZERO));
    }
    match due.failing {
        None => webhooks.store.set_webhook_failing(&lease.webhook, true).await?,
        Some(failing) if webhooks.retries.disables(failing) => {
            disable(webhooks, &lease.webhook, "it has failed for too long").await?
        }
        Some(_) => {}
    }
    let delay = webhooks.retries.delay(due.attempts, due.age.unwrap_or_default(), sent.retry_after);
    let state = if delay.is_some() { DeliveryState::Pending } else { DeliveryState::Failed };
    Ok(attempted(state, sent, delay.unwrap_or_default()))
}

/// Disables an endpoint that has answered 410: it is gone. Whether it has.
pub(super) async fn disable_if_gone(webhooks: &Webhooks, webhook: &str, sent: &Sent) -> Result<bool, StoreError> {
    let is_gone = sent.status == Some(StatusCode::GONE.as_u16());
    if is_gone {
        disable(webhooks, webhook, "it answered 410").await?;
    }
    Ok(is_gone)
}

async fn disable(webhooks: &Webhooks, webhook: &str, why: &str) -> Result<(), StoreError> {
    if webhooks.store.disable_webhook(webhook).await? {
        tracing::warn!(webhook.id = webhook, why, "webhook disabled");
        webhooks.wake();
    }
    Ok(())
}

/// Records an attempt. Where the database is away for a moment it tries again, rather than have the event delivered twice. Recorded twice,
/// it may count as two attempts; nothing else changes.
async fn record(webhooks: &Webhooks, lease: &Lease, attempted: Attempted) -> Result<bool, StoreError> {
    for tried in 1..RECORDED {
        if let Ok(has_more) = webhooks.store.record_attempt(lease, attempted.clone()).await {
            return Ok(has_more);
        }
        sleep(Duration::from_millis(200) * tried).await;
    }
    webhooks.store.record_attempt(lease, attempted).await
}
