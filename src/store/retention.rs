//! Taking away what is old, a little at a time.

use std::time::Duration;

use super::pool::{Params, Session, Store};
use super::rows::seconds;
use super::{StoreError, sql};
use crate::domain::{RideId, Seq};

/// The most rows of one statement: what it holds up is held up for milliseconds.
const PAGE: i64 = 1_000;

/// How long one of the statements may take, on a database that is busy: nobody waits for it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long failed webhook deliveries are listed, in seconds: 30 days.
const DEAD_LETTERS: f64 = 30.0 * 24.0 * 3_600.0;

/// How long what is over is kept, from a ride's end.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Logs.
    pub logs: Duration,
    /// Messages, and with them the ride itself.
    pub messages: Duration,
    /// The feed, from the time of each event.
    pub feed: Duration,
    /// When messages were handed to connections, from then on.
    pub handovers: Duration,
    /// The audit log, from the time of each entry.
    pub audit: Duration,
}

impl Retention {
    /// The kinds of data whose lag is measured.
    pub const KINDS: [&str; 4] = ["ride_logs", "user_logs", "messages", "feed"];
}

/// Where a message is: the ride, and its number there.
pub type Place = (RideId, Seq);

impl Store {
    /// Takes away some of what is too old, in one short transaction, and says how many rows that were. Nothing where
    /// another replica is at it.
    pub async fn trim(&self, retention: Retention) -> Result<u64, StoreError> {
        let session = self.session_for_long_statements(STATEMENT_TIMEOUT).await?;
        match trim(&session, retention).await {
            Ok(taken) => Ok(taken),
            Err(error) => {
                session.give_up(&error).await;
                Err(error)
            }
        }
    }

    /// How long the oldest data of each [kind](Retention::KINDS) is overdue that is to be deleted.
    pub async fn retention_lag(&self, retention: Retention) -> Result<[Duration; 4], StoreError> {
        let [logs, messages, feed] =
            [retention.logs, retention.messages, retention.feed].map(|kept| kept.as_secs_f64());
        let rows = self.read(sql::RETENTION_LAG, &[&logs, &messages, &feed]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("no answer"))?;
        let mut lags = [Duration::ZERO; 4];
        for (lag, kind) in lags.iter_mut().zip(Retention::KINDS) {
            *lag = seconds(row, kind)?.unwrap_or_default();
        }
        Ok(lags)
    }
}

async fn trim(session: &Session, retention: Retention) -> Result<u64, StoreError> {
    let Retention { logs, messages, feed, handovers, audit } = retention;
    let [logs, messages, feed, handovers, audit] =
        [logs, messages, feed, handovers, audit].map(|kept| kept.as_secs_f64());
    session.begin("").await?;
    let rows = session.query(sql::RETENTION_LOCK, &[]).await?;
    let is_mine = rows.first().map_or(Ok(false), |row| row.try_get("is_mine"))?;
    let mut taken = 0;
    if is_mine {
        let steps: [(&str, Params<'_>); 15] = [
            (sql::EVENTS_TRIM, &[&logs, &PAGE]),
            (sql::RIDES_TRIMMED, &[&logs]),
            (sql::EVENTS_TRIM_USERS, &[&logs, &PAGE]),
            (sql::MESSAGES_TRIM, &[&messages, &PAGE]),
            (sql::RIDES_FORGET, &[&messages]),
            (sql::FEED_TRIM, &[&feed, &PAGE]),
            (sql::WEBHOOKS_TRIM, &[&"delivered", &feed, &PAGE]),
            (sql::WEBHOOKS_TRIM, &[&"failed", &DEAD_LETTERS, &PAGE]),
            (sql::WEBHOOKS_TRIM_QUEUES, &[&PAGE]),
            (sql::WEBHOOKS_TRIM_DELETED_DELIVERIES, &[&PAGE]),
            (sql::WEBHOOKS_TRIM_DELETED_QUEUES, &[&PAGE]),
            (sql::WEBHOOKS_TRIM_DELETED, &[]),
            (sql::PUSH_SUBSCRIPTIONS_TRIM, &[&PAGE]),
            (sql::HANDOVERS_TRIM, &[&handovers, &PAGE]),
            (sql::AUDIT_TRIM, &[&audit, &PAGE]),
        ];
        for (statement, params) in steps {
            taken += session.execute(statement, params).await?;
        }
    }
    session.batch_execute("commit").await?;
    Ok(taken)
}
