//! What is read for requests, streams and polls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::pool::{Params, Pool, Store, read};
use super::rows::{ride_id, snapshot_from_row};
use super::{StoreError, feed, message_from_row, sql};
use crate::domain::{
    BatchId, Caller, ClientMessageId, ContentKey, EventType, Message, MessageId, RideId, RideSnapshot, Seq, Time,
    Topic, TraceContext, UserId,
};

/// About how many bytes of events are read of a topic at once.
pub(super) const EVENT_BYTES: i64 = 64 * 1024;

/// About how many bytes of content and metadata are read at once.
const MESSAGE_BYTES: i64 = 256 * 1024;

/// An event as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number on its topic.
    pub seq: Seq,
    /// What it is about.
    pub kind: EventType,
    /// Its data: one line of JSON.
    pub data: String,
    /// Where what comes of it is traced.
    pub trace: Option<TraceContext>,
    /// When it was written.
    pub at: Time,
    /// Which batch wrote it, where that is recorded.
    pub batch: Option<BatchId>,
    /// Which batch wrote the event before it, as far as can be told.
    pub batch_before: Option<BatchId>,
}

/// The events of `topic` after `after`, at most `limit`, and fewer where they are large.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageRequest {
    /// The topic.
    pub topic: Topic,
    /// Exclusive.
    pub after: Seq,
    /// The most events.
    pub limit: i64,
}

/// Which way a page of history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The newest before a seq.
    Before(Seq),
    /// The oldest after a seq.
    After(Seq),
}

/// A page of a ride's messages, oldest first, and the ride at the same moment.
#[derive(Debug)]
pub struct HistoryPage {
    /// The ride as it was when the page was read.
    pub snapshot: RideSnapshot,
    /// The messages.
    pub messages: Vec<Message>,
    /// Whether there are more in the page's direction.
    pub has_more: bool,
}

/// How many messages of a ride a user has not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadRide {
    /// The ride.
    pub ride: RideId,
    /// Others' undeleted messages past the user's read mark.
    pub unread: i64,
}

impl Store {
    /// A secret that all replicas share.
    pub async fn secret(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let rows = self.read(sql::SECRETS_BY_NAME, &[&name]).await?;
        Ok(rows.first().ok_or(StoreError::Corrupt("no such secret"))?.try_get("value")?)
    }

    /// What contents are hashed with.
    pub async fn content_key(&self) -> Result<ContentKey, StoreError> {
        ContentKey::new(&self.secret("content_hashes").await?).ok_or(StoreError::Corrupt("content_hashes"))
    }

    /// A ride and its people, as they are now; `None` where there is none.
    pub async fn snapshot(&self, ride: &RideId) -> Result<Option<RideSnapshot>, StoreError> {
        self.snapshots.ask(ride.clone()).await
    }

    /// The next events of a topic.
    pub async fn page(&self, request: PageRequest) -> Result<Vec<StoredEvent>, StoreError> {
        self.pages.ask(request).await
    }

    /// Where the logs of these topics end; topics that do not exist are left out.
    pub async fn heads(&self, topics: &[&str]) -> Result<Vec<(Topic, Seq)>, StoreError> {
        let rows = self.read(sql::TOPICS_HEADS, &[&topics]).await?;
        rows.iter().map(|row| Ok((Topic::from_stored(row.try_get("name")?), row.try_get("last_seq")?))).collect()
    }

    /// What a topic's log begins after; `None` where there is no such topic.
    pub async fn begins_after(&self, topic: &Topic) -> Result<Option<Seq>, StoreError> {
        let rows = self.read(sql::TOPICS_BEGINS_AFTER, &[&topic.as_str()]).await?;
        rows.first().map(|row| row.try_get("begins_after")).transpose().map_err(StoreError::from)
    }

    /// The events of several topics after their cursors, for filling the hub.
    pub async fn pages(&self, requests: Vec<PageRequest>) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        pages(self.pool(), requests).await
    }

    /// A message as it is now.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let rows = self.read(sql::MESSAGES_BY_ID, &[&vec![id.0]]).await?;
        rows.first().map(message_from_row).transpose()
    }

    /// Whether a sender has sent a message under this name on the ride.
    pub async fn is_sent(&self, ride: &RideId, sender: &UserId, name: &ClientMessageId) -> Result<bool, StoreError> {
        let (rides, senders, names) = (vec![ride.as_str()], vec![sender.as_str()], vec![name.as_str()]);
        let params: Params<'_> = &[&rides, &senders, &names];
        Ok(!self.read(sql::MESSAGES_BY_CLIENT_ID, params).await?.is_empty())
    }

    /// The seqs of messages, of those that there are.
    pub async fn seqs_of_messages(
        &self,
        ids: impl IntoIterator<Item = MessageId>,
    ) -> Result<HashMap<MessageId, Seq>, StoreError> {
        let ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
        let rows = self.read(sql::MESSAGES_BY_ID, &[&ids]).await?;
        rows.iter().map(|row| Ok((MessageId(row.try_get("id")?), row.try_get("seq")?))).collect()
    }

    /// A page of a ride's history, as `reader` may see it; `None` where there is no such ride.
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
        // One more than asked, to know whether there are more.
        let sought = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
        let sees_all = reader.role.is_staff();
        let params: Params<'_> = &[&ride.as_str(), &reader.user.as_str(), &edge, &sought, &sees_all, &MESSAGE_BYTES];
        let rows = self.read(statement, params).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let found_in_all = first.try_get::<_, Option<i64>>("found")?.unwrap_or_default();
        let snapshot = snapshot_from_row(first)?;
        let found = rows.iter().filter(|row| row.try_get::<_, Option<Seq>>("seq").is_ok_and(|seq| seq.is_some()));
        let mut messages = found.map(message_from_row).collect::<Result<Vec<_>, _>>()?;
        let has_more = found_in_all > i64::try_from(limit).unwrap_or(i64::MAX)
            || i64::try_from(messages.len()).is_ok_and(|read| read < found_in_all);
        match direction {
            Direction::Before(_) if messages.len() > limit => drop(messages.remove(0)),
            _ => messages.truncate(limit),
        }
        Ok(Some(HistoryPage { snapshot, messages, has_more }))
    }

    /// How many of others' undeleted messages lie past `mark`, of those of the user's times on the ride; of all where the
    /// user `sees_all`.
    pub async fn unread_of_ride(
        &self,
        ride: &RideId,
        mark: Seq,
        user: &UserId,
        sees_all: bool,
    ) -> Result<i64, StoreError> {
        let params: Params<'_> = &[&ride.as_str(), &mark, &user.as_str(), &sees_all];
        let rows = self.read(sql::MESSAGES_UNREAD_OF_RIDE, params).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get("unread")?))
    }

    /// The rides of a user that have unread messages.
    pub async fn unread_of_user(&self, user: &UserId) -> Result<Vec<UnreadRide>, StoreError> {
        let rows = self.read(sql::MESSAGES_UNREAD_OF_USER, &[&user.as_str()]).await?;
        let unread = |row: &tokio_postgres::Row| {
            Ok(UnreadRide { ride: ride_id(row.try_get("ride_id")?)?, unread: row.try_get("count")? })
        };
        rows.iter().map(unread).collect()
    }
}

/// Where a user's own log ends, and the rides that go on for them at that moment.
#[derive(Debug)]
pub struct GoingOn {
    /// The seq of the last event of the user's topic.
    pub head: Seq,
    /// What that topic's log begins after: up to there nobody has missed anything.
    pub begins_after: Seq,
    /// Those that have not ended first, the newest of them first.
    pub rides: Vec<RideGoingOn>,
}

/// A ride that is a user's and not over for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RideGoingOn {
    /// Which.
    pub ride: RideId,
    /// The first seq that is the user's.
    pub from_seq: Seq,
    /// The seq of the last event.
    pub head: Seq,
    /// Whether it has ended.
    pub is_ended: bool,
}

impl Store {
    /// What one follows who follows everything of theirs; at most `limit` rides.
    pub async fn going_on(&self, user: &UserId, limit: i64) -> Result<GoingOn, StoreError> {
        let rows = self.read(sql::PARTICIPANTS_GOING_ON, &[&user.as_str(), &limit]).await?;
        let first = rows.first().ok_or(StoreError::Corrupt("no head"))?;
        let (head, begins_after) = (first.try_get("last_seq")?, first.try_get("begins_after")?);
        // Where there is none, one row says so.
        let rides =
            rows.iter().filter(|row| row.try_get::<_, Option<&str>>("ride_id").is_ok_and(|ride| ride.is_some()));
        let ride = |row: &tokio_postgres::Row| {
            Ok::<_, StoreError>(RideGoingOn {
                ride: ride_id(row.try_get("ride_id")?)?,
                from_seq: row.try_get("from_seq")?,
                head: row.try_get("ride_seq")?,
                is_ended: row.try_get("is_ended")?,
            })
        };
        Ok(GoingOn { head, begins_after, rides: rides.map(ride).collect::<Result<_, _>>()? })
    }

    /// Rides whose chat window has passed for everyone and whose people have not been told.
    pub async fn rides_to_close(&self, limit: i64) -> Result<Vec<RideId>, StoreError> {
        let rows = self.read(sql::RIDES_TO_CLOSE, &[&limit]).await?;
        rows.iter().map(|row| ride_id(row.try_get("ride_id")?)).collect()
    }

    /// Decides when rides close of which an older version has not.
    pub async fn decide_closing(&self, grace: Duration, limit: i64) -> Result<u64, StoreError> {
        self.session().await?.execute(sql::RIDES_DECIDE_CLOSING, &[&grace.as_secs_f64(), &limit]).await
    }
}

/// Answers a batch of questions for snapshots.
pub(super) async fn snapshots(pool: Pool, rides: Vec<RideId>) -> Result<Vec<Option<RideSnapshot>>, StoreError> {
    let wanted: Vec<&str> = rides.iter().map(RideId::as_str).collect();
    let rows = read(&pool, sql::SNAPSHOTS_LOAD, &[&wanted]).await?;
    let found = rows.iter().map(snapshot_from_row).map(|row| row.map(|snapshot| (snapshot.ride.id.clone(), snapshot)));
    let found = found.collect::<Result<HashMap<_, _>, _>>()?;
    // Not taken out: two may have asked for the same one.
    Ok(rides.iter().map(|ride| found.get(ride).cloned()).collect())
}

/// Answers a batch of questions for pages.
pub(super) async fn pages(pool: Pool, requests: Vec<PageRequest>) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
    let (of_feed, requests_of_logs): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.topic.is_feed());
    let mut pages = pages_of_logs(&pool, &requests_of_logs).await?;
    for request in of_feed.into_iter().collect::<BTreeSet<_>>() {
        pages.insert(request, feed::page(&pool, request).await?);
    }
    Ok(requests.iter().map(|request| pages.get(request).cloned().unwrap_or_default()).collect())
}

async fn pages_of_logs<'a>(
    pool: &Pool,
    requests: &[&'a PageRequest],
) -> Result<BTreeMap<&'a PageRequest, Vec<StoredEvent>>, StoreError> {
    if requests.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Those who come back to one ride mostly ask for the same page: it is read once.
    let wanted: BTreeSet<&PageRequest> = requests.iter().copied().collect();
    let topics: Vec<_> = wanted.iter().map(|request| request.topic.as_str()).collect();
    let afters: Vec<_> = wanted.iter().map(|request| request.after).collect();
    let limits: Vec<_> = wanted.iter().map(|request| request.limit).collect();
    let rows = read(pool, sql::EVENTS_PAGES, &[&topics, &afters, &limits, &EVENT_BYTES]).await?;
    Ok(wanted.iter().copied().zip(group_pages(&rows, wanted.len())?).collect())
}

/// Rows of `events/pages.sql`, by the request (counted from 1) they answer.
fn group_pages(rows: &[tokio_postgres::Row], requests: usize) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
    let mut pages: Vec<Vec<StoredEvent>> = Vec::new();
    pages.resize_with(requests, Vec::new);
    for row in rows {
        let request = usize::try_from(row.try_get::<_, i32>("request")? - 1).unwrap_or(usize::MAX);
        let page = pages.get_mut(request).ok_or(StoreError::Corrupt("ordinality"))?;
        let kind = EventType::from_stored(row.try_get("type")?).ok_or(StoreError::Corrupt("type"))?;
        let trace = row.try_get::<_, Option<&str>>("trace")?.and_then(|trace| trace.parse().ok());
        let at = Time::from(row.try_get::<_, jiff::Timestamp>("created_at")?);
        let (seq, batch) = (row.try_get("seq")?, row.try_get("batch")?);
        let batch_before = match page.last().filter(|last| last.seq + 1 == seq) {
            Some(last) => last.batch,
            None => row.try_get("batch_before")?,
        };
        page.push(StoredEvent { seq, kind, data: row.try_get("data")?, trace, at, batch, batch_before });
    }
    Ok(pages)
}
