//! The deliveries of the feed's events to webhook endpoints.
//!
//! Each endpoint has a queue per topic. Only the oldest pending delivery of a queue is attempted, so the order within a
//! ride is kept. A replica claims a queue under a lease; its records are accepted only while it holds the lease.
//! Statements lock queues in the order of their keys, and a delivery only after its queue, so they cannot deadlock.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;

use super::batched::{AttemptOutcome, DeliveryState, DueDelivery, Lease};
use super::batcher::Responses;
use super::feed::feed_data;
use super::pool::{Pool, Session, Store, read};
use super::rows::seconds;
use super::webhooks::secrets;
use super::{StoreError, sql};
use crate::domain::{Seq, Time};

/// The lease of a queue. It is longer than an attempt may take plus the time until its outcome is stored.
const LEASE_SECONDS: f64 = 45.0;

/// A delivery in the list of an endpoint's deliveries.
#[derive(Debug)]
pub struct Delivery {
    /// The event's position in the feed.
    pub position: Seq,
    /// The event's topic.
    pub topic: String,
    /// The event's seq on its topic.
    pub seq: Seq,
    /// The event's type.
    pub kind: String,
    /// When the event was committed.
    pub at: Time,
    /// The number of attempts so far.
    pub attempts: i64,
    /// The status of the last response, if there was one.
    pub status: Option<i64>,
    /// The duration of the last attempt, in milliseconds.
    pub duration_ms: Option<i64>,
    /// The error of the last failed attempt.
    pub error: Option<String>,
    /// The time of the next attempt after a failed one.
    pub next_attempt_at: Option<Time>,
}

/// The result of a fan-out for one endpoint.
#[derive(Debug)]
pub struct FanOut {
    /// The endpoint.
    pub webhook: String,
    /// The number of events that expired from the feed before deliveries were created for them.
    pub missed: i64,
}

impl Store {
    /// Returns the active endpoints, each with whether the feed has events without deliveries to it.
    pub async fn active_webhooks(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let rows = self.read(sql::WEBHOOKS_ACTIVE, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("is_behind")?))).collect()
    }

    /// Creates the deliveries of the next events, for each endpoint from at most `positions` positions of the feed.
    /// Endpoints that another replica is processing are skipped.
    pub async fn fan_out(&self, webhooks: &[String], positions: i64) -> Result<Vec<FanOut>, StoreError> {
        let session = self.session().await?;
        match fan_out(&session, webhooks, positions).await {
            Ok(moved) => Ok(moved),
            Err(error) => {
                session.abandon();
                Err(error)
            }
        }
    }

    /// Claims queues that are due, for each endpoint at most as many as its slots.
    pub async fn claim_queues(&self, slots: &[(String, i64)]) -> Result<Vec<Lease>, StoreError> {
        let (webhooks, slots): (Vec<_>, Vec<_>) =
            slots.iter().map(|(webhook, slots)| (webhook.as_str(), *slots)).unzip();
        let token = fastrand::i64(..);
        let session = self.session().await?;
        let rows = session.query(sql::WEBHOOKS_CLAIM, &[&webhooks, &slots, &token, &LEASE_SECONDS]).await?;
        let lease = |row: &Row| Ok(Lease { webhook: row.try_get("webhook_id")?, topic: row.try_get("topic")?, token });
        rows.iter().map(lease).collect()
    }

    /// Returns the next delivery of a queue; `None` if there is none, the endpoint is not active, or the lease is lost.
    pub async fn next_delivery(&self, lease: &Lease) -> Result<Option<DueDelivery>, StoreError> {
        self.next_deliveries.submit(lease.clone()).await
    }

    /// Records the outcome of an attempt. Returns whether the queue has more deliveries and this replica still holds
    /// its lease.
    pub async fn record_attempt(&self, lease: &Lease, outcome: AttemptOutcome) -> Result<bool, StoreError> {
        self.attempt_outcomes.submit((lease.clone(), outcome)).await
    }

    /// Releases queues. They are due again after `delay`.
    pub async fn release_queues(&self, mut leases: Vec<Lease>, delay: Duration) -> Result<(), StoreError> {
        leases.sort_unstable();
        let (webhooks, topics, tokens) = keys(leases.iter());
        let params: super::pool::Params<'_> = &[&webhooks, &topics, &tokens, &delay.as_secs_f64()];
        self.session().await?.execute(sql::WEBHOOKS_RELEASE, params).await.map(drop)
    }

    /// Makes queues of an endpoint due that wait for their next attempt, at most `limit`. Returns how many.
    pub async fn retry_webhook_now(&self, webhook: &str, limit: i64) -> Result<u64, StoreError> {
        self.session().await?.execute(sql::WEBHOOKS_RETRY_NOW, &[&webhook, &limit]).await
    }

    /// Records whether an endpoint is failing.
    pub async fn set_webhook_failing(&self, webhook: &str, is_failing: bool) -> Result<(), StoreError> {
        self.session().await?.execute(sql::WEBHOOKS_FAILING, &[&webhook, &is_failing]).await.map(drop)
    }

    /// Disables an endpoint. Returns whether it was active.
    pub async fn disable_webhook(&self, webhook: &str) -> Result<bool, StoreError> {
        let rows = self.session().await?.query(sql::WEBHOOKS_DISABLE, &[&webhook]).await?;
        Ok(!rows.is_empty())
    }

    /// Returns the deliveries of an endpoint before a feed position, newest first, optionally of one state.
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

    /// Returns the age of the oldest event that an active endpoint has not received.
    pub async fn oldest_undelivered(&self) -> Result<Option<Duration>, StoreError> {
        let rows = self.read(sql::WEBHOOKS_OLDEST, &[]).await?;
        rows.first().map_or(Ok(None), |row| seconds(row, "age"))
    }
}

async fn fan_out(session: &Session, webhooks: &[String], positions: i64) -> Result<Vec<FanOut>, StoreError> {
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
    moved.iter().map(|row| Ok(FanOut { webhook: row.try_get("id")?, missed: row.try_get("missed")? })).collect()
}

/// Loads the next delivery of each queue.
pub(super) async fn next_deliveries(pool: Pool, leases: Vec<Lease>) -> Responses<Option<DueDelivery>> {
    let (webhooks, topics, tokens) = keys(leases.iter());
    let rows = read(&pool, sql::WEBHOOKS_NEXT, &[&webhooks, &topics, &tokens]).await?;
    let mut found = HashMap::new();
    for row in &rows {
        let key: (String, String) = (row.try_get("webhook_id")?, row.try_get("topic")?);
        found.insert(key, delivery_from_row(row));
    }
    Ok(leases.into_iter().map(|lease| found.remove(&(lease.webhook, lease.topic)).transpose()).collect())
}

fn delivery_from_row(row: &Row) -> Result<DueDelivery, StoreError> {
    let (topic, seq): (String, Seq) = (row.try_get("topic")?, row.try_get("seq")?);
    let at = Time::from(row.try_get::<_, jiff::Timestamp>("at")?);
    let data = row.try_get::<_, Option<&str>>("data")?.map(|data| feed_data(&topic, seq, at, data));
    Ok(DueDelivery {
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

/// Records the outcomes of attempts. Returns for each whether its queue has more deliveries and its lease is still
/// held.
pub(super) async fn record_attempts(pool: Pool, attempts: Vec<(Lease, AttemptOutcome)>) -> Responses<bool> {
    let mut sorted: Vec<_> = attempts.iter().collect();
    sorted.sort_unstable_by_key(|(lease, _)| lease);
    let (webhooks, topics, tokens) = keys(sorted.iter().map(|(lease, _)| lease));
    let outcomes = sorted.iter().map(|(_, outcome)| outcome);
    let positions: Vec<_> = outcomes.clone().map(|outcome| outcome.position).collect();
    let states: Vec<_> = outcomes.clone().map(|outcome| outcome.state.as_str()).collect();
    let statuses: Vec<_> = outcomes.clone().map(|outcome| outcome.status.map(i64::from)).collect();
    let durations: Vec<_> =
        outcomes.clone().map(|outcome| i64::try_from(outcome.took.as_millis()).unwrap_or(i64::MAX)).collect();
    let errors: Vec<_> = outcomes.clone().map(|outcome| outcome.error.as_deref()).collect();
    let delays: Vec<_> = outcomes.map(|outcome| outcome.delay.as_secs_f64()).collect();
    let params: super::pool::Params<'_> =
        &[&webhooks, &topics, &tokens, &LEASE_SECONDS, &positions, &states, &statuses, &durations, &errors, &delays];
    let rows = Session::get(&pool).await?.query(sql::WEBHOOKS_FINISH, params).await?;
    let mut has_more = HashMap::new();
    for row in &rows {
        let key: (&str, &str) = (row.try_get("webhook_id")?, row.try_get("topic")?);
        has_more.insert(key, row.try_get("has_more")?);
    }
    let of_queue = |(lease, _): &(Lease, AttemptOutcome)| has_more.get(&(&*lease.webhook, &*lease.topic)).copied();
    Ok(attempts.iter().map(|attempt| Ok(of_queue(attempt).unwrap_or(false))).collect())
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
