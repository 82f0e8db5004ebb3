//! The feed: one ordered sequence of positions over the logs of all topics.
//!
//! The relay assigns positions under the lock of the feed's head, so positions have no holes. A statement after the
//! lock reads which batches have no positions yet, so its snapshot includes the previous relay's work. Everything else
//! that is added to the feed is added under the same lock. A page joins the positions with the logs, so deletions and
//! erasures in the logs apply to the feed.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::batched::{EVENT_BYTES, PageRequest, StoredEvent};
use super::pool::{Params, Pool, Session, Store, read};
use super::rows::seconds;
use super::{StoreError, sql};
use crate::domain::{EventType, MessageId, Seq, Time};

/// The interval at which the relay's progress is polled.
pub(super) const RELAY_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The result of one step of the relay or of the search for undelivered messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStep {
    /// There was nothing to do.
    Nothing,
    /// The step made progress but added nothing to the feed.
    Advanced,
    /// Another replica holds the lock.
    Busy,
    /// Events were added to the feed.
    Appended {
        /// The last position of the feed.
        last: Seq,
        /// Whether there may be more to do.
        has_more: bool,
    },
}

impl Store {
    /// Assigns feed positions to the events of at most `batches` batches that have none.
    pub async fn relay(&self, batches: i64) -> Result<FeedStep, StoreError> {
        let outcome = |row: Option<&Row>| match row {
            Some(row) => Ok(FeedStep::Appended {
                last: row.try_get("last_seq")?,
                has_more: row.try_get::<_, i64>("batches")? >= batches,
            }),
            None => Ok(FeedStep::Nothing),
        };
        self.with_head_locked(sql::FEED_RELAY, &[&batches], outcome).await
    }

    /// Returns whether the feed has events older than `age` that [`Self::find_undelivered`] has not processed.
    pub async fn has_unchecked_older_than(&self, age: Duration) -> Result<bool, StoreError> {
        let rows = self.read(sql::FEED_IS_DUE, &[&age.as_secs_f64()]).await?;
        rows.first().map_or(Ok(false), |row| Ok(row.try_get("is_due")?))
    }

    /// Processes at most `limit` feed events that are older than `age`. Adds `message:undelivered` to the feed for
    /// messages that have not been delivered.
    pub async fn find_undelivered(&self, age: Duration, limit: i64) -> Result<FeedStep, StoreError> {
        let outcome = |row: Option<&Row>| {
            let row = row.ok_or(StoreError::Corrupt("no row"))?;
            let (processed, last): (i64, Option<Seq>) = (row.try_get("processed")?, row.try_get("last_seq")?);
            Ok(match last {
                Some(last) => FeedStep::Appended { last, has_more: true },
                None if processed > 0 => FeedStep::Advanced,
                None => FeedStep::Nothing,
            })
        };
        self.with_head_locked(sql::FEED_UNDELIVERED, &[&age.as_secs_f64(), &limit], outcome).await
    }

    /// Waits until the relay has assigned positions to everything that is committed now, at most for `timeout`.
    pub async fn wait_for_relay(&self, timeout: Duration) -> Result<(), StoreError> {
        let rows = self.read(sql::FEED_LAST_UNRELAYED, &[]).await?;
        let last = rows.first().map(|row| row.try_get::<_, Option<i64>>("id")).transpose()?.flatten();
        let Some(last) = last else { return Ok(()) };
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let rows = self.read(sql::FEED_HAS_UNRELAYED, &[&last]).await?;
            if !rows.first().map_or(Ok(false), |row| row.try_get("has_unrelayed"))? {
                break;
            }
            sleep(RELAY_POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Returns the number of batches without positions, at most 1,000.
    pub async fn batches_to_relay(&self) -> Result<i64, StoreError> {
        let rows = self.read(sql::FEED_UNRELAYED, &[]).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get("count")?))
    }

    /// Returns the age of the oldest event without a position, or zero.
    pub async fn relay_lag(&self) -> Result<Duration, StoreError> {
        let rows = self.read(sql::FEED_LAG, &[]).await?;
        let lag = rows.first().map_or(Ok(None), |row| seconds(row, "age"))?;
        Ok(lag.unwrap_or_default())
    }

    /// Runs a statement that writes to the feed, in a transaction that locks the feed's head first.
    async fn with_head_locked(
        &self,
        statement: &'static str,
        params: Params<'_>,
        outcome: impl Fn(Option<&Row>) -> Result<FeedStep, StoreError>,
    ) -> Result<FeedStep, StoreError> {
        let session = self.session().await?;
        match with_head_locked(&session, statement, params).await {
            Ok(Some(rows)) => outcome(rows.first()),
            Ok(None) => Ok(FeedStep::Busy),
            Err(error) => {
                session.release_after_error(&error).await;
                Err(error)
            }
        }
    }
}

async fn with_head_locked(
    session: &Session,
    statement: &'static str,
    params: Params<'_>,
) -> Result<Option<Vec<Row>>, StoreError> {
    session.prepare(&[sql::FEED_LOCK, statement]).await?;
    let (begun, locked) = tokio::join!(biased; session.begin(""), session.query(sql::FEED_LOCK, &[]));
    begun?;
    if locked?.is_empty() {
        session.batch_execute("rollback").await?;
        return Ok(None);
    }
    // COMMIT is sent together with the statement, so the lock is held as briefly as possible.
    let (rows, committed) = tokio::join!(biased; session.query(statement, params), session.batch_execute("commit"));
    let rows = rows?;
    committed?;
    Ok(Some(rows))
}

/// Loads a page of the feed. The inner result is an error if an event of the page cannot be parsed.
pub(super) async fn page(
    pool: &Pool,
    request: &PageRequest,
) -> Result<Result<Vec<StoredEvent>, StoreError>, StoreError> {
    let rows = read(pool, sql::FEED_PAGE, &[&request.after, &request.limit, &EVENT_BYTES]).await?;
    Ok(page_from_rows(&rows))
}

/// Converts rows into a page of the feed. The page ends before an event that has expired from its topic's log, unless
/// that is the first one.
fn page_from_rows(rows: &[Row]) -> Result<Vec<StoredEvent>, StoreError> {
    let mut page: Vec<StoredEvent> = Vec::with_capacity(rows.len());
    for row in rows {
        let event = event_from_row(row)?;
        if page.last().is_some_and(|last| event.seq != last.seq + 1) {
            break;
        }
        page.push(event);
    }
    Ok(page)
}

fn event_from_row(row: &Row) -> Result<StoredEvent, StoreError> {
    let (topic, seq): (&str, Seq) = (row.try_get("topic")?, row.try_get("seq")?);
    let at = Time::from(row.try_get::<_, jiff::Timestamp>("created_at")?);
    let data = match row.try_get::<_, Option<String>>("data")? {
        Some(data) => data,
        None => flag_from_row(row, topic, seq, at)?,
    };
    Ok(StoredEvent {
        seq: row.try_get("position")?,
        kind: EventType::from_stored(row.try_get("type")?).ok_or(StoreError::Corrupt("type"))?,
        data: envelope(topic, seq, at, &data),
        trace: row.try_get::<_, Option<&str>>("trace")?.and_then(|trace| trace.parse().ok()),
        at,
        batch: None,
        batch_before: None,
    })
}

/// Builds the data of `message:flagged`. The labels are null after the message was deleted.
fn flag_from_row(row: &Row, topic: &str, seq: Seq, at: Time) -> Result<String, StoreError> {
    let ride = topic.strip_prefix("ride/").ok_or(StoreError::Corrupt("topic"))?;
    let message = MessageId(row.try_get("message_id")?);
    let labels = row.try_get::<_, Option<&str>>("labels")?.unwrap_or("null");
    Ok(format!(r#"{{"rideId":"{ride}","messageId":"{message}","seq":{seq},"labels":{labels},"at":"{at}"}}"#))
}

/// Builds the data of a feed event from the data of the event on its own topic.
pub(super) fn envelope(topic: &str, seq: Seq, at: Time, data: &str) -> String {
    // A topic needs no escaping in JSON.
    format!(r#"{{"topic":"{topic}","seq":{seq},"at":"{at}","data":{data}}}"#)
}
