//! The deliveries of the feed's events to webhook endpoints.
//!
//! For each endpoint and topic there is a queue, whose oldest pending delivery alone is attempted: this keeps the order within a ride. A
//! replica takes a queue under a lease, and what it records counts only while it has the lease. Statements lock queues in the order of
//! their keys, and a delivery only after its queue, so none waits for another in a circle.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;

use super::feed::envelope;
use super::pool::{Pool, Session, Store, read};
use super::rows::seconds;
use super::webhooks::secrets;
use super::{StoreError, sql};
use crate::domain::{Seq, Time};

/// How long a replica has a queue without renewing its lease: longer than an attempt may take and its outcome may wait for the
/// database.
const LEASE_SECONDS: f64 = 45.0;

/// A queue that this replica has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The endpoint.
    pub webhook: String,
    /// The topic.
    pub topic: String,
    /// Drawn at random when the queue was taken.
    pub token: i64,
}

/// Queues that were taken.
pub type Claimed = Vec<Lease>;

/// A delivery to be attempted.
#[derive(Debug)]
pub struct Due {
    /// Where it goes.
    pub url: String,
    /// What signs it, the newest first.
    pub secrets: Vec<Vec<u8>>,
    /// How long the endpoint has been failing, if it is.
    pub failing: Option<Duration>,
    /// The event's position in the feed.
    pub position: Seq,
    /// The event's topic.
    pub topic: String,
    /// The event's number on its topic.
    pub seq: Seq,
    /// The event's type.
    pub kind: String,
    /// When the event was committed.
    pub at: Time,
    /// How many attempts there were.
    pub attempts: i64,
    /// How long ago the first one was, if there was one.
    pub age: Option<Duration>,
    /// The event's data as in the feed; `None` where it has expired or was erased.
    pub data: Option<String>,
}

/// What has come of an attempt.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// The delivery.
    pub position: Seq,
    /// Its state now.
    pub state: DeliveryState,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// Why it has failed.
    pub error: Option<String>,
    /// When to try again, where it is pending.
    pub delay: Duration,
}

/// What is known of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is to be attempted, for the first time or again.
    Pending,
    /// There are no more attempts.
    Failed,
    /// The endpoint has it.
    Delivered,
}

impl DeliveryState {
    /// As it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
        }
    }

    /// Parses what [`DeliveryState::as_str`] returns.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Failed, Self::Delivered].into_iter().find(|state| state.as_str() == text)
    }
}

/// A delivery, as its list shows it.
#[derive(Debug)]
pub struct Delivery {
    /// The event's position in the feed.
    pub position: Seq,
    /// The event's topic.
    pub topic: String,
    /// The event's number on its topic.
    pub seq: Seq,
    /// The event's type.
    pub kind: String,
    /// When the event was committed.
    pub at: Time,
    /// How many attempts there were.
    pub attempts: i64,
    /// The status of the last response, if there was one.
    pub status: Option<i64>,
    /// How long the last attempt took, in milliseconds.
    pub duration_ms: Option<i64>,
    /// Why it has failed.
    pub error: Option<String>,
    /// When the next attempt is, after one that has failed.
    pub next_attempt_at: Option<Time>,
}

/// An endpoint whose deliveries were created up to a later position.
#[derive(Debug)]
pub struct FannedOut {
    /// The endpoint.
    pub webhook: String,
    /// How many events the feed has lost before they had deliveries.
    pub missed: i64,
}

impl Store {
    /// The active endpoints, and of each whether the feed has events that it has no deliveries of yet.
    pub async fn active_webhooks(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let rows = self.read(sql::WEBHOOKS_ACTIVE, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("is_behind")?))).collect()
    }

    /// Creates the deliveries of the next events, of at most `positions` positions of the feed for each endpoint. Endpoints that
    /// another replica is at are left out.
    pub async fn fan_out(&self, webhooks: &[String], positions: i64) -> Result<Vec<FannedOut>, StoreError> {
        let session = self.session().await?;
        match fan_out(&session, webhooks, positions).await {
            Ok(moved) => Ok(moved),
            Err(error) => {
                session.abandon();
                Err(error)
            }
        }
    }

    /// Takes queues that are due: of each endpoint at most so many.
    pub async fn claim_queues(&self, slots: &[(String, i64)]) -> Result<Claimed, StoreError> {
        let (webhooks, slots): (Vec<_>, Vec<_>) =
            slots.iter().map(|(webhook, slots)| (webhook.as_str(), *slots)).unzip();
        let token = fastrand::i64(..);
        let session = self.session().await?;
        let rows = session.query(sql::WEBHOOKS_CLAIM, &[&webhooks, &slots, &token, &LEASE_SECONDS]).await?;
        let lease = |row: &Row| Ok(Lease { webhook: row.try_get("webhook_id")?, topic: row.try_get("topic")?, token });
        rows.iter().map(lease).collect()
    }

    /// The delivery that is next in a queue; `None` where there is none, the endpoint is not active, or the lease is lost.
    pub async fn next_delivery(&self, lease: &Lease) -> Result<Option<Due>, StoreError> {
        self.due.ask(lease.clone()).await
    }

    /// Records an attempt. Returns whether the queue has more and is still this replica's.
    pub async fn record_attempt(&self, lease: &Lease, attempted: Attempted) -> Result<bool, StoreError> {
        self.attempts.ask((lease.clone(), attempted)).await
    }

    /// Gives queues back, which are due again after `delay`.
    pub async fn release_queues(&self, mut leases: Vec<Lease>, delay: Duration) -> Result<(), StoreError> {
        leases.sort_unstable();
        let (webhooks, topics, tokens) = keys(leases.iter());
        let params: super::pool::Params<'_> = &[&webhooks, &topics, &tokens, &delay.as_secs_f64()];
        self.session().await?.execute(sql::WEBHOOKS_RELEASE, params).await.map(drop)
    }

    /// Makes deliveries of an endpoint due that wait for their next attempt: at most `limit`. Returns how many.
    pub async fn retry_webhook_now(&self, webhook: &str, limit: i64) -> Result<u64, StoreError> {
        self.session().await?.execute(sql::WEBHOOKS_RETRY_NOW, &[&webhook, &limit]).await
    }

    /// Notes that an endpoint fails from now on, or no longer.
    pub async fn set_webhook_failing(&self, webhook: &str, is_failing: bool) -> Result<(), StoreError> {
        self.session().await?.execute(sql::WEBHOOKS_FAILING, &[&webhook, &is_failing]).await.map(drop)
    }

    /// Disables an endpoint. Returns whether it was active.
    pub async fn disable_webhook(&self, webhook: &str) -> Result<bool, StoreError> {
        let rows = self.session().await?.query(sql::WEBHOOKS_DISABLE, &[&webhook]).await?;
        Ok(!rows.is_empty())
    }

    /// Deliveries of an endpoint before a position, newest first; of one state, where one is given.
    pub async fn deliveries(
        &self,
        webhook: &str,
        state: Option<DeliveryState>,
        before: Seq,
        limit: i64,
    ) -> Result<Vec<Delivery>, StoreError> {
        let rows = match state.map(DeliveryState::as_str) {
            Some(state) => self.read(sql::WEBHOOKS_DELIVERIES_IN_STATE, &[&webhook, &before, &limit, &state]).await?,
            None => self.read(sql::WEBHOOKS_DELIVERIES, &[&webhook, &before, &limit]).await?,
        };
        let delivery = |row: &Row| {
            Ok(Delivery {
                position: row.try_get("position")?,
                topic: row.try_get("topic")?,
                seq: row.try_get("seq")?,
                kind: row.try_get("type")?,
                at: Time::from(row.try_get::<_, jiff::Timestamp>("at")?),
                attempts: row.try_get("attempts")?,
                status: row.try_get("status")?,
                duration_ms: row.try_get("duration_ms")?,
                error: row.try_get("error")?,
                next_attempt_at: row.try_get::<_, Option<jiff::Timestamp>>("next_attempt_at")?.map(Time::from),
            })
        };
        rows.iter().map(delivery).collect()
    }

    /// How old the oldest event is that an active endpoint has not received.
    pub async fn oldest_undelivered(&self) -> Result<Option<Duration>, StoreError> {
        let rows = self.read(sql::WEBHOOKS_OLDEST, &[]).await?;
        rows.first().map_or(Ok(None), |row| seconds(row, "age"))
    }
}

async fn fan_out(session: &Session, webhooks: &[String], positions: i64) -> Result<Vec<FannedOut>, StoreError> {
    session.prepare(&[sql::WEBHOOKS_LOCK, sql::WEBHOOKS_FAN_OUT]).await?;
    session.begin("").await?;
    let locked = session.query(sql::WEBHOOKS_LOCK, &[&webhooks]).await?;
    let locked = locked.iter().map(|row| row.try_get("id")).collect::<Result<Vec<String>, _>>()?;
    if locked.is_empty() {
        session.batch_execute("rollback").await?;
        return Ok(Vec::new());
    }
    let params: super::pool::Params<'_> = &[&locked, &positions];
    let (moved, committed) =
        tokio::join!(biased; session.query(sql::WEBHOOKS_FAN_OUT, params), session.batch_execute("commit"));
    let moved = moved?;
    committed?;
    moved.iter().map(|row| Ok(FannedOut { webhook: row.try_get("id")?, missed: row.try_get("missed")? })).collect()
}

/// Reads the next delivery of each queue.
pub(super) async fn due(pool: Pool, leases: Vec<Lease>) -> Result<Vec<Option<Due>>, StoreError> {
    let (webhooks, topics, tokens) = keys(leases.iter());
    let rows = read(&pool, sql::WEBHOOKS_NEXT, &[&webhooks, &topics, &tokens]).await?;
    let mut found = HashMap::new();
    for row in &rows {
        let key: (String, String) = (row.try_get("webhook_id")?, row.try_get("topic")?);
        found.insert(key, due_from_row(row)?);
    }
    Ok(leases.into_iter().map(|lease| found.remove(&(lease.webhook, lease.topic))).collect())
}

fn due_from_row(row: &Row) -> Result<Due, StoreError> {
    let (topic, seq): (String, Seq) = (row.try_get("topic")?, row.try_get("seq")?);
    let at = Time::from(row.try_get::<_, jiff::Timestamp>("at")?);
    let data = row.try_get::<_, Option<&str>>("data")?.map(|data| envelope(&topic, seq, at, data));
    Ok(Due {
        url: row.try_get("url")?,
        secrets: secrets(row)?,
        failing: seconds(row, "failing")?,
        position: row.try_get("position")?,
        topic,
        seq,
        kind: row.try_get("type")?,
        at,
        attempts: row.try_get("attempts")?,
        age: seconds(row, "age")?,
        data,
    })
}

/// Records attempts. Of each, returns whether its queue has more and is still this replica's.
pub(super) async fn finish(pool: Pool, attempts: Vec<(Lease, Attempted)>) -> Result<Vec<bool>, StoreError> {
    let mut sorted: Vec<_> = attempts.iter().collect();
    sorted.sort_unstable_by_key(|(lease, _)| lease);
    let (webhooks, topics, tokens) = keys(sorted.iter().map(|(lease, _)| lease));
    let of = sorted.iter().map(|(_, attempted)| attempted);
    let positions: Vec<_> = of.clone().map(|attempted| attempted.position).collect();
    let states: Vec<_> = of.clone().map(|attempted| attempted.state.as_str()).collect();
    let statuses: Vec<_> = of.clone().map(|attempted| attempted.status.map(i64::from)).collect();
    let durations: Vec<_> =
        of.clone().map(|attempted| i64::try_from(attempted.took.as_millis()).unwrap_or(i64::MAX)).collect();
    let errors: Vec<_> = of.clone().map(|attempted| attempted.error.as_deref()).collect();
    let delays: Vec<_> = of.map(|attempted| attempted.delay.as_secs_f64()).collect();
    let params: super::pool::Params<'_> =
        &[&webhooks, &topics, &tokens, &LEASE_SECONDS, &positions, &states, &statuses, &durations, &errors, &delays];
    let rows = Session::get(&pool).await?.query(sql::WEBHOOKS_FINISH, params).await?;
    let mut more = HashMap::new();
    for row in &rows {
        let key: (&str, &str) = (row.try_get("webhook_id")?, row.try_get("topic")?);
        more.insert(key, row.try_get("has_more")?);
    }
    let has_more = |(lease, _): &(Lease, Attempted)| more.get(&(&*lease.webhook, &*lease.topic)).copied();
    Ok(attempts.iter().map(|attempt| has_more(attempt).unwrap_or(false)).collect())
}

type Keys<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<i64>);

fn keys<'a>(leases: impl Iterator<Item = &'a Lease>) -> Keys<'a> {
    let (mut webhooks, mut topics, mut tokens) = Keys::default();
    for lease in leases {
        webhooks.push(lease.webhook.as_str());
        topics.push(lease.topic.as_str());
        tokens.push(lease.token);
    }
    (webhooks, topics, tokens)
}
