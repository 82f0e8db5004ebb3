//! The feed: positions in all topics' logs, in one order.
//!
//! The relay gives positions under the lock of the feed's head, so they have no holes. It reads which batches have none yet in a
//! statement after the lock, whose snapshot sees what the relay before has done. Whatever else is put on the feed is put there under
//! the same lock. A page joins positions with the logs, so what is deleted or erased there is so on the feed.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::pool::{Params, Pool, Session, Store, read};
use super::reads::{EVENT_BYTES, PageRequest, StoredEvent};
use super::rows::seconds;
use super::{StoreError, sql};
use crate::domain::{EventType, MessageId, Seq, Time};

/// Between two looks whether the relay has done something.
pub(super) const RELAY_PAUSE: Duration = Duration::from_millis(2);

/// What one step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// There was nothing to do.
    Nothing,
    /// Something was done, and nothing put on the feed.
    Passed,
    /// Another one has the lock.
    Busy,
    /// Events were put on the feed.
    UpTo {
        /// The end of the feed.
        last: Seq,
        /// Whether there may be more to do.
        has_more: bool,
    },
}

impl Store {
    /// Gives positions in the feed to the events of at most `batches` batches that have none.
    pub async fn relay(&self, batches: i64) -> Result<Relayed, StoreError> {
        let relayed = |row: Option<&Row>| match row {
            Some(row) => Ok(Relayed::UpTo {
                last: row.try_get("last_seq")?,
                has_more: row.try_get::<_, i64>("batches")? >= batches,
            }),
            None => Ok(Relayed::Nothing),
        };
        self.under_lock(sql::FEED_RELAY, &[&batches], relayed).await
    }

    /// Whether events of the feed have become older than `age` since [`Self::find_undelivered`] has looked at them.
    pub async fn has_older(&self, age: Duration) -> Result<bool, StoreError> {
        let rows = self.read(sql::FEED_IS_DUE, &[&age.as_secs_f64()]).await?;
        rows.first().map_or(Ok(false), |row| Ok(row.try_get("is_due")?))
    }

    /// Goes through at most `limit` events of the feed that are older than `age`, and puts `message:undelivered` there for messages
    /// that have not been delivered.
    pub async fn find_undelivered(&self, age: Duration, limit: i64) -> Result<Relayed, StoreError> {
        let relayed = |row: Option<&Row>| {
            let row = row.ok_or(StoreError::Corrupt("no answer"))?;
            let (taken, last): (i64, Option<Seq>) = (row.try_get("taken")?, row.try_get("last_seq")?);
            Ok(match last {
                Some(last) => Relayed::UpTo { last, has_more: true },
                None if taken > 0 => Relayed::Passed,
                None => Relayed::Nothing,
            })
        };
        self.under_lock(sql::FEED_UNDELIVERED, &[&age.as_secs_f64(), &limit], relayed).await
    }

    /// Waits until what is committed now has positions in the feed, for `timeout` at most.
    pub async fn await_relay(&self, timeout: Duration) -> Result<(), StoreError> {
        let rows = self.read(sql::FEED_LAST_WAITING, &[]).await?;
        let last = rows.first().map(|row| row.try_get::<_, Option<i64>>("id")).transpose()?.flatten();
        let Some(last) = last else { return Ok(()) };
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let rows = self.read(sql::FEED_IS_WAITING, &[&last]).await?;
            if !rows.first().map_or(Ok(false), |row| row.try_get("is_waiting"))? {
                break;
            }
            sleep(RELAY_PAUSE).await;
        }
        Ok(())
    }

    /// The number of batches that have no positions yet; at most 1,000.
    pub async fn batches_to_relay(&self) -> Result<i64, StoreError> {
        let rows = self.read(sql::FEED_WAITING, &[]).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get("count")?))
    }

    /// The age of the oldest event that has no position yet; zero where each has one.
    pub async fn relay_lag(&self) -> Result<Duration, StoreError> {
        let rows = self.read(sql::FEED_LAG, &[]).await?;
        let lag = rows.first().map_or(Ok(None), |row| seconds(row, "age"))?;
        Ok(lag.unwrap_or_default())
    }

    /// Runs a statement that writes to the feed, in a transaction that has locked its head.
    async fn under_lock(
        &self,
        statement: &'static str,
        params: Params<'_>,
        relayed: impl Fn(Option<&Row>) -> Result<Relayed, StoreError>,
    ) -> Result<Relayed, StoreError> {
        let session = self.session().await?;
        match under_lock(&session, statement, params).await {
            Ok(Some(rows)) => relayed(rows.first()),
            Ok(None) => Ok(Relayed::Busy),
            Err(error) => {
                session.give_up(&error).await;
                Err(error)
            }
        }
    }
}

async fn under_lock(
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
    // The lock is held for as short as can be: the COMMIT is sent along.
    let (rows, committed) = tokio::join!(biased; session.query(statement, params), session.batch_execute("commit"));
    let rows = rows?;
    committed?;
    Ok(Some(rows))
}

/// A page of the feed. It ends before an event that its own log no longer has, unless it is the first.
pub(super) async fn page(pool: &Pool, request: &PageRequest) -> Result<Vec<StoredEvent>, StoreError> {
    let rows = read(pool, sql::FEED_PAGE, &[&request.after, &request.limit, &EVENT_BYTES]).await?;
    let mut page: Vec<StoredEvent> = Vec::with_capacity(rows.len());
    for row in &rows {
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

/// The data of `message:flagged`. Its labels are null once the message is deleted.
fn flag_from_row(row: &Row, topic: &str, seq: Seq, at: Time) -> Result<String, StoreError> {
    let ride = topic.strip_prefix("ride/").ok_or(StoreError::Corrupt("topic"))?;
    let message = MessageId(row.try_get("message_id")?);
    let labels = row.try_get::<_, Option<&str>>("labels")?.unwrap_or("null");
    Ok(format!(r#"{{"rideId":"{ride}","messageId":"{message}","seq":{seq},"labels":{labels},"at":"{at}"}}"#))
}

/// The data of an event of the feed, from that of the event on its own topic.
pub(super) fn envelope(topic: &str, seq: Seq, at: Time, data: &str) -> String {
    // No escaping: the characters of a topic are all plain.
    format!(r#"{{"topic":"{topic}","seq":{seq},"at":"{at}","data":{data}}}"#)
}
