//! Presence: which users are connected, over all replicas.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::pool::{Session, Store};
use super::rows::{driver_update, user_id};
use super::{StoreError, sql};
use crate::domain::{LastPresence, RideId, StateUpdate, Time, Topic, UserId};

/// The maximum number of users in one statement.
const CHUNK: usize = 1_000;

/// A user on a ride's topic, or a driver on the topic `drivers`.
pub type TopicUser = (Topic, UserId);

fn columns<'a>(users: impl Iterator<Item = &'a TopicUser>) -> (Vec<&'a str>, Vec<&'a str>) {
    users.map(|(topic, user)| (topic.as_str(), user.as_str())).unzip()
}

fn presence(row: &Row) -> Result<TopicUser, StoreError> {
    Ok((Topic::from_stored(row.try_get("topic")?), user_id(row.try_get("user_id")?)?))
}

/// Converts a row of `presence_states` into a state update; `None` for the topic `drivers`, where only the availability
/// is published.
fn state_update(row: &Row) -> Result<Option<StateUpdate>, StoreError> {
    let (topic, user) = presence(row)?;
    let Some(ride) = topic.ride_id() else { return Ok(None) };
    let ride = RideId::parse(ride).map_err(|_| StoreError::Corrupt("topic"))?;
    let since = Time::from(row.try_get::<_, Timestamp>("since")?);
    let (online, version, seq) = (row.try_get("online")?, row.try_get("version")?, row.try_get("seq")?);
    Ok(Some(LastPresence { online, since, version, seq }.to_update(&ride, &user)))
}

/// What a registration depends on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder {
    /// A replica: the registration lasts as long as the replica's lease.
    Replica(Uuid),
    /// A time: the registration expires after it.
    Expiry(Duration),
}

impl Holder {
    /// Returns the replica id of a registration, and after how many seconds it expires.
    fn columns(self) -> (Uuid, Option<f64>) {
        match self {
            Self::Replica(replica) => (replica, None),
            // No replica ever has this id (`sql/presence/expired.sql`).
            Self::Expiry(expires_after) => (Uuid::max(), Some(expires_after.as_secs_f64())),
        }
    }
}

/// A change of registrations, as statements of one transaction: [`PresenceChange::register`] or
/// [`PresenceChange::remove_expired`], then [`PresenceChange::reconcile`].
///
/// No other transaction changes the registrations of the same users between the two. Each one first locks the users'
/// rows of `presence_states`, in one order, and reads with a snapshot that is newer than the locks. So `online` and a
/// driver's availability always agree with the registrations: the transaction that removes a user's last registration
/// detects it.
#[derive(Debug)]
pub(super) struct PresenceChange<'a> {
    connected: (Vec<&'a str>, Vec<&'a str>),
    disconnected: (Vec<&'a str>, Vec<&'a str>),
    all: (Vec<&'a str>, Vec<&'a str>),
    disconnected_drivers: Vec<&'a str>,
}

impl<'a> PresenceChange<'a> {
    /// The statements to prepare, so that they can be sent in one write.
    pub(super) const STATEMENTS: [&'static str; 7] = [
        sql::PRESENCE_CREATE_STATES,
        sql::PRESENCE_LOCK,
        sql::PRESENCE_CONNECT,
        sql::PRESENCE_DISCONNECT,
        sql::PRESENCE_REMOVE_EXPIRED,
        sql::PRESENCE_RECONCILE,
        sql::DRIVERS_SET_UNAVAILABLE,
    ];

    /// Creates a change that registers the users of `connected` and removes the registrations of `disconnected`.
    pub(super) fn new(connected: &'a [TopicUser], disconnected: &'a [TopicUser]) -> Self {
        let disconnected_drivers = disconnected.iter().filter(|(topic, _)| *topic == Topic::drivers());
        Self {
            connected: columns(connected.iter()),
            disconnected: columns(disconnected.iter()),
            all: columns(connected.iter().chain(disconnected)),
            disconnected_drivers: disconnected_drivers.map(|(_, user)| user.as_str()).collect(),
        }
    }

    /// Locks the users, registers the connected ones with `holder`, and removes the registrations of the disconnected
    /// ones with the same holder.
    pub(super) async fn register(&self, session: &Session, holder: Holder) -> Result<(), StoreError> {
        let (replica, _) = holder.columns();
        let (created, locked, connected, disconnected) = tokio::join!(
            biased;
            self.create_states(session),
            self.lock(session),
            self.connect(session, holder),
            async { session.execute(sql::PRESENCE_DISCONNECT, &[&self.disconnected.0, &self.disconnected.1, &replica]).await },
        );
        created.and(locked).and(connected).and(disconnected).map(drop)
    }

    /// Locks the users and removes their expired registrations.
    async fn remove_expired(&self, session: &Session) -> Result<(), StoreError> {
        let (locked, removed) = tokio::join!(
            biased;
            self.lock(session),
            async { session.execute(sql::PRESENCE_REMOVE_EXPIRED, &[&self.disconnected.0, &self.disconnected.1]).await },
        );
        locked.and(removed).map(drop)
    }

    /// Creates the rows to lock for users that have none.
    async fn create_states(&self, session: &Session) -> Result<u64, StoreError> {
        session.execute(sql::PRESENCE_CREATE_STATES, &[&self.connected.0, &self.connected.1]).await
    }

    async fn lock(&self, session: &Session) -> Result<u64, StoreError> {
        session.execute(sql::PRESENCE_LOCK, &[&self.all.0, &self.all.1]).await
    }

    async fn connect(&self, session: &Session, holder: Holder) -> Result<u64, StoreError> {
        let (replica, expires_after) = holder.columns();
        session.execute(sql::PRESENCE_CONNECT, &[&self.connected.0, &self.connected.1, &replica, &expires_after]).await
    }

    /// Reconciles the presence of the users and the availability of drivers with the registrations. Returns the changes
    /// to publish.
    pub(super) async fn reconcile(&self, session: &Session) -> Result<Vec<StateUpdate>, StoreError> {
        let (reconciled, unavailable) = tokio::join!(
            biased;
            async { session.query(sql::PRESENCE_RECONCILE, &[&self.all.0, &self.all.1]).await },
            async {
                if self.disconnected_drivers.is_empty() {
                    return Ok(Vec::new());
                }
                session.query(sql::DRIVERS_SET_UNAVAILABLE, &[&self.disconnected_drivers]).await
            },
        );
        let (reconciled, unavailable) = (reconciled?, unavailable?);
        let reconciled = reconciled.iter().filter_map(|row| state_update(row).transpose());
        reconciled.chain(unavailable.iter().map(driver_update)).collect()
    }
}

/// Returns the result of a transaction. After an error, the connection is reused only if its state is known.
pub(super) async fn finish_transaction<T>(session: Session, done: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(error) = &done {
        session.release_after_error(error).await;
    }
    done
}

impl Store {
    /// Creates the lease of a replica and registers its users under it, in one transaction. So a lease never lacks
    /// users that were registered before. Returns the changes to publish.
    pub async fn register_replica(
        &self,
        replica: Uuid,
        lease: Duration,
        users: &[TopicUser],
    ) -> Result<Vec<StateUpdate>, StoreError> {
        let session = self.session().await?;
        let registered = register_replica(&session, replica, (lease, self.origin.id()), users).await;
        finish_transaction(session, registered).await
    }

    /// Renews the lease. Returns `false` if it has expired.
    pub async fn heartbeat(&self, replica: Uuid, lease: Duration) -> Result<bool, StoreError> {
        Ok(self.session().await?.execute(sql::PRESENCE_HEARTBEAT, &[&replica, &lease.as_secs_f64()]).await? > 0)
    }

    /// Registers the users of `connected` and removes the registrations of `disconnected`, all or none. Returns the
    /// changes to publish.
    pub async fn reconcile_presence(
        &self,
        replica: Uuid,
        connected: &[TopicUser],
        disconnected: &[TopicUser],
    ) -> Result<Vec<StateUpdate>, StoreError> {
        let change = PresenceChange::new(connected, disconnected);
        self.change(&change, async |session| change.register(session, Holder::Replica(replica)).await).await
    }

    /// Registers drivers without a connection for a limited time. After it they become unavailable unless they are
    /// connected.
    pub async fn register_drivers(&self, drivers: &[UserId], expires_after: Duration) -> Result<(), StoreError> {
        let connected: Vec<_> = drivers.iter().map(|driver| (Topic::drivers(), driver.clone())).collect();
        let change = PresenceChange::new(&connected, &[]);
        self.change(&change, async |session| change.register(session, Holder::Expiry(expires_after)).await)
            .await
            .map(drop)
    }

    /// Returns those of the next `limit` available drivers after `after`, by id, that have no registration, and the
    /// last of the page.
    pub async fn unregistered_drivers(
        &self,
        after: Option<&UserId>,
        limit: i64,
    ) -> Result<(Vec<UserId>, Option<UserId>), StoreError> {
        let after = after.map_or("", UserId::as_str);
        let rows = self.read(sql::DRIVERS_UNREGISTERED, &[&after, &limit]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("no row"))?;
        let unregistered = row.try_get::<_, Vec<&str>>("unregistered")?.into_iter().map(user_id);
        let last = row.try_get::<_, Option<&str>>("last")?.map(user_id).transpose()?;
        Ok((unregistered.collect::<Result<_, _>>()?, last))
    }

    /// Removes leases that have expired. The registrations under them are then [expired](Self::expired_presence).
    pub async fn expire_leases(&self) -> Result<(), StoreError> {
        let expired = self.session().await?.query(sql::PRESENCE_EXPIRE_LEASES, &[]).await?;
        if !expired.is_empty() {
            tracing::info!(replicas = expired.len(), "leases of other replicas expired");
        }
        Ok(())
    }

    /// Returns at most `limit` users with an expired registration.
    pub async fn expired_presence(&self, limit: usize) -> Result<Vec<TopicUser>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(sql::PRESENCE_EXPIRED, &[&limit]).await?.iter().map(presence).collect()
    }

    /// Removes the expired registrations of these users, all or none, except for those that were renewed. Returns the
    /// changes to publish. Until this is committed, every replica finds the users among the
    /// [expired](Self::expired_presence) ones.
    pub async fn remove_expired_presence(&self, expired: &[TopicUser]) -> Result<Vec<StateUpdate>, StoreError> {
        let change = PresenceChange::new(&[], expired);
        self.change(&change, async |session| change.remove_expired(session).await).await
    }

    /// Applies a change in one transaction, sent in one write. After an error, COMMIT acts as a rollback.
    async fn change(
        &self,
        change: &PresenceChange<'_>,
        register: impl AsyncFnOnce(&Session) -> Result<(), StoreError>,
    ) -> Result<Vec<StateUpdate>, StoreError> {
        let session = self.session().await?;
        session.prepare(&PresenceChange::STATEMENTS).await?;
        let (begun, registered, reconciled, committed) = tokio::join!(
            biased;
            session.begin(""),
            register(&session),
            change.reconcile(&session),
            session.batch_execute("commit"),
        );
        // The first error is the cause.
        let done = begun.and(registered).and(reconciled).and_then(|updates| committed.map(|()| updates));
        finish_transaction(session, done).await
    }

    /// Returns the presence of users on these topics' rides whose sum of versions differs from the given one.
    pub async fn newer_presence(&self, cached: &[(&Topic, i64)]) -> Result<Vec<StateUpdate>, StoreError> {
        let topics: Vec<_> = cached.iter().map(|(topic, _)| topic.as_str()).collect();
        let totals: Vec<_> = cached.iter().map(|(_, total)| *total).collect();
        let rows = self.read(sql::PRESENCE_NEWER, &[&topics, &totals]).await?;
        rows.iter().filter_map(|row| state_update(row).transpose()).collect()
    }
}

/// See [`Store::register_replica`].
///
/// One statement for all users could exceed the statement timeout, so they are split into chunks. All rows are created
/// before the first one is locked. Both happen in the order in which every transaction locks them.
async fn register_replica(
    session: &Session,
    replica: Uuid,
    (lease, channel): (Duration, &str),
    users: &[TopicUser],
) -> Result<Vec<StateUpdate>, StoreError> {
    let mut users = users.to_vec();
    users.sort_unstable();
    let chunks: Vec<_> = users.chunks(CHUNK).map(|chunk| PresenceChange::new(chunk, &[])).collect();
    let (lease, mut updates) = (lease.as_secs_f64(), Vec::new());
    session.begin("").await?;
    session.execute(sql::PRESENCE_REGISTER_REPLICA, &[&replica, &lease, &channel]).await?;
    for chunk in &chunks {
        chunk.create_states(session).await?;
    }
    for chunk in &chunks {
        chunk.lock(session).await?;
    }
    for chunk in &chunks {
        chunk.connect(session, Holder::Replica(replica)).await?;
        updates.extend(chunk.reconcile(session).await?);
    }
    // Renew the lease from now on. If it has expired meanwhile, the last chunks were reconciled without it.
    if session.execute(sql::PRESENCE_HEARTBEAT, &[&replica, &lease]).await? == 0 {
        return Err(StoreError::Timeout);
    }
    session.batch_execute("commit").await?;
    Ok(updates)
}
