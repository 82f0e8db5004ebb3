//! The transaction of one batch: two flights of statements, rarely three, or one, each sent in one write.
//!
//! The first flight begins, locks the topics that nobody else holds, and loads what the commands need. Locking is a statement of its
//! own: under READ COMMITTED each statement has its own snapshot, so what is loaded after the lock is younger
//! than whatever the lock had to wait for. Were it one statement, its snapshot would be older, and two replicas
//! could both find that a message has not been sent yet.
//!
//! Where rides change hands or end, a flight between locks the topics of the users who are told so: whose they are
//! is known when the batch has been judged. Rides' topics sort before users', and each flight locks in order, so no
//! two batches wait for each other.
//!
//! The last flight stores everything and commits. Sending COMMIT before the answers to what precedes it are
//! known is safe: when one of those fails, Postgres turns the COMMIT into a ROLLBACK.
//!
//! What was judged by what is [known](super::known) has this flight alone, which stores nothing of a topic where what was known
//! is no longer so.

mod store;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Ledger, Needs, Terms};
use crate::domain::{ClientMessageId, MessageId, Receipts, RideId, RideSnapshot, Time, Topic, UserId};
use crate::store::hints::{self, Heads, Hints};
use crate::store::{Person, Session, Store, StoreError, message_from_row, person_from_row, ride_from_row, sql};

/// How long to ask what became of a commit, and how long one asks who has it locked.
const FATE_PATIENCE: Duration = Duration::from_millis(1_500);
const FATE_PAUSE: Duration = Duration::from_millis(50);
const FATE_SETTINGS: &str = "set local lock_timeout = '500ms'";

/// For a batch that waits for its locks: longer than the commits of other replicas, one after the other, and shorter than
/// anybody notices who waits for the same connection.
const WAITING_SETTINGS: &str = "set local lock_timeout = '200ms'";

/// From how many topics on a commit's hints wait for those of the next.
const MANY: usize = 4;

/// Why a batch was not committed, or may not have been.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nothing has happened, and nothing will.
    NothingDone(StoreError),
    /// Nothing has happened, but the flight may still arrive: whatever is written to its topics before it is its end.
    NotYet(StoreError),
    /// It may have been committed.
    Unknown(StoreError),
}

/// What of a batch is in the log.
#[derive(Debug)]
pub(super) enum Stored {
    /// All of it, which under locks it always is.
    All,
    /// What was judged of these topics; to the others somebody else has written meanwhile.
    Only(HashSet<Topic>),
}

impl Stored {
    /// Whether anything is.
    pub(super) fn has_any(&self) -> bool {
        !matches!(self, Self::Only(topics) if topics.is_empty())
    }

    /// Whether what was judged of a ride is.
    pub(super) fn has(&self, ride: &RideId) -> bool {
        match self {
            Self::All => true,
            Self::Only(topics) => topics.contains(&Topic::ride(ride)),
        }
    }
}

/// A transaction, with its locks held; or one that is still to begin, of a batch that was judged without.
#[derive(Debug)]
pub(super) struct Attempt {
    session: Session,
    has_begun: bool,
    /// Rides that somebody else has locked: nothing of them was loaded, and nothing can be judged.
    pub(super) locked: HashSet<RideId>,
}

impl Attempt {
    /// Begins, locks and loads.
    pub(super) async fn begin(store: &Store, needs: &Needs, terms: &Terms) -> Result<(Self, Ledger), StoreError> {
        let session = store.session().await?;
        match load(&session, needs, terms.chat_grace).await {
            Ok((ledger, locked)) => Ok((Self { session, has_begun: true, locked }, ledger)),
            Err(error) => {
                session.give_up(&error).await;
                Err(error)
            }
        }
    }

    /// For a ledger of what is known.
    pub(super) async fn ahead(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { session: store.session().await?, has_begun: false, locked: HashSet::new() })
    }

    /// Locks the topics of those who are told something, and numbers what they are told; or says which of them somebody else
    /// has locked, or is creating.
    pub(super) async fn lock_told(&mut self, ledger: &mut Ledger, waits: bool) -> Result<HashSet<Topic>, StoreError> {
        lock_told(&self.session, ledger, waits).await
    }

    /// Lets go of everything.
    pub(super) async fn let_go(self) {
        if self.session.batch_execute("rollback").await.is_err() {
            self.session.abandon();
        }
    }

    /// The same after an error.
    pub(super) async fn give_up(self, error: &StoreError) {
        self.session.give_up(error).await;
    }

    /// Stores and commits what the ledger says, or lets go of everything where it says nothing. Afterwards the ledger says no
    /// more than what was stored.
    pub(super) async fn finish(self, store: &Store, terms: &Terms, ledger: &mut Ledger) -> Result<Stored, Failed> {
        if ledger.is_unchanged() {
            self.let_go().await;
            return Ok(Stored::All);
        }
        let hints = if terms.notifier.is_on() { ledger.hints() } else { Hints::default() };
        // Under load a NOTIFY for several commits saves more than it delays.
        let (at_once, later) = match hints.heads.len() < MANY && self.session.may_run_ahead() {
            true => (hints::encode(&hints, &store.origin), Heads::new()),
            false => (Vec::new(), hints.heads),
        };
        let stored = self.commit(store, ledger, &at_once).await?;
        match &stored {
            Stored::All => terms.notifier.tell_heads(later),
            // The flight itself has told of all, or of none.
            Stored::Only(topics) => {
                ledger.keep_only(topics);
                terms.notifier.tell_heads(ledger.hints().heads);
            }
        }
        Ok(stored)
    }

    /// Stores and commits, or finds out what became of it.
    async fn commit(self, store: &Store, ledger: &Ledger, hints: &[String]) -> Result<Stored, Failed> {
        let error = match store::store_and_commit(&self.session, self.has_begun, ledger, hints).await {
            Ok(None) => return Ok(Stored::All),
            Ok(Some(topics)) if !self.has_begun => return Ok(Stored::Only(topics)),
            Ok(Some(_)) => return Err(Failed::Unknown(StoreError::Corrupt("a log that was locked has moved"))),
            Err(error) => error,
        };
        self.session.abandon();
        if !error.is_connection_lost() {
            return Err(Failed::NothingDone(error));
        }
        match fate(store, ledger).await {
            Some(Stored::All) => Ok(Stored::All),
            // Its locks were held, and now they are not.
            Some(_) if self.has_begun => Err(Failed::NothingDone(error)),
            // What has arrived has arrived as a whole.
            Some(some) if some.has_any() => Ok(some),
            Some(_) => Err(Failed::NotYet(error)),
            None => Err(Failed::Unknown(error)),
        }
    }
}

/// Which statement locks topics, and how its transaction begins.
fn locking(waits: bool) -> (&'static str, &'static str) {
    if waits { (sql::TOPICS_LOCK, WAITING_SETTINGS) } else { (sql::TOPICS_TRY_LOCK, "") }
}

/// Also says which rides somebody else has locked.
async fn load(session: &Session, needs: &Needs, grace: Duration) -> Result<(Ledger, HashSet<RideId>), StoreError> {
    let (lock, settings) = locking(needs.waits);
    session
        .prepare(&[
            sql::TOPICS_CREATE,
            lock,
            sql::RIDES_BY_ID,
            sql::RIDES_PEOPLE,
            sql::MESSAGES_BY_ID,
            sql::MESSAGES_BY_CLIENT_ID,
            sql::MESSAGES_LAST_OF_OTHERS,
        ])
        .await?;
    let topics: Vec<_> = needs.rides.iter().map(Topic::ride).collect();
    let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
    let new_topics: Vec<_> = needs.new_rides.iter().map(Topic::ride).collect();
    let new_topics: Vec<_> = new_topics.iter().map(Topic::as_str).collect();
    let rides: Vec<_> = needs.rides.iter().map(RideId::as_str).collect();
    let ids: Vec<_> = needs.messages.iter().map(|id| id.0).collect();
    let named_rides: Vec<_> = needs.sent.iter().map(|(ride, ..)| ride.as_str()).collect();
    let named_senders: Vec<_> = needs.sent.iter().map(|(_, sender, _)| sender.as_str()).collect();
    let names: Vec<_> = needs.sent.iter().map(|(.., name)| ClientMessageId::as_str(name)).collect();
    let mark_rides: Vec<_> = needs.last_of_others.iter().map(|(ride, ..)| ride.as_str()).collect();
    let mark_users: Vec<_> = needs.last_of_others.iter().map(|(_, user, _)| user.as_str()).collect();
    let mark_seqs: Vec<_> = needs.last_of_others.iter().map(|(.., seq)| *seq).collect();

    // A statement with nothing to do is not sent.
    let (begun, created, locked, rides, people, by_id, by_name, marks) = tokio::join!(
        biased;
        session.begin(settings),
        async {
            if new_topics.is_empty() { Ok(0) } else { session.execute(sql::TOPICS_CREATE, &[&new_topics]).await }
        },
        async { session.query(lock, &[&topics]).await },
        async { session.query(sql::RIDES_BY_ID, &[&rides]).await },
        async { session.query(sql::RIDES_PEOPLE, &[&rides]).await },
        async { if ids.is_empty() { Ok(Vec::new()) } else { session.query(sql::MESSAGES_BY_ID, &[&ids]).await } },
        async {
            if names.is_empty() {
                return Ok(Vec::new());
            }
            session.query(sql::MESSAGES_BY_CLIENT_ID, &[&named_rides, &named_senders, &names]).await
        },
        async {
            if mark_rides.is_empty() {
                return Ok(Vec::new());
            }
            session.query(sql::MESSAGES_LAST_OF_OTHERS, &[&mark_rides, &mark_users, &mark_seqs]).await
        },
    );
    begun?;
    created?;
    let locked = locked?;
    let transaction = locked.last().ok_or(StoreError::Corrupt("no transaction"))?;
    let now = Time::from(transaction.try_get::<_, jiff::Timestamp>("now")?);
    let held = locked.iter().filter_map(|row| row.try_get::<_, Option<&str>>("name").transpose());
    let held = held.map(|name| Ok(Topic::from_stored(name?))).collect::<Result<HashSet<_>, StoreError>>()?;
    let is_held = |ride: &RideId| held.contains(&Topic::ride(ride));
    let snapshots = snapshots(&locked, &rides?, &people?)?;
    // What is there, or was to be created, and could not be locked.
    let mut not_held: HashSet<_> = needs.new_rides.iter().filter(|ride| !is_held(ride)).cloned().collect();
    let (snapshots, others): (Vec<_>, Vec<_>) = snapshots.into_iter().partition(|snapshot| is_held(&snapshot.ride.id));
    not_held.extend(others.into_iter().map(|snapshot| snapshot.ride.id));
    let by_id = by_id?.iter().map(message_from_row).collect::<Result<Vec<_>, _>>()?;
    let by_name = by_name?.iter().map(message_from_row).collect::<Result<Vec<_>, _>>()?;
    let mut places = HashMap::new();
    for row in marks? {
        let ride = RideId::parse(row.try_get("ride_id")?).map_err(|_| StoreError::Corrupt("ride_id"))?;
        let user = UserId::parse(row.try_get("user_id")?).map_err(|_| StoreError::Corrupt("user_id"))?;
        places.insert((ride, user, row.try_get("up_to")?), (row.try_get("seq")?, MessageId(row.try_get("id")?)));
    }
    Ok((Ledger::new(now, grace, snapshots, by_id.into_iter().chain(by_name), places), not_held))
}

/// See [`Attempt::lock_told`].
async fn lock_told(session: &Session, ledger: &mut Ledger, waits: bool) -> Result<HashSet<Topic>, StoreError> {
    if ledger.changes.told.is_empty() {
        return Ok(HashSet::new());
    }
    let (lock, _) = locking(waits);
    session.prepare(&[sql::TOPICS_CREATE, lock]).await?;
    let topics: Vec<_> = ledger.told_topics().into_iter().map(Topic::as_str).collect();
    let names: [&(dyn ToSql + Sync); 1] = [&topics];
    let (created, locked) = tokio::join!(
        biased;
        session.execute(sql::TOPICS_CREATE, &names),
        session.query(lock, &names),
    );
    created?;
    let mut heads = HashMap::new();
    for row in locked? {
        // Where none could be locked, there is a row without a name.
        if let Some(name) = row.try_get("name")? {
            heads.insert(Topic::from_stored(name), row.try_get("last_seq")?);
        }
    }
    let not_held: HashSet<_> =
        ledger.told_topics().into_iter().filter(|topic| !heads.contains_key(*topic)).cloned().collect();
    if not_held.is_empty() {
        ledger.number_told(heads)?;
    }
    Ok(not_held)
}

/// The rides with their people and receipts, as they are under the lock. Of their people those who are there; where
/// they are and what they follow plays no part in judging.
fn snapshots(heads: &[Row], rides: &[Row], people: &[Row]) -> Result<Vec<RideSnapshot>, StoreError> {
    let mut snapshots = HashMap::new();
    for row in rides {
        let ride = ride_from_row(row)?;
        let nobody = RideSnapshot {
            head: 0,
            ride: ride.clone(),
            participants: Vec::new(),
            receipts: Receipts::default(),
            location: None,
        };
        snapshots.insert(Topic::ride(&ride.id), nobody);
    }
    for row in heads {
        let Some(name) = row.try_get("name")? else { continue };
        if let Some(snapshot) = snapshots.get_mut(&Topic::from_stored(name)) {
            snapshot.head = row.try_get("last_seq")?;
        }
    }
    for row in people {
        let (ride, person) = person_from_row(row)?;
        let Some(snapshot) = snapshots.get_mut(&Topic::ride(&ride)) else { continue };
        match person {
            Person::Participant(participant) => snapshot.participants.push(participant),
            Person::Receipt(receipt) => snapshot.receipts.0.push(receipt),
        }
    }
    Ok(snapshots.into_values().collect())
}

/// What of a batch whose COMMIT was sent was committed; `None` where nobody can tell.
async fn fate(store: &Store, ledger: &Ledger) -> Option<Stored> {
    let deadline = Instant::now() + FATE_PATIENCE;
    while Instant::now() < deadline {
        match stored(store, ledger).await {
            Ok(stored) => return Some(stored),
            Err(error) if error.is_connection_lost() || error.is_lock_timeout() => {}
            Err(_) => return None,
        }
        tokio::time::sleep(FATE_PAUSE).await;
    }
    None
}

/// Of which topics the log has the events of a batch, once nobody holds them any more: the old session may not have
/// noticed yet that nobody is there.
async fn stored(store: &Store, ledger: &Ledger) -> Result<Stored, StoreError> {
    let session = store.session().await?;
    session.prepare(&[sql::TOPICS_LOCK, sql::EVENTS_ARE_THERE]).await?;
    let events = ledger.lasting_events();
    let topics: Vec<_> = events.iter().map(|event| event.topic.as_str()).collect();
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
    let now = ledger.now().timestamp();
    let (begun, locked, found, ended) = tokio::join!(
        biased;
        session.begin(FATE_SETTINGS),
        async { session.query(sql::TOPICS_LOCK, &[&topics]).await },
        // A statement of its own, whose snapshot is younger than the commit.
        async { session.query(sql::EVENTS_ARE_THERE, &[&topics, &seqs, &data, &now]).await },
        session.batch_execute("rollback"),
    );
    if ended.is_err() {
        session.abandon();
    }
    begun?;
    locked?;
    let topic = |row: &Row| Ok(Topic::from_stored(row.try_get("topic")?));
    let found = found?.iter().map(topic).collect::<Result<HashSet<_>, StoreError>>()?;
    Ok(if events.iter().all(|event| found.contains(&event.topic)) { Stored::All } else { Stored::Only(found) })
}
