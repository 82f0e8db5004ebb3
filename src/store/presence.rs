//! Who is there, as all replicas together know it.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::drivers::driver_signal;
use super::pool::Store;
use super::rows::user_id;
use super::{StoreError, sql};
use crate::domain::{LastPresence, RideId, Signal, Time, Topic, UserId};

/// A user on a topic: on a ride's, or a driver on that of the drivers.
pub type Presence = (Topic, UserId);

fn columns<'a>(users: impl Iterator<Item = &'a Presence>) -> (Vec<&'a str>, Vec<&'a str>) {
    users.map(|(topic, user)| (topic.as_str(), user.as_str())).unzip()
}

fn presence(row: &Row) -> Result<Presence, StoreError> {
    Ok((Topic::from_stored(row.try_get("topic")?), user_id(row.try_get("user_id")?)?))
}

/// What is told of somebody on a ride. Of drivers as such it is told whether they take rides, and nothing else.
fn signal(row: &Row) -> Result<Option<Signal>, StoreError> {
    let (topic, user) = presence(row)?;
    let Some(ride) = topic.ride_id() else { return Ok(None) };
    let ride = RideId::parse(ride).map_err(|_| StoreError::Corrupt("topic"))?;
    let since = Time::from(row.try_get::<_, Timestamp>("since")?);
    let (online, version, seq) = (row.try_get("online")?, row.try_get("version")?, row.try_get("seq")?);
    Ok(Some(LastPresence { online, since, version, seq }.signal(&ride, &user)))
}

impl Store {
    /// Begins a lease.
    pub async fn enlist(&self, replica: Uuid, lease: Duration) -> Result<(), StoreError> {
        self.session().await?.execute(sql::PRESENCE_ENLIST, &[&replica, &lease.as_secs_f64()]).await.map(drop)
    }

    /// Goes on with it. `false`: it has run out.
    pub async fn beat(&self, replica: Uuid, lease: Duration) -> Result<bool, StoreError> {
        Ok(self.session().await?.execute(sql::PRESENCE_BEAT, &[&replica, &lease.as_secs_f64()]).await? > 0)
    }

    /// Registers those who came and takes out those who went, all or none, and says for whom that is news.
    pub async fn settle(&self, replica: Uuid, came: &[Presence], gone: &[Presence]) -> Result<Vec<Signal>, StoreError> {
        let (came_topics, came_users) = columns(came.iter());
        let (gone_topics, gone_users) = columns(gone.iter());
        let (topics, users) = columns(came.iter().chain(gone));
        let drivers = Topic::drivers();
        let gone_drivers: Vec<_> =
            gone.iter().filter(|(topic, _)| *topic == drivers).map(|(_, user)| user.as_str()).collect();
        let session = self.session().await?;
        session
            .prepare(&[
                sql::PRESENCE_PREPARE,
                sql::PRESENCE_LOCK,
                sql::PRESENCE_ARRIVE,
                sql::PRESENCE_DEPART,
                sql::PRESENCE_SETTLE,
                sql::DRIVERS_WITHDRAW,
            ])
            .await?;
        // One flight, in this order; a failure on the way turns the commit into a rollback.
        let (begun, prepared, locked, arrived, departed, settled, withdrawn, committed) = tokio::join!(
            biased;
            session.begin(""),
            async { session.execute(sql::PRESENCE_PREPARE, &[&came_topics, &came_users]).await },
            async { session.execute(sql::PRESENCE_LOCK, &[&topics, &users]).await },
            async { session.execute(sql::PRESENCE_ARRIVE, &[&came_topics, &came_users, &replica]).await },
            async { session.execute(sql::PRESENCE_DEPART, &[&gone_topics, &gone_users, &replica]).await },
            async { session.query(sql::PRESENCE_SETTLE, &[&topics, &users]).await },
            async {
                if gone_drivers.is_empty() {
                    return Ok(Vec::new());
                }
                session.query(sql::DRIVERS_WITHDRAW, &[&gone_drivers]).await
            },
            session.batch_execute("commit"),
        );
        let done = begun.and(prepared).and(locked).and(arrived).and(departed);
        let done = done.and(settled).and_then(|settled| Ok((settled, withdrawn?)));
        let done = committed.and(done);
        if done.is_err() {
            session.abandon();
        }
        let (settled, withdrawn) = done?;
        let settled = settled.iter().filter_map(|row| signal(row).transpose());
        settled.chain(withdrawn.iter().map(driver_signal)).collect()
    }

    /// Takes out who was registered under leases that have run out, and says for whom that is news.
    pub async fn reap(&self) -> Result<Vec<Signal>, StoreError> {
        let session = self.session().await?;
        let expired = session.query(sql::PRESENCE_EXPIRE, &[]).await?;
        if expired.is_empty() {
            return Ok(Vec::new());
        }
        let expired = expired.iter().map(|row| row.try_get("replica")).collect::<Result<Vec<Uuid>, _>>()?;
        tracing::info!(replicas = expired.len(), "leases of other replicas have run out");
        // A crash between these leaves rows of a replica that is gone: they count for nothing, and whoever of them
        // comes or goes next is settled then.
        let dropped = session.query(sql::PRESENCE_DROP, &[&expired]).await?;
        drop(session);
        let gone = dropped.iter().map(presence).collect::<Result<Vec<_>, _>>()?;
        self.settle(Uuid::nil(), &[], &gone).await
    }

    /// What is told of those on these topics' rides, where the sum of the versions is not the one that is known.
    pub async fn newer_presence(&self, known: &[(&Topic, i64)]) -> Result<Vec<Signal>, StoreError> {
        let topics: Vec<_> = known.iter().map(|(topic, _)| topic.as_str()).collect();
        let totals: Vec<_> = known.iter().map(|(_, total)| *total).collect();
        let rows = self.read(sql::PRESENCE_NEWER, &[&topics, &totals]).await?;
        rows.iter().filter_map(|row| signal(row).transpose()).collect()
    }
}
