//! Web Push (RFC 8030, 8291, 8292): tells browsers about messages that were not delivered, while their pages are closed.
//!
//! 1. The statement that puts `message:undelivered` on the feed creates a push for each subscription of the user, in the same
//!    transaction. There is one push for each subscription and ride; a later event renews it.
//! 2. The dispatcher (`dispatch`) of any replica takes pushes that are due, under a lease.
//! 3. A worker (`worker`) asks the database what the push says now, and sends it: nothing, where the user's delivered watermark has
//!    reached the message meanwhile. Then it deletes the push, or gives it back for another attempt.
//!
//! A replica that is killed leaves its leases, which expire; another one sends the same pushes. A push may thus be sent twice, and the
//! push service and the browser each replace the first one by the second (`Topic`, the notification's tag).
//!
//! A receipt that is committed while the request is on its way cannot be seen: such a push reaches its browser after the message.

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

/// How long a push is worth sending, and how long a push service keeps it for a browser that is away (`TTL`).
const TTL: Duration = Duration::from_secs(24 * 3_600);

/// How long a push service may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most subscriptions of a user.
const OF_USER: i64 = 20;

/// How long a subscription lasts after it was last registered.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The bytes of a browser's public key: an uncompressed point of P-256.
const KEY_BYTES: usize = 65;

/// The bytes of the secret that a browser shares.
const AUTH_BYTES: usize = 16;

/// Why there can be no Web Push.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There can be no TLS.
    #[error("Web Push: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The key cannot be used.
    #[error(transparent)]
    Vapid(#[from] VapidError),
}

/// How Web Push works.
#[derive(Debug, Clone)]
pub struct PushConfig {
    /// The VAPID private key, where it is not to be the database's.
    pub key: Option<String>,
    /// Whom a push service can ask about its sender: a `mailto:` or `https:` URI.
    pub subject: Option<String>,
    /// Hosts for which `http` and addresses that are not public are allowed.
    pub allow_hosts: Vec<String>,
    /// How old a message is before it counts as undelivered.
    pub after: Duration,
    /// How often pushes that are due are looked for, besides when this replica creates some.
    pub period: Duration,
}

/// What has come of a push, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The push service has it.
    Sent,
    /// There was nothing left to say.
    Unneeded,
    /// It will be sent again.
    Retried,
    /// The push service did not take it in time.
    Expired,
    /// The push service will not take it.
    Rejected,
    /// The push service no longer has the subscription, which was removed.
    Gone,
}

impl PushOutcome {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sent, Self::Unneeded, Self::Retried, Self::Expired, Self::Rejected, Self::Gone];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Unneeded => "unneeded",
            Self::Retried => "retried",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
        }
    }
}

/// Checks the public key of a browser.
pub fn check_p256dh(key: &[u8]) -> Result<(), &'static str> {
    let is_point = key.len() == KEY_BYTES && PublicKey::from_sec1_bytes(key).is_ok();
    if is_point { Ok(()) } else { Err("must be an uncompressed point of P-256 in base64url: 65 bytes") }
}

/// Checks the secret that a browser shares.
pub fn check_auth(auth: &[u8]) -> Result<(), &'static str> {
    if auth.len() == AUTH_BYTES { Ok(()) } else { Err("must be 16 bytes in base64url") }
}

/// Web Push.
#[derive(Debug)]
pub struct WebPush {
    store: Arc<Store>,
    outbound: Outbound,
    vapid: Vapid,
    after: Duration,
    period: Duration,
    /// There may be pushes that are due.
    due: Notify,
}

impl WebPush {
    /// Web Push that sends nothing until it [runs](WebPush::run).
    pub async fn new(store: Arc<Store>, config: PushConfig) -> Result<Self, PushError> {
        let outbound = Outbound::new(AllowedHosts::new(&config.allow_hosts))?;
        let vapid = match &config.key {
            Some(key) => Vapid::parse(key, config.subject)?,
            None => Vapid::from_seed(&store.secret("vapid").await?, config.subject)?,
        };
        Ok(Self { store, outbound, vapid, after: config.after, period: config.period, due: Notify::new() })
    }

    /// Checks the settings that can be wrong.
    pub fn check(key: Option<&str>, subject: Option<&str>) -> Result<(), VapidError> {
        vapid::check(key, subject)
    }

    /// The public key, as `applicationServerKey` takes it.
    pub fn public_key(&self) -> &str {
        self.vapid.public_key()
    }

    /// Notes that there may be new pushes.
    pub fn wake(&self) {
        self.due.notify_one();
    }

    /// Checks all that can be checked of an endpoint before its host is resolved, and returns its push service.
    pub fn check_endpoint(&self, endpoint: &str) -> Result<String, &'static str> {
        let uri = self.outbound.check(endpoint)?;
        Ok(uri.authority().map(|host| host.as_str().to_ascii_lowercase()).unwrap_or_default())
    }

    /// Registers a subscription for a user. It belongs to nobody else then, and those that the user has besides are at most 19.
    pub async fn register(&self, user: &UserId, new: &NewSubscription<'_>) -> Result<(), StoreError> {
        self.store.put_subscription(user, new, OF_USER, LIFETIME).await
    }

    /// Sends pushes until `stopping`, and gives back what it has then.
    pub async fn run(
        self: Arc<Self>,
        stopping: CancellationToken,
        observe: impl Fn(PushOutcome) + Send + Sync + 'static,
    ) {
        dispatch::run(&self, &stopping, Arc::new(observe)).await;
    }
}
