//! Subscriptions to Web Push, and the pushes that are due.
//!
//! Pushes are created by the statement that puts `message:undelivered` on the feed, so an event without its pushes is never committed.
//! A replica takes a push under a lease, and what it records counts only while it has the lease. Statements lock one push each, or skip
//! those that are locked; so they wait for others, but never in a circle.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::pool::Store;
use super::{StoreError, sql};
use crate::domain::{MessageId, UserId};

/// How long a replica has a push: longer than an attempt may take and its outcome may wait for the database.
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
    /// The secret that it shares with us.
    pub auth: &'a [u8],
    /// When it expires, in seconds after 1970, where the browser says so.
    pub expires_at: Option<f64>,
}

/// A push that this replica has.
#[derive(Debug, Clone)]
pub struct PushLease {
    subscription: Uuid,
    /// The ride.
    pub ride: String,
    /// The push service.
    pub host: String,
    /// Drawn at random when the push was taken.
    token: i64,
}

/// What a push says now.
#[derive(Debug)]
pub enum NextPush {
    /// The lease is lost, or another replica has sent it.
    Lost,
    /// There is nothing left to say: the message was delivered or deleted, or its user or subscription has gone.
    Unneeded,
    /// It is for a message that is not due before so long.
    Early(Duration),
    /// It is to be sent.
    Due(Box<DuePush>),
}

/// A push that is to be sent.
#[derive(Debug)]
pub struct DuePush {
    /// How many attempts there were.
    pub attempts: i64,
    /// How long ago it was created.
    pub age: Duration,
    /// Where it goes.
    pub endpoint: String,
    /// Whom it is for.
    pub user: String,
    /// The browser's public key.
    pub p256dh: Vec<u8>,
    /// The secret that it shares with us.
    pub auth: Vec<u8>,
    /// The oldest message that was not delivered.
    pub message: MessageId,
    /// How many messages of the ride the user has not read.
    pub unread: i64,
}

impl Store {
    /// Registers a subscription for a user, who has at most `limit` then. It expires after `lifetime` at the latest.
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

    /// Deletes a subscription of a user, if there is one.
    pub async fn delete_subscription(&self, user: &UserId, endpoint: &str) -> Result<(), StoreError> {
        let session = self.session().await?;
        session.execute(sql::PUSH_SUBSCRIPTIONS_DELETE, &[&endpoint, &user.as_str()]).await.map(drop)
    }

    /// Deletes the subscription of a push, which its push service no longer has. Returns whether it was there.
    pub async fn remove_subscription(&self, lease: &PushLease, endpoint: &str) -> Result<bool, StoreError> {
        let session = self.session().await?;
        Ok(session.execute(sql::PUSH_SUBSCRIPTIONS_REMOVE, &[&lease.subscription, &endpoint]).await? > 0)
    }

    /// Takes pushes that are due: at most `in_all`, and of each push service at most `of_service` without those that are `held`.
    pub async fn claim_pushes(
        &self,
        held: &[(String, i64)],
        of_service: i64,
        in_all: i64,
    ) -> Result<Vec<PushLease>, StoreError> {
        let (hosts, counts): (Vec<_>, Vec<_>) = held.iter().map(|(host, count)| (host.as_str(), *count)).unzip();
        let token = fastrand::i64(..);
        let session = self.session().await?;
        let params: super::pool::Params<'_> = &[&hosts, &counts, &of_service, &in_all, &token, &LEASE_SECONDS];
        let rows = session.query(sql::PUSHES_CLAIM, params).await?;
        let lease = |row: &Row| {
            let (subscription, ride) = (row.try_get("subscription_id")?, row.try_get("ride_id")?);
            Ok(PushLease { subscription, ride, host: row.try_get("host")?, token })
        };
        rows.iter().map(lease).collect()
    }

    /// What a push says now. A message counts as undelivered once it is `age` old.
    pub async fn next_push(&self, lease: &PushLease, age: Duration) -> Result<NextPush, StoreError> {
        let PushLease { subscription, ride, token, .. } = lease;
        let rows = self.read(sql::PUSHES_NEXT, &[subscription, ride, token, &age.as_secs_f64()]).await?;
        rows.first().map_or(Ok(NextPush::Lost), next_from_row)
    }

    /// Ends a push, if it is still this replica's.
    pub async fn end_push(&self, lease: &PushLease) -> Result<(), StoreError> {
        let PushLease { subscription, ride, token, .. } = lease;
        self.session().await?.execute(sql::PUSHES_DONE, &[subscription, ride, token]).await.map(drop)
    }

    /// Gives a push back, which is due again after `delay`, if it is still this replica's. `attempts` is how many there were.
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

/// No time where a moment has passed.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
