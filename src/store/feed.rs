//! The feed: positions in all topics' logs, in one order.
//!
//! The relay gives positions under the lock of the feed's head, so they have no holes. It reads which batches have none yet in a
//! statement after the lock, whose snapshot sees what the relay before has done. A page joins positions with the logs, so what is
//! deleted or erased there is so on the feed.

use super::pool::{Params, Pool, Session, Store, read};
use super::reads::{PageRequest, StoredEvent};
use super::{StoreError, sql};
use crate::domain::{EventType, Seq, Time};

/// What one step of the relay has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// There was nothing to do.
    Nothing,
    /// Another relay has the lock.
    Busy,
    /// The feed ends here now.
    UpTo(Seq),
}

impl Store {
    /// Gives positions in the feed to the events of at most `batches` batches that have none.
    pub async fn relay(&self, batches: i64) -> Result<Relayed, StoreError> {
        let session = self.session().await?;
        match relay(&session, batches).await {
            Ok(relayed) => Ok(relayed),
            Err(error) => {
                session.abandon();
                Err(error)
            }
        }
    }
}

async fn relay(session: &Session, batches: i64) -> Result<Relayed, StoreError> {
    session.prepare(&[sql::FEED_LOCK, sql::FEED_RELAY]).await?;
    let (begun, locked) = tokio::join!(biased; session.begin(""), session.query(sql::FEED_LOCK, &[]));
    begun?;
    if locked?.is_empty() {
        session.batch_execute("rollback").await?;
        return Ok(Relayed::Busy);
    }
    // The relay holds the lock for as short as it can: the COMMIT is sent along.
    let params: Params<'_> = &[&batches];
    let (relayed, committed) =
        tokio::join!(biased; session.query(sql::FEED_RELAY, params), session.batch_execute("commit"));
    let relayed = relayed?;
    committed?;
    relayed.first().map_or(Ok(Relayed::Nothing), |row| Ok(Relayed::UpTo(row.try_get("last_seq")?)))
}

/// A page of the feed. It ends before an event that its own log no longer has, unless it is the first.
pub(super) async fn page(pool: &Pool, request: &PageRequest) -> Result<Vec<StoredEvent>, StoreError> {
    let rows = read(pool, sql::FEED_PAGE, &[&request.after, &request.limit]).await?;
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

fn event_from_row(row: &tokio_postgres::Row) -> Result<StoredEvent, StoreError> {
    let (topic, seq): (&str, Seq) = (row.try_get("topic")?, row.try_get("seq")?);
    let at = Time::from(row.try_get::<_, jiff::Timestamp>("created_at")?);
    let data: &str = row.try_get("data")?;
    Ok(StoredEvent {
        seq: row.try_get("position")?,
        kind: EventType::from_stored(row.try_get("type")?).ok_or(StoreError::Corrupt("type"))?,
        data: envelope(topic, seq, at, data),
        trace: row.try_get::<_, Option<&str>>("trace")?.and_then(|trace| trace.parse().ok()),
        at,
        batch: None,
        batch_before: None,
    })
}

/// The data of an event of the feed, from that of the event on its own topic.
pub(super) fn envelope(topic: &str, seq: Seq, at: Time, data: &str) -> String {
    // No escaping: the characters of a topic are all plain.
    format!(r#"{{"topic":"{topic}","seq":{seq},"at":"{at}","data":{data}}}"#)
}
