//! Erasing a user: what of them is in the database beside their messages, which the writer erases.
//!
//! Each step can be repeated, and does nothing where it was done. Replicas drop what they have in memory when the row `users` of
//! `topics` has grown, so that grows last.

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::drivers::driver_signal;
use super::feed::RELAY_PAUSE;
use super::pool::{Session, Store};
use super::presence::if_committed;
use super::retention::Place;
use super::rows::{message_place_from_row, user_id};
use super::{StoreError, sql};
use crate::domain::{MessageId, Seq, Signal, Topic, UserId};

impl Store {
    /// Some of the messages of a user of which anything is to be erased, ride by ride, after one of them.
    pub async fn messages_of_sender(
        &self,
        user: &UserId,
        after: Option<&Place>,
        limit: i64,
    ) -> Result<Vec<(Place, MessageId)>, StoreError> {
        let (ride, seq) = after.map_or(("", 0), |(ride, seq)| (ride.as_str(), *seq));
        let rows = self.read(sql::MESSAGES_OF_SENDER, &[&user.as_str(), &ride, &seq, &limit]).await?;
        rows.iter().map(message_place_from_row).collect()
    }

    /// Some of the messages that a user has reacted to.
    pub async fn messages_of_reactor(&self, user: &UserId, limit: i64) -> Result<Vec<(Place, MessageId)>, StoreError> {
        let rows = self.read(sql::MESSAGES_OF_REACTOR, &[&user.as_str(), &limit]).await?;
        rows.iter().map(message_place_from_row).collect()
    }

    /// Erases what some events of rides have in the user's words, and which reactions were theirs. Returns how many events.
    pub async fn erase_words(&self, user: &UserId, limit: i64) -> Result<u64, StoreError> {
        let session = self.session().await?;
        session.may_commit();
        session.execute(sql::USERS_ERASE_WORDS, &[&user.as_str(), &limit]).await
    }

    /// Erases the user's own topic, and where they were. Returns what is to be told of them as a driver.
    pub async fn erase_topic(&self, user: &UserId) -> Result<Option<Signal>, StoreError> {
        let session = self.session().await?;
        let erased = erase_topic(&session, user).await;
        let row = if_committed(session, erased).await?;
        let is_driver = row.try_get::<_, Option<&str>>("driver_id")?.is_some();
        if is_driver { driver_signal(&row).map(Some) } else { Ok(None) }
    }

    /// Erases what the feed and the webhooks have of the user's topic. Returns how far erasures count then. With `has_feed` it waits
    /// first until all that is committed now has its positions in the feed: those that come later are of a later topic.
    pub async fn erase_from_feed(&self, user: &UserId, has_feed: bool) -> Result<Seq, StoreError> {
        if has_feed {
            self.until_relayed().await?;
        }
        let session = self.session().await?;
        let erased = erase_from_feed(&session, user).await;
        if_committed(session, erased).await?.try_get("erasures").map_err(StoreError::from)
    }

    async fn until_relayed(&self) -> Result<(), StoreError> {
        let rows = self.read(sql::FEED_LAST_WAITING, &[]).await?;
        let last = rows.first().map(|row| row.try_get::<_, Option<i64>>("id")).transpose()?.flatten();
        let Some(last) = last else { return Ok(()) };
        let deadline = Instant::now() + self.patience();
        loop {
            let rows = self.read(sql::FEED_IS_WAITING, &[&last]).await?;
            if !rows.first().map_or(Ok(false), |row| row.try_get("is_waiting"))? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(StoreError::Timeout);
            }
            sleep(RELAY_PAUSE).await;
        }
    }

    /// Which of these drivers have a state.
    pub async fn known_drivers(&self, drivers: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let drivers: Vec<_> = drivers.iter().map(UserId::as_str).collect();
        let rows = self.read(sql::DRIVERS_KNOWN, &[&drivers]).await?;
        rows.iter().map(|row| user_id(row.try_get("driver_id")?)).collect()
    }
}

/// In one transaction: nobody creates the topic meanwhile, and nobody writes to it.
async fn erase_topic(session: &Session, user: &UserId) -> Result<Row, StoreError> {
    session.prepare(&[sql::USERS_ALONE, sql::TOPICS_LOCK, sql::USERS_ERASE]).await?;
    let (own, counter) = (Topic::user(user), Topic::users());
    // Topics are locked in one order everywhere; the counter is the last of all.
    let topics = vec![own.as_str(), counter.as_str()];
    let (begun, alone, locked, erased, committed) = tokio::join!(
        biased;
        session.begin(""),
        async { session.query(sql::USERS_ALONE, &[&user.as_str()]).await },
        async { session.query(sql::TOPICS_LOCK, &[&topics]).await },
        async { session.query(sql::USERS_ERASE, &[&user.as_str()]).await },
        session.batch_execute("commit"),
    );
    begun.and(alone)?;
    locked?;
    let erased = erased?;
    committed?;
    erased.into_iter().next().ok_or(StoreError::Corrupt("no count of erasures"))
}

/// In one transaction: nobody creates deliveries meanwhile.
async fn erase_from_feed(session: &Session, user: &UserId) -> Result<Row, StoreError> {
    session.prepare(&[sql::WEBHOOKS_LOCK_ALL, sql::USERS_ERASE_FROM_FEED]).await?;
    let (begun, locked, erased, committed) = tokio::join!(
        biased;
        session.begin(""),
        async { session.query(sql::WEBHOOKS_LOCK_ALL, &[]).await },
        async { session.query(sql::USERS_ERASE_FROM_FEED, &[&user.as_str()]).await },
        session.batch_execute("commit"),
    );
    begun.and(locked)?;
    let erased = erased?;
    committed?;
    erased.into_iter().next().ok_or(StoreError::Corrupt("no count of erasures"))
}
