//! Queries for requests, streams and polls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio_postgres::Row;

use super::batched::{EVENT_BYTES, PageRequest, StoredEvent};
use super::batcher::{Responses, copy_response};
use super::pool::{Params, Pool, Store, read};
use super::rows::{ride_id, snapshot_from_row};
use super::{StoreError, feed, message_from_row, sql};
use crate::domain::{
    Caller, ClientMessageId, ContentKey, EventType, Message, MessageId, RideId, RideSnapshot, Seq, Time, Topic, UserId,
};

/// The approximate maximum of content and metadata bytes that one page of history has.
const MESSAGE_BYTES: i64 = 256 * 1024;

/// The direction of a page of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The newest messages before a seq.
    Before(Seq),
    /// The oldest messages after a seq.
    After(Seq),
}

/// A page of a ride's messages, oldest first, and the ride in the same database snapshot.
#[derive(Debug)]
pub struct HistoryPage {
    /// The ride when the page was read.
    pub snapshot: RideSnapshot,
    /// The messages.
    pub messages: Vec<Message>,
    /// Whether there are more in the page's direction.
    pub has_more: bool,
}

/// The number of messages of a ride that a user has not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadRide {
    /// The ride.
    pub ride: RideId,
    /// Undeleted messages of other users after the user's read watermark.
    pub unread: i64,
}

impl Store {
    /// Returns a secret that all replicas share.
    pub async fn secret(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let rows = self.read(sql::SECRETS_BY_NAME, &[&name]).await?;
        Ok(rows.first().ok_or(StoreError::Corrupt("no such secret"))?.try_get("value")?)
    }

    /// Returns the key of the content hashes.
    pub async fn content_key(&self) -> Result<ContentKey, StoreError> {
        ContentKey::new(&self.secret("content_hashes").await?).ok_or(StoreError::Corrupt("content_hashes"))
    }

    /// Returns the current snapshot of a ride; `None` if the ride does not exist.
    pub async fn snapshot(&self, ride: &RideId) -> Result<Option<RideSnapshot>, StoreError> {
        self.snapshots.submit(ride.clone()).await
    }

    /// Returns the next events of a topic.
    pub async fn page(&self, request: PageRequest) -> Result<Vec<StoredEvent>, StoreError> {
        self.pages.submit(request).await
    }

    /// Returns the heads of these topics; topics that do not exist are omitted.
    pub async fn heads(&self, topics: &[&str]) -> Result<Vec<(Topic, Seq)>, StoreError> {
        let rows = self.read(sql::TOPICS_HEADS, &[&topics]).await?;
        rows.iter().map(|row| Ok((Topic::from_stored(row.try_get("name")?), row.try_get("last_seq")?))).collect()
    }

    /// Returns the seq that a topic's log begins after; `None` if the topic does not exist.
    pub async fn begins_after(&self, topic: &Topic) -> Result<Option<Seq>, StoreError> {
        let rows = self.read(sql::TOPICS_BEGINS_AFTER, &[&topic.as_str()]).await?;
        rows.first().map(|row| row.try_get("begins_after")).transpose().map_err(StoreError::from)
    }

    /// Returns the events of several topics after their cursors, to fill the hub. An event that cannot be parsed fails
    /// only its own page.
    pub async fn pages(
        &self,
        requests: Vec<PageRequest>,
    ) -> Result<Vec<Result<Vec<StoredEvent>, StoreError>>, StoreError> {
        pages(self.pool(), requests).await
    }

    /// Returns the current state of a message.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let rows = self.read(sql::MESSAGES_BY_ID, &[&vec![id.0]]).await?;
        rows.first().map(message_from_row).transpose()
    }

    /// Returns whether a sender has sent a message with this client message id on the ride.
    pub async fn is_sent(&self, ride: &RideId, sender: &UserId, id: &ClientMessageId) -> Result<bool, StoreError> {
        let (rides, senders, ids) = (vec![ride.as_str()], vec![sender.as_str()], vec![id.as_str()]);
        let params: Params<'_> = &[&rides, &senders, &ids];
        Ok(!self.read(sql::MESSAGES_BY_CLIENT_ID, params).await?.is_empty())
    }

    /// Returns the seqs of those messages that exist.
    pub async fn seqs_of_messages(
        &self,
        ids: impl IntoIterator<Item = MessageId>,
    ) -> Result<HashMap<MessageId, Seq>, StoreError> {
        let ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
        let rows = self.read(sql::MESSAGES_BY_ID, &[&ids]).await?;
        rows.iter().map(|row| Ok((MessageId(row.try_get("id")?), row.try_get("seq")?))).collect()
    }

    /// Returns a page of a ride's history that `reader` may see; `None` if the ride does not exist.
    pub async fn history(
        &self,
        ride: &RideId,
        reader: &Caller,
        direction: Direction,
        limit: usize,
    ) -> Result<Option<HistoryPage>, StoreError> {
        let (statement, edge) = match direction {
            Direction::Before(seq) => (sql::MESSAGES_PAGE_BEFORE, seq),
            Direction::After(seq) => (sql::MESSAGES_PAGE_AFTER, seq),
        };
        // One more than `limit`, to detect whether there are more.
        let limit_and_one = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
        let sees_all = reader.role.is_staff();
        let params: Params<'_> =
            &[&ride.as_str(), &reader.user.as_str(), &edge, &limit_and_one, &sees_all, &MESSAGE_BYTES];
        let rows = self.read(statement, params).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let found_in_total = first.try_get::<_, Option<i64>>("found")?.unwrap_or_default();
        let snapshot = snapshot_from_row(first)?;
        let found = rows.iter().filter(|row| row.try_get::<_, Option<Seq>>("seq").is_ok_and(|seq| seq.is_some()));
        let mut messages = found.map(message_from_row).collect::<Result<Vec<_>, _>>()?;
        let has_more = found_in_total > i64::try_from(limit).unwrap_or(i64::MAX)
            || i64::try_from(messages.len()).is_ok_and(|read| read < found_in_total);
        match direction {
            Direction::Before(_) if messages.len() > limit => drop(messages.remove(0)),
            _ => messages.truncate(limit),
        }
        Ok(Some(HistoryPage { snapshot, messages, has_more }))
    }

    /// Returns the number of undeleted messages of other users after `watermark`, within the user's access to the ride;
    /// over the whole log if `sees_all`.
    pub async fn unread_of_ride(
        &self,
        ride: &RideId,
        watermark: Seq,
        user: &UserId,
        sees_all: bool,
    ) -> Result<i64, StoreError> {
        let params: Params<'_> = &[&ride.as_str(), &watermark, &user.as_str(), &sees_all];
        let rows = self.read(sql::MESSAGES_UNREAD_OF_RIDE, params).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get("unread")?))
    }

    /// Returns the rides of a user that have unread messages.
    pub async fn unread_of_user(&self, user: &UserId) -> Result<Vec<UnreadRide>, StoreError> {
        let rows = self.read(sql::MESSAGES_UNREAD_OF_USER, &[&user.as_str()]).await?;
        let unread =
            |row: &Row| Ok(UnreadRide { ride: ride_id(row.try_get("ride_id")?)?, unread: row.try_get("count")? });
        rows.iter().map(unread).collect()
    }
}

/// The head of a user's own topic, and the user's open rides in the same database snapshot.
#[derive(Debug)]
pub struct OpenRides {
    /// The seq of the last event of the user's topic.
    pub head: Seq,
    /// The seq that the topic's log begins after. Events up to it are not a gap.
    pub begins_after: Seq,
    /// Rides that have not ended first, then the newest first.
    pub rides: Vec<OpenRide>,
}

/// A ride of a user that is not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRide {
    /// The ride.
    pub ride: RideId,
    /// The first seq of the user's access.
    pub from_seq: Seq,
    /// The seq of the ride's last event; `None` if the ride is in another shard.
    pub head: Option<Seq>,
    /// Whether it has ended.
    pub is_ended: bool,
}

impl Store {
    /// Returns what a merged stream of the user contains: the user's topic and at most `limit` open rides.
    pub async fn open_rides(&self, user: &UserId, limit: i64) -> Result<OpenRides, StoreError> {
        let rows = self.read(sql::PARTICIPANTS_OPEN_RIDES, &[&user.as_str(), &limit]).await?;
        let first = rows.first().ok_or(StoreError::Corrupt("no head"))?;
        let (head, begins_after) = (first.try_get("last_seq")?, first.try_get("begins_after")?);
        // Without a ride, one row has only the head.
        let rides =
            rows.iter().filter(|row| row.try_get::<_, Option<&str>>("ride_id").is_ok_and(|ride| ride.is_some()));
        let ride = |row: &Row| {
            Ok::<_, StoreError>(OpenRide {
                ride: ride_id(row.try_get("ride_id")?)?,
                from_seq: row.try_get("from_seq")?,
                head: row.try_get("ride_seq")?,
                is_ended: row.try_get("is_ended")?,
            })
        };
        Ok(OpenRides { head, begins_after, rides: rides.map(ride).collect::<Result<_, _>>()? })
    }

    /// Returns ended rides whose chat window has passed for everyone and that are not closed yet.
    pub async fn rides_to_close(&self, limit: i64) -> Result<Vec<RideId>, StoreError> {
        let rows = self.read(sql::RIDES_TO_CLOSE, &[&limit]).await?;
        rows.iter().map(|row| ride_id(row.try_get("ride_id")?)).collect()
    }

    /// Sets the closing times of ended rides that an older version has left without them.
    pub async fn set_closing_times(&self, grace: Duration, limit: i64) -> Result<u64, StoreError> {
        self.session().await?.execute(sql::RIDES_SET_CLOSING_TIMES, &[&grace.as_secs_f64(), &limit]).await
    }
}

/// Loads the snapshots of a batch of requests.
pub(super) async fn snapshots(pool: Pool, rides: Vec<RideId>) -> Responses<Option<RideSnapshot>> {
    let wanted: Vec<&str> = rides.iter().map(RideId::as_str).collect();
    let rows = read(&pool, sql::SNAPSHOTS_LOAD, &[&wanted]).await?;
    let mut found: HashMap<&str, _> = HashMap::new();
    for row in &rows {
        found.insert(row.try_get("ride_id")?, snapshot_from_row(row));
    }
    // Copied, not removed: the batch may request a ride twice.
    Ok(rides.iter().map(|ride| found.get(ride.as_str()).map(copy_response).transpose()).collect())
}

/// A page, or the error of the first of its events that cannot be parsed.
type Page = Result<Vec<StoredEvent>, StoreError>;

/// Loads the pages of a batch of requests.
pub(super) async fn pages(pool: Pool, requests: Vec<PageRequest>) -> Responses<Vec<StoredEvent>> {
    let (feed_requests, log_requests): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.topic.is_feed());
    let mut pages = pages_of_logs(&pool, &log_requests).await?;
    for request in feed_requests.into_iter().collect::<BTreeSet<_>>() {
        pages.insert(request, feed::page(&pool, request).await?);
    }
    Ok(requests.iter().map(|request| pages.get(request).map_or_else(|| Ok(Vec::new()), copy_response)).collect())
}

async fn pages_of_logs<'a>(
    pool: &Pool,
    requests: &[&'a PageRequest],
) -> Result<BTreeMap<&'a PageRequest, Page>, StoreError> {
    if requests.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Readers that resume on one ride mostly request the same page, which is read once.
    let wanted: BTreeSet<&PageRequest> = requests.iter().copied().collect();
    let topics: Vec<_> = wanted.iter().map(|request| request.topic.as_str()).collect();
    let afters: Vec<_> = wanted.iter().map(|request| request.after).collect();
    let limits: Vec<_> = wanted.iter().map(|request| request.limit).collect();
    let rows = read(pool, sql::EVENTS_PAGES, &[&topics, &afters, &limits, &EVENT_BYTES]).await?;
    Ok(wanted.iter().copied().zip(group_pages(&rows, wanted.len())?).collect())
}

/// Groups the rows of `events/pages.sql` by their request (numbered from 1).
fn group_pages(rows: &[Row], requests: usize) -> Result<Vec<Page>, StoreError> {
    let mut pages: Vec<Page> = Vec::new();
    pages.resize_with(requests, || Ok(Vec::new()));
    for row in rows {
        let request = usize::try_from(row.try_get::<_, i32>("request")? - 1).unwrap_or(usize::MAX);
        let page = pages.get_mut(request).ok_or(StoreError::Corrupt("ordinality"))?;
        if let Ok(events) = page {
            match event_from_row(row, events.last()) {
                Ok(event) => events.push(event),
                Err(error) => *page = Err(error),
            }
        }
    }
    Ok(pages)
}

/// Converts a row of `events/pages.sql` into an event. `last` is the event before it in its page.
fn event_from_row(row: &Row, last: Option<&StoredEvent>) -> Result<StoredEvent, StoreError> {
    let seq = row.try_get("seq")?;
    let batch_before = match last.filter(|last| last.seq + 1 == seq) {
        Some(last) => last.batch,
        None => row.try_get("batch_before")?,
    };
    Ok(StoredEvent {
        seq,
        kind: EventType::from_stored(row.try_get("type")?).ok_or(StoreError::Corrupt("type"))?,
        data: row.try_get("data")?,
        trace: row.try_get::<_, Option<&str>>("trace")?.and_then(|trace| trace.parse().ok()),
        at: Time::from(row.try_get::<_, jiff::Timestamp>("created_at")?),
        batch: row.try_get("batch")?,
        batch_before,
    })
}
