//! Retention: deletes expired data in small steps.

use std::time::Duration;

use super::pool::{Params, Session, Store};
use super::rows::seconds;
use super::{StoreError, sql};

/// The maximum number of rows that one statement deletes, so that it blocks others only for milliseconds.
const PAGE: i64 = 1_000;

/// The timeout of a statement on a busy database. No request waits for it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long failed webhook deliveries are listed, in seconds: 30 days.
const FAILED_DELIVERIES_SECONDS: f64 = 30.0 * 24.0 * 3_600.0;

/// How long data is kept after a ride's end, unless stated otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// The ride's log. Events of user topics are kept as long, from their commit.
    pub logs: Duration,
    /// Messages, and with them the ride itself.
    pub messages: Duration,
    /// The feed, from the time of each event.
    pub feed: Duration,
    /// Records of messages handed to connections, from their time.
    pub handovers: Duration,
    /// The audit log, from the time of each entry.
    pub audit: Duration,
}

impl Retention {
    /// The kinds of data whose lag is measured.
    pub const KINDS: [&str; 4] = ["ride_logs", "user_logs", "messages", "feed"];
}

impl Store {
    /// Deletes some expired data in one short transaction, and returns the number of rows. Does nothing while another
    /// replica runs it.
    pub async fn trim(&self, retention: Retention) -> Result<u64, StoreError> {
        let session = self.session_for_long_statements(STATEMENT_TIMEOUT).await?;
        match trim(&session, retention).await {
            Ok(deleted) => Ok(deleted),
            Err(error) => {
                session.release_after_error(&error).await;
                Err(error)
            }
        }
    }

    /// Returns for each [kind](Retention::KINDS) how long its oldest data is overdue for deletion.
    pub async fn retention_lag(&self, retention: Retention) -> Result<[Duration; 4], StoreError> {
        let [logs, messages, feed] =
            [retention.logs, retention.messages, retention.feed].map(|duration| duration.as_secs_f64());
        let rows = self.read(sql::RETENTION_LAG, &[&logs, &messages, &feed]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("no row"))?;
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
        [logs, messages, feed, handovers, audit].map(|duration| duration.as_secs_f64());
    session.begin("").await?;
    let rows = session.query(sql::RETENTION_LOCK, &[]).await?;
    let is_acquired = rows.first().map_or(Ok(false), |row| row.try_get("is_acquired"))?;
    let mut deleted = 0;
    if is_acquired {
        let steps: [(&str, Params<'_>); 17] = [
            (sql::EVENTS_TRIM, &[&logs, &PAGE]),
            (sql::RIDES_MARK_TRIMMED, &[&logs]),
            (sql::EVENTS_TRIM_USERS, &[&logs, &PAGE]),
            (sql::MESSAGES_TRIM, &[&messages, &PAGE]),
            (sql::RIDES_DELETE, &[&messages]),
            (sql::FEED_TRIM, &[&feed, &PAGE]),
            (sql::FEED_TRIM_RANGES, &[&feed, &PAGE]),
            (sql::WEBHOOKS_TRIM, &[&"delivered", &feed, &PAGE]),
            (sql::WEBHOOKS_TRIM, &[&"failed", &FAILED_DELIVERIES_SECONDS, &PAGE]),
            (sql::WEBHOOKS_TRIM_QUEUES, &[&PAGE]),
            (sql::WEBHOOKS_TRIM_DELETED_DELIVERIES, &[&PAGE]),
            (sql::WEBHOOKS_TRIM_DELETED_QUEUES, &[&PAGE]),
            (sql::WEBHOOKS_TRIM_DELETED, &[]),
            (sql::PUSH_SUBSCRIPTIONS_TRIM, &[&PAGE]),
            (sql::HANDOVERS_TRIM, &[&handovers, &PAGE]),
            (sql::AUDIT_TRIM, &[&audit, &PAGE]),
            (sql::REMOTE_RIDES_TRIM, &[&PAGE]),
        ];
        for (statement, params) in steps {
            deleted += session.execute(statement, params).await?;
        }
    }
    session.batch_execute("commit").await?;
    Ok(deleted)
}
