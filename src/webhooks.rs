//! Webhooks (Standard Webhooks 1.0): delivers the events of the feed to the platform's endpoints, at least once, each ride's in order.
//!
//! Every replica does the same, and Postgres keeps them apart:
//!
//! 1. The fan-out (`fan_out`) creates the deliveries of new events, under the lock of the endpoint. It also moves the endpoint's
//!    position in the same transaction: a crash loses nothing, and no event has two deliveries.
//! 2. The dispatcher (`dispatch`) takes queues that are due, under a lease. A queue has the deliveries of one endpoint and topic.
//! 3. A worker (`worker`) attempts the oldest delivery of its queue. The next one follows when this one was delivered or has failed.
//!
//! A replica that is killed leaves its leases, which expire; another one then attempts the same deliveries again. An attempt whose
//! replica has lost its lease records nothing.

mod dispatch;
mod fan_out;
mod id;
mod retries;
mod worker;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::id::EventIds;
pub use self::retries::Retries;
use crate::domain::Time;
use crate::store::{Delivery, Store, StoreError, WebhookState};
use crate::web::outbound::{AllowedHosts, Outbound};

/// How long an endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many deliveries become due with one statement.
const RETRIED: i64 = 1_000;

/// Why webhooks cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum WebhooksError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There can be no TLS.
    #[error("webhooks: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// How webhooks work.
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// Hosts for which `http` and addresses that are not public are allowed.
    pub allow_hosts: Vec<String>,
    /// Another address for which they are allowed, at this port alone: the receiver of a demo.
    pub allow_socket: Option<SocketAddr>,
    /// When a delivery is attempted again.
    pub retries: Retries,
    /// How often new events and deliveries that are due are looked for, besides at each notification.
    pub period: Duration,
}

/// What has come of an attempt, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint has the event.
    Delivered,
    /// The event will be sent again.
    Retried,
    /// There are no more attempts.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Retried, Self::Failed];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Failed => "failed",
        }
    }
}

/// What has come of a test.
#[derive(Debug)]
pub struct Tested {
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// Why it has failed.
    pub error: Option<String>,
}

/// Webhooks.
#[derive(Debug)]
pub struct Webhooks {
    store: Arc<Store>,
    outbound: Outbound,
    ids: EventIds,
    retries: Retries,
    period: Duration,
    /// There may be new events, or endpoints.
    events: Notify,
    /// There may be deliveries that are due.
    due: Notify,
    /// The active endpoints, as they were last read.
    active: Mutex<Vec<String>>,
}

impl Webhooks {
    /// Webhooks that do nothing until they [run](Webhooks::run).
    pub async fn new(store: Arc<Store>, config: WebhooksConfig) -> Result<Self, WebhooksError> {
        let outbound = Outbound::new(AllowedHosts::new(&config.allow_hosts).and(config.allow_socket))?;
        let ids = EventIds::new(store.secret("webhook_ids").await?);
        Ok(Self {
            store,
            outbound,
            ids,
            retries: config.retries,
            period: config.period,
            events: Notify::new(),
            due: Notify::new(),
            active: Mutex::default(),
        })
    }

    /// Whether there is an active endpoint, as far as this replica knows.
    pub fn has_active(&self) -> bool {
        !self.active.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Notes that the feed, or an endpoint, has changed.
    pub fn wake(&self) {
        self.events.notify_one();
    }

    /// Delivers until `stopping`, and gives back what it has then.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken, observe: impl Fn(Outcome) + Send + Sync + 'static) {
        let fanning_out = stopping.run_until_cancelled(fan_out::run(&self));
        let dispatching = dispatch::run(&self, &stopping, Arc::new(observe));
        tokio::join!(fanning_out, dispatching);
    }

    /// Checks all that can be checked of a URL before its host is resolved.
    pub fn check_url(&self, url: &str) -> Result<(), &'static str> {
        self.outbound.check(url).map(drop)
    }

    /// The id of a delivery's event: the same at each attempt, and after a replay.
    pub fn event_id(&self, delivery: &Delivery) -> String {
        self.ids.of(delivery.position, &delivery.topic, delivery.seq, delivery.at)
    }

    /// The position of an event in the feed, by its id.
    pub fn position(event_id: &str) -> Option<i64> {
        EventIds::position(event_id)
    }

    /// Has an endpoint's deliveries attempted now that wait for their next attempt.
    pub async fn resume(&self, webhook: &str) -> Result<(), StoreError> {
        while self.store.retry_webhook_now(webhook, RETRIED).await? > 0 {}
        self.wake();
        self.due.notify_one();
        Ok(())
    }

    /// Sends `webhook.test`, whatever the endpoint's state; `None` where there is no such endpoint.
    pub async fn test(&self, webhook: &str) -> Result<Option<Tested>, StoreError> {
        let Some((webhook, secrets)) = self.store.webhook(webhook).await? else { return Ok(None) };
        let at = Time::now();
        let data = format!(r#"{{"webhookId":"{}"}}"#, webhook.id);
        let sent =
            worker::send(&self.outbound, &webhook.url, &secrets, &self.ids.of_test(), ("webhook:test", at, &data))
                .await;
        worker::disable_if_gone(self, &webhook.id, &sent).await?;
        Ok(Some(Tested { status: sent.status, took: sent.took, error: sent.error }))
    }

    fn active(&self) -> Vec<String> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A new endpoint's id.
pub fn new_id() -> String {
    format!("wh_{}", uuid::Uuid::now_v7().simple())
}

/// What of an endpoint's state its owner can choose.
pub fn chosen_state(text: &str) -> Option<WebhookState> {
    WebhookState::parse(text).filter(|state| *state != WebhookState::Disabled)
}

/// Types of events as LIKE has them, in the notation of streams.
pub fn patterns(types: &[String]) -> Result<Vec<String>, (usize, &'static str)> {
    types.iter().enumerate().map(|(place, text)| pattern(text).ok_or((place, TYPE))).collect()
}

const TYPE: &str = "must be a type of events, such as message:new or message.new, or a prefix with * at its end: at most 64 characters";

fn pattern(text: &str) -> Option<String> {
    let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > 64 || !name.bytes().all(is_plain) {
        return None;
    }
    let mut pattern = name.replace('.', ":").replace('_', r"\_");
    if is_prefix {
        pattern.push('%');
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_taken_in_both_notations() {
        let of = |types: &[&str]| patterns(&types.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            of(&["message:new", "message.new", "ride.*", "*", "a_b"]).unwrap(),
            ["message:new", "message:new", "ride:%", "%", r"a\_b"]
        );
        for wrong in ["", "a*b", "%", "a b", "**", "\\", &"x".repeat(65)] {
            assert_eq!(of(&["*", wrong]), Err((1, TYPE)), "{wrong}");
        }
    }
}
