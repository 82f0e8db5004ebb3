//! The feed: one ordered sequence of positions over the logs of all topics.
//!
//! Only the relay statement adds to the feed. It assigns positions under the lock of the feed's head, so positions have no
//! holes. The relay runs it, and the writer as part of a batch's transaction while the feed is read.
//! Events that are on the feed alone (flags, and reports of undelivered messages) are queued as batches of their own.
//!
//! The events of a batch's rides are stored as ranges of their logs, in one row. The SQL function `feed_entries` expands
//! them. A page joins the entries with the logs, so deletions and erasures in the logs apply to the feed.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::batched::{EVENT_BYTES, PageRequest, StoredEvent};
use super::pool::{Params, Pool, Session, Store, read};
use super::rows::seconds;
use super::{StoreError, sql};
use crate::domain::{EventType, MessageId, Seq, Time};

/// The interval at which the progress of a queue is polled.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The statements about the batches that wait for the relay.
pub(super) const RELAY_QUEUE: [&str; 2] = [sql::FEED_LAST_UNRELAYED, sql::FEED_HAS_UNRELAYED];

/// How many entries are read at once to find the first event that has not expired.
const EXPIRED_ENTRIES: i64 = 5_000;

/// The result of one step of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayStep {
    /// Another transaction holds the lock.
    Busy,
    /// The batches were relayed, if there were any.
    Done {
        /// The last position of the feed.
        last: Seq,
        /// Whether there may be more to do.
        has_more: bool,
    },
}

/// The result of one step of the search for undelivered messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStep {
    /// There was nothing to do.
    Nothing,
    /// Another replica holds the lock.
    Busy,
    /// Batches were processed.
    Advanced {
        /// Whether reports were queued for the relay.
        has_reports: bool,
    },
}

impl Store {
    /// Assigns feed positions to the events of at most `batches` batches that have none.
    pub async fn relay(&self, batches: i64) -> Result<RelayStep, StoreError> {
        let session = self.session().await?;
        session.may_commit();
        let rows = session.query(sql::FEED_RELAY, &[&batches, &false]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("no row"))?;
        let Some(last) = row.try_get("last_seq")? else { return Ok(RelayStep::Busy) };
        Ok(RelayStep::Done { last, has_more: row.try_get("has_more")? })
    }

    /// Returns whether the feed has batches older than `age` that [`Self::find_undelivered`] has not processed.
    pub async fn has_unchecked_older_than(&self, age: Duration) -> Result<bool, StoreError> {
        let rows = self.read(sql::FEED_IS_DUE, &[&age.as_secs_f64()]).await?;
        rows.first().map_or(Ok(false), |row| Ok(row.try_get("is_due")?))
    }

    /// Processes at most `limit` batches of the feed that are older than `age`. Queues `message:undelivered` for messages
    /// that have not been delivered.
    pub async fn find_undelivered(&self, age: Duration, limit: i64) -> Result<SearchStep, StoreError> {
        let session = self.session().await?;
        let found = match search(&session, &[&age.as_secs_f64(), &limit]).await {
            Ok(found) => found,
            Err(error) => {
                session.release_after_error(&error).await;
                return Err(error);
            }
        };
        let Some(rows) = found else { return Ok(SearchStep::Busy) };
        let row = rows.first().ok_or(StoreError::Corrupt("no row"))?;
        if row.try_get::<_, i64>("processed")? == 0 {
            return Ok(SearchStep::Nothing);
        }
        Ok(SearchStep::Advanced { has_reports: row.try_get::<_, i64>("reports")? > 0 })
    }

    /// Waits until the relay has assigned positions to everything that is committed now, at most for `timeout`.
    pub async fn wait_for_relay(&self, timeout: Duration) -> Result<(), StoreError> {
        self.wait_until_processed(RELAY_QUEUE, timeout).await.map(drop)
    }

    /// Waits until the rows that are in a queue now have left it, or for `timeout`. Returns whether they have. The first statement returns
    /// the last row as `id`, and the second one whether any row up to an id is still there.
    pub(super) async fn wait_until_processed(
        &self,
        [last, has_rows]: [&'static str; 2],
        timeout: Duration,
    ) -> Result<bool, StoreError> {
        let rows = self.read(last, &[]).await?;
        let last = rows.first().map(|row| row.try_get::<_, Option<i64>>("id")).transpose()?.flatten();
        let Some(last) = last else { return Ok(true) };
        let deadline = Instant::now() + timeout;
        loop {
            let rows = self.read(has_rows, &[&last]).await?;
            if !rows.first().map_or(Ok(false), |row| row.try_get("has_rows"))? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(QUEUE_POLL_INTERVAL).await;
        }
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
}

/// Searches in a transaction that first locks the search. Returns `None` if another replica holds the lock.
async fn search(session: &Session, params: Params<'_>) -> Result<Option<Vec<Row>>, StoreError> {
    session.prepare(&[sql::FEED_LOCK_SEARCH, sql::FEED_UNDELIVERED]).await?;
    let (begun, locked) = tokio::join!(biased; session.begin(""), session.query(sql::FEED_LOCK_SEARCH, &[]));
    begun?;
    if locked?.is_empty() {
        session.batch_execute("rollback").await?;
        return Ok(None);
    }
    // COMMIT is sent together with the statement.
    let (rows, committed) =
        tokio::join!(biased; session.query(sql::FEED_UNDELIVERED, params), session.batch_execute("commit"));
    let rows = rows?;
    committed?;
    Ok(Some(rows))
}

/// Loads a page of the feed. The inner result is an error if an event of the page cannot be parsed.
pub(super) async fn page(
    pool: &Pool,
    request: &PageRequest,
) -> Result<Result<Vec<StoredEvent>, StoreError>, StoreError> {
    let (mut after, mut limit) = (request.after, request.limit);
    loop {
        let rows = read(pool, sql::FEED_PAGE, &[&after, &limit, &EVENT_BYTES]).await?;
        let page = page_from_rows(&rows);
        // An empty page means that the feed ends, so entries whose events have all expired are skipped.
        match rows.last() {
            Some(last) if page.as_ref().is_ok_and(Vec::is_empty) => {
                (after, limit) = (last.try_get("position")?, EXPIRED_ENTRIES);
            }
            _ => {
                let wanted = usize::try_from(request.limit).unwrap_or(usize::MAX);
                return Ok(page.map(|mut page| {
                    page.truncate(wanted);
                    page
                }));
            }
        }
    }
}

/// Converts rows into a page of the feed. Expired events before its first event are skipped, and the page ends before
/// the next expired event.
fn page_from_rows(rows: &[Row]) -> Result<Vec<StoredEvent>, StoreError> {
    let mut page: Vec<StoredEvent> = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(event) = event_from_row(row)? else { continue };
        if page.last().is_some_and(|last| event.seq != last.seq + 1) {
            break;
        }
        page.push(event);
    }
    Ok(page)
}

/// Converts an entry of the feed. Returns `None` if its event has expired from its topic's log.
fn event_from_row(row: &Row) -> Result<Option<StoredEvent>, StoreError> {
    let (topic, seq): (&str, Seq) = (row.try_get("topic")?, row.try_get("seq")?);
    let at = Time::from(row.try_get::<_, jiff::Timestamp>("created_at")?);
    let data = match (row.try_get::<_, Option<String>>("data")?, row.try_get("message_id")?) {
        (Some(data), _) => data,
        (None, Some(message)) => flag_from_row(row, MessageId(message), topic, seq, at)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(StoredEvent {
        seq: row.try_get("position")?,
        kind: EventType::from_stored(row.try_get("type")?).ok_or(StoreError::Corrupt("type"))?,
        data: feed_data(topic, seq, at, &data),
        trace: row.try_get::<_, Option<&str>>("trace")?.and_then(|trace| trace.parse().ok()),
        at,
        batch: None,
        batch_before: None,
    }))
}

/// Builds the data of `message:flagged`. The labels are null after the message was deleted.
fn flag_from_row(row: &Row, message: MessageId, topic: &str, seq: Seq, at: Time) -> Result<String, StoreError> {
    let ride = topic.strip_prefix("ride/").ok_or(StoreError::Corrupt("topic"))?;
    let labels = row.try_get::<_, Option<&str>>("labels")?.unwrap_or("null");
    Ok(format!(r#"{{"rideId":"{ride}","messageId":"{message}","seq":{seq},"labels":{labels},"at":"{at}"}}"#))
}

/// Builds the data of a feed event from the data of the event on its own topic.
pub(crate) fn feed_data(topic: &str, seq: Seq, at: Time, data: &str) -> String {
    // A topic needs no escaping in JSON.
    format!(r#"{{"topic":"{topic}","seq":{seq},"at":"{at}","data":{data}}}"#)
}
