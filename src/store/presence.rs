//! Who is there, as all replicas together know it.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::drivers::driver_signal;
use super::pool::{Session, Store};
use super::rows::user_id;
use super::{StoreError, sql};
use crate::domain::{LastPresence, RideId, Signal, Time, Topic, UserId};

/// The most users of one statement, where there are many.
const PART: usize = 1_000;

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

/// What holds a registration.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder {
    /// A replica, as long as its lease does.
    Replica(Uuid),
    /// Nothing but the clock: it expires after this time.
    Expiry(Duration),
}

impl Holder {
    /// The replica id of a registration, and after how many seconds it expires.
    fn columns(self) -> (Uuid, Option<f64>) {
        match self {
            Self::Replica(replica) => (replica, None),
            // No replica is ever given this id (`sql/presence/lapsed.sql`).
            Self::Expiry(expires_after) => (Uuid::max(), Some(expires_after.as_secs_f64())),
        }
    }
}

/// A change of who is registered, as statements of one transaction: [`Change::register`] or the like, then [`Change::settle`].
///
/// Between the two nobody else changes the registrations of the same users: each transaction that does first locks their rows of
/// `presence_states`, in one order, and what it reads then is younger than the lock. So `online` and a driver's availability
/// always agree with what is registered: whoever removes a user's last registration sees that in the same transaction.
#[derive(Debug)]
pub(super) struct Change<'a> {
    came: (Vec<&'a str>, Vec<&'a str>),
    gone: (Vec<&'a str>, Vec<&'a str>),
    all: (Vec<&'a str>, Vec<&'a str>),
    gone_drivers: Vec<&'a str>,
}

impl<'a> Change<'a> {
    /// What has to be prepared before the statements leave in one write.
    pub(super) const STATEMENTS: [&'static str; 7] = [
        sql::PRESENCE_PREPARE,
        sql::PRESENCE_LOCK,
        sql::PRESENCE_ARRIVE,
        sql::PRESENCE_DEPART,
        sql::PRESENCE_DROP,
        sql::PRESENCE_SETTLE,
        sql::DRIVERS_WITHDRAW,
    ];

    /// Registers some users and takes others out.
    pub(super) fn new(came: &'a [Presence], gone: &'a [Presence]) -> Self {
        let gone_drivers = gone.iter().filter(|(topic, _)| *topic == Topic::drivers());
        Self {
            came: columns(came.iter()),
            gone: columns(gone.iter()),
            all: columns(came.iter().chain(gone)),
            gone_drivers: gone_drivers.map(|(_, user)| user.as_str()).collect(),
        }
    }

    /// Locks the users; registers those who came with `holder` and takes those out that were registered with it.
    pub(super) async fn register(&self, session: &Session, holder: Holder) -> Result<(), StoreError> {
        let (replica, _) = holder.columns();
        let (prepared, locked, arrived, departed) = tokio::join!(
            biased;
            self.prepare(session),
            self.lock(session),
            self.arrive(session, holder),
            async { session.execute(sql::PRESENCE_DEPART, &[&self.gone.0, &self.gone.1, &replica]).await },
        );
        prepared.and(locked).and(arrived).and(departed).map(drop)
    }

    /// Locks the users; takes out registrations that hold no longer.
    async fn drop_lapsed(&self, session: &Session) -> Result<(), StoreError> {
        let (locked, dropped) = tokio::join!(
            biased;
            self.lock(session),
            async { session.execute(sql::PRESENCE_DROP, &[&self.gone.0, &self.gone.1]).await },
        );
        locked.and(dropped).map(drop)
    }

    /// Makes the rows to be locked of users who were not known.
    async fn prepare(&self, session: &Session) -> Result<u64, StoreError> {
        session.execute(sql::PRESENCE_PREPARE, &[&self.came.0, &self.came.1]).await
    }

    async fn lock(&self, session: &Session) -> Result<u64, StoreError> {
        session.execute(sql::PRESENCE_LOCK, &[&self.all.0, &self.all.1]).await
    }

    async fn arrive(&self, session: &Session, holder: Holder) -> Result<u64, StoreError> {
        let (replica, expires_after) = holder.columns();
        session.execute(sql::PRESENCE_ARRIVE, &[&self.came.0, &self.came.1, &replica, &expires_after]).await
    }

    /// Brings what is told of the users, and the availability of drivers, in line with what is registered; and says for whom
    /// that is news.
    pub(super) async fn settle(&self, session: &Session) -> Result<Vec<Signal>, StoreError> {
        let (settled, withdrawn) = tokio::join!(
            biased;
            async { session.query(sql::PRESENCE_SETTLE, &[&self.all.0, &self.all.1]).await },
            async {
                if self.gone_drivers.is_empty() {
                    return Ok(Vec::new());
                }
                session.query(sql::DRIVERS_WITHDRAW, &[&self.gone_drivers]).await
            },
        );
        let (settled, withdrawn) = (settled?, withdrawn?);
        let settled = settled.iter().filter_map(|row| signal(row).transpose());
        settled.chain(withdrawn.iter().map(driver_signal)).collect()
    }
}

/// What is done of a transaction, unless it was not committed. Its connection is used again only where its state is known.
pub(super) async fn if_committed<T>(session: Session, done: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(error) = &done {
        session.give_up(error).await;
    }
    done
}

impl Store {
    /// Begins a lease and registers everybody under it, in one transaction: so the lease of a replica never lacks users of it
    /// who were registered before. Says for whom that is news.
    pub async fn enlist(&self, replica: Uuid, lease: Duration, users: &[Presence]) -> Result<Vec<Signal>, StoreError> {
        let session = self.session().await?;
        let enlisted = enlist(&session, replica, lease, users).await;
        if_committed(session, enlisted).await
    }

    /// Goes on with it. `false`: it has run out.
    pub async fn beat(&self, replica: Uuid, lease: Duration) -> Result<bool, StoreError> {
        Ok(self.session().await?.execute(sql::PRESENCE_BEAT, &[&replica, &lease.as_secs_f64()]).await? > 0)
    }

    /// Registers those who came and takes out those who went, all or none, and says for whom that is news.
    pub async fn settle(&self, replica: Uuid, came: &[Presence], gone: &[Presence]) -> Result<Vec<Signal>, StoreError> {
        let change = Change::new(came, gone);
        self.change(&change, async |session| change.register(session, Holder::Replica(replica)).await).await
    }

    /// Registers drivers without a connection for a time, after which they are taken out unless they have one.
    pub async fn register_drivers(&self, drivers: &[UserId], expires_after: Duration) -> Result<(), StoreError> {
        let came: Vec<_> = drivers.iter().map(|driver| (Topic::drivers(), driver.clone())).collect();
        let change = Change::new(&came, &[]);
        self.change(&change, async |session| change.register(session, Holder::Expiry(expires_after)).await)
            .await
            .map(drop)
    }

    /// Of the available drivers after one, by id, at most `limit`: those who have no registration, and the last.
    pub async fn unattended_drivers(
        &self,
        after: Option<&UserId>,
        limit: i64,
    ) -> Result<(Vec<UserId>, Option<UserId>), StoreError> {
        let after = after.map_or("", UserId::as_str);
        let rows = self.read(sql::DRIVERS_UNATTENDED, &[&after, &limit]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("no answer"))?;
        let unattended = row.try_get::<_, Vec<&str>>("unattended")?.into_iter().map(user_id);
        let last = row.try_get::<_, Option<&str>>("last")?.map(user_id).transpose()?;
        Ok((unattended.collect::<Result<_, _>>()?, last))
    }

    /// Removes leases that have run out. Whoever is registered under them [has lapsed](Self::lapsed) then.
    pub async fn expire(&self) -> Result<(), StoreError> {
        let expired = self.session().await?.query(sql::PRESENCE_EXPIRE, &[]).await?;
        if !expired.is_empty() {
            tracing::info!(replicas = expired.len(), "leases of other replicas have run out");
        }
        Ok(())
    }

    /// Some users, at most `limit`, with a registration that holds no longer.
    pub async fn lapsed(&self, limit: usize) -> Result<Vec<Presence>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(sql::PRESENCE_LAPSED, &[&limit]).await?.iter().map(presence).collect()
    }

    /// Takes them out, all or none, unless they are registered anew, and says for whom that is news. As long as that has not
    /// been committed they are among [those who have lapsed](Self::lapsed), on every replica.
    pub async fn reap(&self, lapsed: &[Presence]) -> Result<Vec<Signal>, StoreError> {
        let change = Change::new(&[], lapsed);
        self.change(&change, async |session| change.drop_lapsed(session).await).await
    }

    /// Makes a change, in one transaction and one write; a failure on the way turns the commit into a rollback.
    async fn change(
        &self,
        change: &Change<'_>,
        register: impl AsyncFnOnce(&Session) -> Result<(), StoreError>,
    ) -> Result<Vec<Signal>, StoreError> {
        let session = self.session().await?;
        session.prepare(&Change::STATEMENTS).await?;
        let (begun, registered, settled, committed) = tokio::join!(
            biased;
            session.begin(""),
            register(&session),
            change.settle(&session),
            session.batch_execute("commit"),
        );
        // The first that failed is the cause.
        let done = begun.and(registered).and(settled).and_then(|news| committed.map(|()| news));
        if_committed(session, done).await
    }

    /// What is told of those on these topics' rides, where the sum of the versions is not the one that is known.
    pub async fn newer_presence(&self, known: &[(&Topic, i64)]) -> Result<Vec<Signal>, StoreError> {
        let topics: Vec<_> = known.iter().map(|(topic, _)| topic.as_str()).collect();
        let totals: Vec<_> = known.iter().map(|(_, total)| *total).collect();
        let rows = self.read(sql::PRESENCE_NEWER, &[&topics, &totals]).await?;
        rows.iter().filter_map(|row| signal(row).transpose()).collect()
    }
}

/// See [`Store::enlist`]. A statement for everybody could take longer than one may, so there are several. All rows are made
/// before the first is locked, and both in the order in which everybody locks them.
async fn enlist(
    session: &Session,
    replica: Uuid,
    lease: Duration,
    users: &[Presence],
) -> Result<Vec<Signal>, StoreError> {
    let mut users = users.to_vec();
    users.sort_unstable();
    let parts: Vec<_> = users.chunks(PART).map(|part| Change::new(part, &[])).collect();
    let (lease, mut news) = (lease.as_secs_f64(), Vec::new());
    session.begin("").await?;
    session.execute(sql::PRESENCE_ENLIST, &[&replica, &lease]).await?;
    for part in &parts {
        part.prepare(session).await?;
    }
    for part in &parts {
        part.lock(session).await?;
    }
    for part in &parts {
        part.arrive(session, Holder::Replica(replica)).await?;
        news.extend(part.settle(session).await?);
    }
    // It is to last from now on. One that has run out meanwhile counted for none of those who were settled last.
    if session.execute(sql::PRESENCE_BEAT, &[&replica, &lease]).await? == 0 {
        return Err(StoreError::Timeout);
    }
    session.batch_execute("commit").await?;
    Ok(news)
}
