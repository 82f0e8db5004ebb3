//! Web Push subscriptions, and the pushes that are due.
//!
//! The statement that queues `message:undelivered` for the feed also creates its pushes, so the event is never committed
//! without them. A replica claims a push under a lease; its records are accepted only while it holds the lease. A
//! statement locks one push, or skips locked ones, so statements cannot deadlock.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::pool::Store;
use super::{StoreError, sql};
use crate::domain::{MessageId, UserId};

/// The lease of a push. It is longer than an attempt may take plus the time until its outcome is stored.
const LEASE_SECONDS: f64 = 45.0;

/// A subscription to be registered.
#[derive(Debug)]
pub struct NewSubscription<'a> {
    /// Where pushes go.
    pub endpoint: &'a str,
    /// The push service: the endpoint's host and port.
    pub host: &'a str,
    /// The browser's public key.
    pub p256dh: &'a [u8],
    /// The authentication secret that the browser shares with the server.
    pub auth: &'a [u8],
    /// When it expires, in seconds since 1970, if the browser specifies it.
    pub expires_at: Option<f64>,
}

/// The lease of a push that this replica has claimed.
#[derive(Debug, Clone)]
pub struct PushLease {
    subscription: Uuid,
    /// The ride.
    pub ride: String,
    /// The push service.
    pub host: String,
    /// The fencing token: random, drawn when the push was claimed.
    token: i64,
}

/// The current state of a claimed push.
#[derive(Debug)]
pub enum NextPush {
    /// The lease is lost, or another replica has sent it.
    Lost,
    /// It is obsolete: the message was delivered or deleted, or its user or subscription is gone.
    Unneeded,
    /// It is for a later message, which is due after this time.
    Early(Duration),
    /// It must be sent now.
    Due(Box<DuePush>),
}

/// A push to send.
#[derive(Debug)]
pub struct DuePush {
    /// The number of attempts so far.
    pub attempts: i64,
    /// The time since it was created.
    pub age: Duration,
    /// Where it goes.
    pub endpoint: String,
    /// The user it is for.
    pub user: String,
    /// The browser's public key.
    pub p256dh: Vec<u8>,
    /// The authentication secret that the browser shares with the server.
    pub auth: Vec<u8>,
    /// The oldest undelivered message.
    pub message: MessageId,
    /// The number of unread messages of the ride.
    pub unread: i64,
}

impl Store {
    /// Registers a subscription of a user. The user's oldest subscriptions beyond `limit` are deleted. It expires after
    /// `lifetime` at the latest.
    pub async fn put_subscription(
        &self,
        user: &UserId,
        new: &NewSubscription<'_>,
        limit: i64,
        lifetime: Duration,
    ) -> Result<(), StoreError> {
        let NewSubscription { endpoint, host, p256dh, auth, expires_at } = new;
        let session = self.session().await?;
        session
            .execute(
                sql::PUSH_SUBSCRIPTIONS_PUT,
                &[
                    &Uuid::new_v4(),
                    endpoint,
                    &user.as_str(),
                    host,
                    p256dh,
                    auth,
                    expires_at,
                    &limit.saturating_sub(1),
                    &lifetime.as_secs_f64(),
                ],
            )
            .await
            .map(drop)
    }

    /// Deletes a subscription of a user, if it exists.
    pub async fn delete_subscription(&self, user: &UserId, endpoint: &str) -> Result<(), StoreError> {
        let session = self.session().await?;
        session.execute(sql::PUSH_SUBSCRIPTIONS_DELETE, &[&endpoint, &user.as_str()]).await.map(drop)
    }

    /// Deletes the subscription of a push after its push service reported that it is gone. Returns whether it existed.
    pub async fn remove_subscription(&self, lease: &PushLease, endpoint: &str) -> Result<bool, StoreError> {
        let session = self.session().await?;
        Ok(session.execute(sql::PUSH_SUBSCRIPTIONS_REMOVE, &[&lease.subscription, &endpoint]).await? > 0)
    }

    /// Claims pushes that are due: at most `total`, and for each push service at most `per_service` minus those of
    /// `claimed`, which this replica has claimed already.
    pub async fn claim_pushes(
        &self,
        claimed: &[(String, i64)],
        per_service: i64,
        total: i64,
    ) -> Result<Vec<PushLease>, StoreError> {
        let (hosts, counts): (Vec<_>, Vec<_>) = claimed.iter().map(|(host, count)| (host.as_str(), *count)).unzip();
        let token = fastrand::i64(..);
        let session = self.session().await?;
        let params: super::pool::Params<'_> = &[&hosts, &counts, &per_service, &total, &token, &LEASE_SECONDS];
        let rows = session.query(sql::PUSHES_CLAIM, params).await?;
        let lease = |row: &Row| {
            let (subscription, ride) = (row.try_get("subscription_id")?, row.try_get("ride_id")?);
            Ok(PushLease { subscription, ride, host: row.try_get("host")?, token })
        };
        rows.iter().map(lease).collect()
    }

    /// Returns the current state of a claimed push. A message counts as undelivered after `age`.
    pub async fn next_push(&self, lease: &PushLease, age: Duration) -> Result<NextPush, StoreError> {
        let PushLease { subscription, ride, token, .. } = lease;
        let rows = self.read(sql::PUSHES_NEXT, &[subscription, ride, token, &age.as_secs_f64()]).await?;
        rows.first().map_or(Ok(NextPush::Lost), next_from_row)
    }

    /// Deletes a push after its last attempt, if this replica still holds its lease.
    pub async fn end_push(&self, lease: &PushLease) -> Result<(), StoreError> {
        let PushLease { subscription, ride, token, .. } = lease;
        self.session().await?.execute(sql::PUSHES_DONE, &[subscription, ride, token]).await.map(drop)
    }

    /// Releases a push, if this replica still holds its lease. The push is due immediately, and no attempt is added.
    pub async fn release_push(&self, lease: &PushLease) -> Result<(), StoreError> {
        self.postpone_push(lease, Duration::ZERO, 0).await
    }

    /// Releases a push, if this replica still holds its lease. It is due again after `delay`. `attempts` is the number
    /// of attempts to add.
    pub async fn postpone_push(&self, lease: &PushLease, delay: Duration, attempts: i64) -> Result<(), StoreError> {
        let PushLease { subscription, ride, token, .. } = lease;
        let params: super::pool::Params<'_> = &[subscription, ride, token, &delay.as_secs_f64(), &attempts];
        self.session().await?.execute(sql::PUSHES_POSTPONE, params).await.map(drop)
    }
}

fn next_from_row(row: &Row) -> Result<NextPush, StoreError> {
    let Some(message) = row.try_get::<_, Option<Uuid>>("message_id")? else { return Ok(NextPush::Unneeded) };
    let wait = seconds(row.try_get("wait")?);
    if !wait.is_zero() {
        return Ok(NextPush::Early(wait));
    }
    Ok(NextPush::Due(Box::new(DuePush {
        attempts: row.try_get("attempts")?,
        age: seconds(row.try_get("age")?),
        endpoint: row.try_get("endpoint")?,
        user: row.try_get("user_id")?,
        p256dh: row.try_get("p256dh")?,
        auth: row.try_get("auth")?,
        message: MessageId(message),
        unread: row.try_get("unread_count")?,
    })))
}

/// Converts seconds into a duration; zero if they are negative.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
