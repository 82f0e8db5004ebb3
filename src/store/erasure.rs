//! Erasure of a user's data in the database, except for the user's messages, which the writer erases.
//!
//! Each step is idempotent. Replicas drop their in-memory copies when the counter in the row `users` of `topics` has
//! grown, so the last step increments it.

use tokio_postgres::Row;

use super::feed::RELAY_QUEUE;
use super::pool::{Session, Store};
use super::presence::finish_transaction;
use super::rows::{LogPosition, driver_update, message_position_from_row, user_id};
use super::{StoreError, sql};
use crate::domain::{MessageId, Seq, StateUpdate, Topic, UserId};

impl Store {
    /// Returns messages of a user that have anything to erase, in order of ride and seq, after `after`.
    pub async fn messages_of_sender(
        &self,
        user: &UserId,
        after: Option<&LogPosition>,
        limit: i64,
    ) -> Result<Vec<(LogPosition, MessageId)>, StoreError> {
        let (ride, seq) = after.map_or(("", 0), |(ride, seq)| (ride.as_str(), *seq));
        let rows = self.read(sql::MESSAGES_OF_SENDER, &[&user.as_str(), &ride, &seq, &limit]).await?;
        rows.iter().map(message_position_from_row).collect()
    }

    /// Returns messages that a user has reacted to.
    pub async fn messages_of_reactor(
        &self,
        user: &UserId,
        limit: i64,
    ) -> Result<Vec<(LogPosition, MessageId)>, StoreError> {
        let rows = self.read(sql::MESSAGES_OF_REACTOR, &[&user.as_str(), &limit]).await?;
        rows.iter().map(message_position_from_row).collect()
    }

    /// Erases the user's free text and reactions from at most `limit` ride events. Returns the number of events.
    pub async fn erase_event_text(&self, user: &UserId, limit: i64) -> Result<u64, StoreError> {
        let session = self.session().await?;
        session.may_commit();
        session.execute(sql::USERS_ERASE_EVENT_TEXT, &[&user.as_str(), &limit]).await
    }

    /// Erases the user's own topic and locations. Returns the state update to publish if the user was a driver.
    pub async fn erase_topic(&self, user: &UserId) -> Result<Option<StateUpdate>, StoreError> {
        let session = self.session().await?;
        let erased = erase_topic(&session, user).await;
        let row = finish_transaction(session, erased).await?;
        let is_driver = row.try_get::<_, Option<&str>>("driver_id")?.is_some();
        if is_driver { driver_update(&row).map(Some) } else { Ok(None) }
    }

    /// Erases the user's topic from the feed and from the webhook deliveries. Returns the erasure counter.
    ///
    /// With `has_feed` it first waits until the relay has assigned feed positions to everything that is committed now.
    /// Later events belong to a later topic of the same name.
    pub async fn erase_from_feed(&self, user: &UserId, has_feed: bool) -> Result<Seq, StoreError> {
        if has_feed {
            self.wait_until_processed(RELAY_QUEUE, self.timeout()).await?.then_some(()).ok_or(StoreError::Timeout)?;
        }
        let session = self.session().await?;
        let erased = erase_from_feed(&session, user).await;
        finish_transaction(session, erased).await?.try_get("erasures").map_err(StoreError::from)
    }

    /// Returns those of the drivers that have a row in `driver_state`.
    pub async fn existing_drivers(&self, drivers: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let drivers: Vec<_> = drivers.iter().map(UserId::as_str).collect();
        let rows = self.read(sql::DRIVERS_EXISTING, &[&drivers]).await?;
        rows.iter().map(|row| user_id(row.try_get("driver_id")?)).collect()
    }
}

/// Runs in one transaction, under locks that prevent the creation of the topic and writes to it.
async fn erase_topic(session: &Session, user: &UserId) -> Result<Row, StoreError> {
    session.prepare(&[sql::USERS_LOCK, sql::TOPICS_LOCK, sql::USERS_ERASE]).await?;
    let (own, counter) = (Topic::user(user), Topic::users());
    // Topics are locked in one order everywhere; the counter `users` sorts last.
    let topics = vec![own.as_str(), counter.as_str()];
    let (begun, user_locked, locked, erased, committed) = tokio::join!(
        biased;
        session.begin(""),
        async { session.query(sql::USERS_LOCK, &[&user.as_str()]).await },
        async { session.query(sql::TOPICS_LOCK, &[&topics]).await },
        async { session.query(sql::USERS_ERASE, &[&user.as_str()]).await },
        session.batch_execute("commit"),
    );
    begun.and(user_locked)?;
    locked?;
    let erased = erased?;
    committed?;
    erased.into_iter().next().ok_or(StoreError::Corrupt("no count of erasures"))
}

/// Runs in one transaction, under locks that prevent new reports of undelivered messages and the creation of deliveries.
async fn erase_from_feed(session: &Session, user: &UserId) -> Result<Row, StoreError> {
    let statements = [
        sql::FEED_LOCK_SEARCH_BLOCKING,
        sql::WEBHOOKS_LOCK_ALL,
        sql::USERS_ERASE_QUEUED_REPORTS,
        sql::USERS_ERASE_FROM_FEED,
    ];
    session.prepare(&statements).await?;
    let (begun, search_locked, locked, unqueued, erased, committed) = tokio::join!(
        biased;
        session.begin(""),
        async { session.query(sql::FEED_LOCK_SEARCH_BLOCKING, &[]).await },
        async { session.query(sql::WEBHOOKS_LOCK_ALL, &[]).await },
        async { session.execute(sql::USERS_ERASE_QUEUED_REPORTS, &[&user.as_str()]).await },
        async { session.query(sql::USERS_ERASE_FROM_FEED, &[&user.as_str()]).await },
        session.batch_execute("commit"),
    );
    begun.and(search_locked)?;
    locked?;
    unqueued?;
    let erased = erased?;
    committed?;
    erased.into_iter().next().ok_or(StoreError::Corrupt("no count of erasures"))
}
