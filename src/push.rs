//! Web Push (RFC 8030, 8291, 8292): notifies browsers of undelivered messages while their pages are closed.
//!
//! 1. The statement that puts `message:undelivered` on the feed creates a push for each subscription of the user, in the same
//!    transaction. There is one push for each subscription and ride; a later event renews it.
//! 2. The dispatcher (`dispatch`) of any replica claims pushes that are due, under a lease.
//! 3. A worker (`worker`) loads the current content of the push, and sends it. It sends nothing if the user's delivered
//!    watermark has reached the message meanwhile. Then it deletes the push, or releases it for another attempt.
//!
//! The leases of a killed replica expire, and another replica sends the same pushes. A push may thus be sent twice. The push
//! service replaces the first one by its `Topic`, the browser by the notification's tag.
//!
//! The worker cannot see a receipt that is committed while its request is in progress. Such a push arrives after the message.

mod dispatch;
mod payload;
mod vapid;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use web_push_native::p256::PublicKey;

use self::vapid::Vapid;
pub use self::vapid::VapidError;
use crate::domain::UserId;
use crate::store::{NewSubscription, Store, StoreError};
use crate::web::outbound::{AllowedHosts, Outbound};

/// How long a push is sent and retried, and how long a push service keeps it for a browser that is offline (`TTL`).
const TTL: Duration = Duration::from_secs(24 * 3_600);

/// How long a push service may take to respond.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most subscriptions of one user.
const MAX_SUBSCRIPTIONS_PER_USER: i64 = 20;

/// How long a subscription is kept after its last registration.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The size of a browser's public key in bytes: an uncompressed point of P-256.
const KEY_BYTES: usize = 65;

/// The size of a subscription's authentication secret in bytes.
const AUTH_BYTES: usize = 16;

/// The reason why Web Push cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The TLS client could not be configured.
    #[error("Web Push: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The key cannot be used.
    #[error(transparent)]
    Vapid(#[from] VapidError),
}

/// The configuration of Web Push.
#[derive(Debug, Clone)]
pub struct PushConfig {
    /// The VAPID private key. Without one, the database's own key is used.
    pub key: Option<String>,
    /// The contact of the sender for push services: a `mailto:` or `https:` URI.
    pub subject: Option<String>,
    /// The hosts for which `http` and addresses that are not public are allowed.
    pub allow_hosts: Vec<String>,
    /// The age from which a message counts as undelivered.
    pub after: Duration,
    /// The time between two polls for due pushes. A poll starts at once when this replica creates pushes.
    pub period: Duration,
}

/// The outcome of a push, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The push service accepted it.
    Sent,
    /// It was no longer needed: the message was delivered or deleted meanwhile.
    Skipped,
    /// The attempt failed, and another one follows.
    Retried,
    /// The push service did not accept it in time.
    Expired,
    /// The push service rejected it for good.
    Rejected,
    /// The push service no longer has the subscription. The subscription was removed.
    Gone,
}

impl PushOutcome {
    /// All outcomes.
    pub const ALL: [Self; 6] = [Self::Sent, Self::Skipped, Self::Retried, Self::Expired, Self::Rejected, Self::Gone];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Skipped => "skipped",
            Self::Retried => "retried",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
        }
    }
}

/// Validates the public key of a browser.
pub fn check_p256dh(key: &[u8]) -> Result<(), &'static str> {
    let is_point = key.len() == KEY_BYTES && PublicKey::from_sec1_bytes(key).is_ok();
    if is_point { Ok(()) } else { Err("must be an uncompressed point of P-256 in base64url: 65 bytes") }
}

/// Validates the authentication secret of a subscription.
pub fn check_auth(auth: &[u8]) -> Result<(), &'static str> {
    if auth.len() == AUTH_BYTES { Ok(()) } else { Err("must be 16 bytes in base64url") }
}

/// The Web Push sender of one replica.
#[derive(Debug)]
pub struct WebPush {
    store: Arc<Store>,
    outbound: Outbound,
    vapid: Vapid,
    after: Duration,
    period: Duration,
    /// Wakes the dispatcher: there may be due pushes.
    due: Notify,
}

impl WebPush {
    /// Creates a sender. It sends nothing until it [runs](WebPush::run).
    pub async fn new(store: Arc<Store>, config: PushConfig) -> Result<Self, PushError> {
        let outbound = Outbound::new(AllowedHosts::new(&config.allow_hosts))?;
        let vapid = match &config.key {
            Some(key) => Vapid::parse(key, config.subject)?,
            None => Vapid::from_seed(&store.secret("vapid").await?, config.subject)?,
        };
        Ok(Self { store, outbound, vapid, after: config.after, period: config.period, due: Notify::new() })
    }

    /// Validates the settings.
    pub fn check(key: Option<&str>, subject: Option<&str>) -> Result<(), VapidError> {
        vapid::check(key, subject)
    }

    /// The public key, in the format of `applicationServerKey`.
    pub fn public_key(&self) -> &str {
        self.vapid.public_key()
    }

    /// Wakes the dispatcher, after new pushes were created.
    pub fn wake(&self) {
        self.due.notify_one();
    }

    /// Applies to an endpoint all checks that do not need its host's addresses, and returns the host of its push service.
    pub fn check_endpoint(&self, endpoint: &str) -> Result<String, &'static str> {
        let uri = self.outbound.check(endpoint)?;
        Ok(uri.authority().map(|host| host.as_str().to_ascii_lowercase()).unwrap_or_default())
    }

    /// Registers a subscription for a user, and removes it from any other user. A user keeps the 20 latest subscriptions.
    pub async fn register(&self, user: &UserId, new: &NewSubscription<'_>) -> Result<(), StoreError> {
        self.store.put_subscription(user, new, MAX_SUBSCRIPTIONS_PER_USER, LIFETIME).await
    }

    /// Sends pushes until `stopping` is cancelled, then releases the leases.
    pub async fn run(
        self: Arc<Self>,
        stopping: CancellationToken,
        on_outcome: impl Fn(PushOutcome) + Send + Sync + 'static,
    ) {
        dispatch::run(&self, &stopping, Arc::new(on_outcome)).await;
    }
}
