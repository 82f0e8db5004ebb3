//! Webhooks (Standard Webhooks 1.0): delivers the events of the feed to the platform's endpoints, at least once, and in order
//! within each ride.
//!
//! Every replica runs the same three stages. Locks and leases in Postgres coordinate them:
//!
//! 1. The fan-out (`fan_out`) creates the deliveries of new events under the endpoint's lock. The same transaction advances the
//!    endpoint's position, so a crash loses no event, and no event has two deliveries.
//! 2. The dispatcher (`dispatch`) claims queues that are due, under a lease. A queue holds the deliveries of one endpoint and
//!    one topic.
//! 3. A worker (`worker`) attempts the oldest delivery of its queue. It continues with the next one when that delivery has
//!    succeeded or has failed for good.
//!
//! The leases of a killed replica expire, and another replica attempts the same deliveries again. An attempt records nothing if
//! its replica has lost the lease.

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

/// How long an endpoint may take to respond.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The most deliveries that one statement makes due.
const RETRY_BATCH: i64 = 1_000;

/// The reason why webhooks cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum WebhooksError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The TLS client could not be configured.
    #[error("webhooks: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// The configuration of webhooks.
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// The hosts for which `http` and addresses that are not public are allowed.
    pub allow_hosts: Vec<String>,
    /// One more address for which they are allowed, at this port alone: the demo's receiver.
    pub allow_socket: Option<SocketAddr>,
    /// The retry schedule.
    pub retries: Retries,
    /// The time between two polls for new events and due deliveries. A notification starts a poll at once.
    pub period: Duration,
}

/// The outcome of an attempt, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint received the event.
    Delivered,
    /// The attempt failed, and another one follows.
    Retried,
    /// The last attempt failed.
    Failed,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Retried, Self::Failed];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Failed => "failed",
        }
    }
}

/// The result of a test delivery.
#[derive(Debug)]
pub struct TestDelivery {
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// The duration of the request.
    pub duration: Duration,
    /// The error; `None` if the delivery succeeded.
    pub error: Option<String>,
}

/// The webhooks of one replica.
#[derive(Debug)]
pub struct Webhooks {
    store: Arc<Store>,
    outbound: Outbound,
    ids: EventIds,
    retries: Retries,
    period: Duration,
    /// Wakes the fan-out: there may be new events or endpoints.
    events: Notify,
    /// Wakes the dispatcher: there may be due deliveries.
    due: Notify,
    /// The active endpoints, as of the last read.
    active: Mutex<Vec<String>>,
}

impl Webhooks {
    /// Creates webhooks. Nothing is delivered until they [run](Webhooks::run).
    pub async fn new(store: Arc<Store>, config: WebhooksConfig) -> Result<Self, WebhooksError> {
        let outbound = Outbound::new(AllowedHosts::new(&config.allow_hosts).with_socket(config.allow_socket))?;
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

    /// Whether there was an active endpoint at the last read.
    pub fn has_active(&self) -> bool {
        !self.active.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Wakes the fan-out, after a change of the feed or of an endpoint.
    pub fn wake(&self) {
        self.events.notify_one();
    }

    /// Delivers until `stopping` is cancelled, then releases the leases.
    pub async fn run(
        self: Arc<Self>,
        stopping: CancellationToken,
        on_outcome: impl Fn(Outcome) + Send + Sync + 'static,
    ) {
        let fanning_out = stopping.run_until_cancelled(fan_out::run(&self));
        let dispatching = dispatch::run(&self, &stopping, Arc::new(on_outcome));
        tokio::join!(fanning_out, dispatching);
    }

    /// Applies to a URL all checks that do not need its host's addresses.
    pub fn check_url(&self, url: &str) -> Result<(), &'static str> {
        self.outbound.check(url).map(drop)
    }

    /// Returns the id of a delivery's event. It is the same for each attempt and after a replay.
    pub fn event_id(&self, delivery: &Delivery) -> String {
        self.ids.of(delivery.position, &delivery.topic, delivery.seq, delivery.at)
    }

    /// Returns the feed position in an event's id; `None` if the id is malformed.
    pub fn position(event_id: &str) -> Option<i64> {
        EventIds::position(event_id)
    }

    /// Makes all pending deliveries of an endpoint due now.
    pub async fn resume(&self, webhook: &str) -> Result<(), StoreError> {
        while self.store.retry_webhook_now(webhook, RETRY_BATCH).await? > 0 {}
        self.wake();
        self.due.notify_one();
        Ok(())
    }

    /// Sends `webhook.test`, whatever the endpoint's state. Returns `None` if the endpoint does not exist.
    pub async fn test(&self, webhook: &str) -> Result<Option<TestDelivery>, StoreError> {
        let Some((webhook, secrets)) = self.store.webhook(webhook).await? else { return Ok(None) };
        let at = Time::now();
        let data = format!(r#"{{"webhookId":"{}"}}"#, webhook.id);
        let sent =
            worker::send(&self.outbound, &webhook.url, &secrets, &self.ids.of_test(), ("webhook:test", at, &data))
                .await;
        worker::disable_if_gone(self, &webhook.id, &sent).await?;
        Ok(Some(TestDelivery { status: sent.status, duration: sent.duration, error: sent.error }))
    }

    fn active(&self) -> Vec<String> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Generates an id for a new endpoint.
pub fn new_id() -> String {
    format!("wh_{}", uuid::Uuid::now_v7().simple())
}

/// Parses a state that a user can set: any but `disabled`.
pub fn parse_settable_state(text: &str) -> Option<WebhookState> {
    WebhookState::parse(text).filter(|state| *state != WebhookState::Disabled)
}

/// Converts event types to LIKE patterns. Accepts both notations, `message:new` and `message.new`. The error has the index of
/// the invalid type.
pub fn like_patterns(types: &[String]) -> Result<Vec<String>, (usize, &'static str)> {
    types.iter().enumerate().map(|(index, text)| like_pattern(text).ok_or((index, INVALID_TYPE))).collect()
}

const INVALID_TYPE: &str = "must be a type of events, such as message:new or message.new, or a prefix with * at its end: at most 64 characters";

fn like_pattern(text: &str) -> Option<String> {
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
    fn event_types_are_accepted_in_both_notations() {
        let of = |types: &[&str]| like_patterns(&types.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            of(&["message:new", "message.new", "ride.*", "*", "a_b"]).unwrap(),
            ["message:new", "message:new", "ride:%", "%", r"a\_b"]
        );
        for wrong in ["", "a*b", "%", "a b", "**", "\\", &"x".repeat(65)] {
            assert_eq!(of(&["*", wrong]), Err((1, INVALID_TYPE)), "{wrong}");
        }
    }
}
