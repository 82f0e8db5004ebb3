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
//!
//! Where a COMMIT before it is in doubt, the first flight also looks up, after the locks, what [became](Doubt) of it. It waits for
//! locks then: whoever holds them may be the one in doubt.

mod doubt;
mod store;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio_postgres::Row;

pub(super) use self::doubt::{Doubt, Outcome, Outcomes};
use super::{Ledger, Needs, Terms};
use crate::domain::{BatchId, ClientMessageId, MessageId, Receipts, RideId, RideSnapshot, Time, Topic, UserId};
use crate::store::hints::{self, Heads, Hints};
use crate::store::{Person, Session, Store, StoreError, message_from_row, person_from_row, ride_from_row, sql};

/// How long a transaction that looks up what became of another waits for it to end, each time: the old session may not have
/// noticed yet that nobody is there.
const IN_DOUBT: &str = "set local lock_timeout = '500ms'";

/// For a batch that waits for its locks: longer than the commits of other replicas, one after the other, and shorter than
/// anybody notices who waits for the same connection.
const WAITING: &str = "set local lock_timeout = '200ms'";

/// From how many topics on a commit's hints wait for those of the next.
const MANY: usize = 4;

/// Why a batch was not committed, or may not have been.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nothing has happened, and nothing will.
    NothingDone(StoreError),
    /// It may have been committed, or may still be: the next transaction has to find out.
    InDoubt(Box<Doubt>, StoreError),
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
    /// Begins, locks and loads; and says what has become of batches in doubt, whose commands are among those that need this.
    pub(super) async fn begin(
        store: &Store,
        needs: &Needs,
        terms: &Terms,
        doubts: &[Doubt],
    ) -> Result<(Self, Ledger, Vec<Outcomes>), StoreError> {
        let session = store.session().await?;
        match load(&session, needs, terms.chat_grace, doubts).await {
            Ok((ledger, locked, outcomes)) => Ok((Self { session, has_begun: true, locked }, ledger, outcomes)),
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

    /// Commits, where nothing is stored: what others have committed, and was found under these locks, is then as durable as what
    /// is stored. To lock a row is to write, so this COMMIT waits for the disk and for a synchronous standby; and what has
    /// come before it in the log is there as well.
    pub(super) async fn confirm(self) -> Result<(), StoreError> {
        let confirmed = self.session.batch_execute("commit").await;
        if let Err(error) = &confirmed {
            self.session.give_up(error).await;
        }
        confirmed
    }

    /// Lets go of everything.
    pub(super) async fn end(self) {
        if self.session.batch_execute("rollback").await.is_err() {
            self.session.abandon();
        }
    }

    /// The same after an error.
    pub(super) async fn give_up(self, error: &StoreError) {
        self.session.give_up(error).await;
    }

    /// Stores and commits what the ledger says, which is not nothing. Afterwards the ledger says no more than what was stored.
    pub(super) async fn finish(
        self,
        store: &Store,
        terms: &Terms,
        mut ledger: Ledger,
    ) -> Result<(Stored, Ledger), Failed> {
        let hints = if terms.notifier.is_on() { ledger.hints() } else { Hints::default() };
        // Under load a NOTIFY for several commits saves more than it delays.
        let (at_once, later) = match hints.heads.len() < MANY && self.session.may_run_ahead() {
            true => (hints::encode(&hints, &store.origin), Heads::new()),
            false => (Vec::new(), hints.heads),
        };
        let stored =
            match store::store_and_commit(&self.session, self.has_begun, &ledger, terms.has_feed, &at_once).await {
                Ok(None) => Stored::All,
                Ok(Some(topics)) => Stored::Only(topics),
                Err(error) => {
                    self.session.give_up(&error).await;
                    let is_in_doubt = error.is_connection_lost();
                    let doubt = Doubt { ledger, was_locked: self.has_begun };
                    return Err(match is_in_doubt {
                        true => Failed::InDoubt(Box::new(doubt), error),
                        false => Failed::NothingDone(error),
                    });
                }
            };
        match &stored {
            Stored::All => terms.notifier.tell_heads(later),
            // The flight itself has told of all, or of none.
            Stored::Only(topics) => {
                ledger.keep_only(topics);
                terms.notifier.tell_heads(ledger.hints().heads);
            }
        }
        Ok((stored, ledger))
    }
}

/// How topics are made and locked.
#[derive(Debug, Clone, Copy)]
struct Locking {
    create: &'static str,
    lock: &'static str,
}

impl Locking {
    /// Whether to wait for what somebody else has locked, or is creating.
    fn new(waits: bool) -> Self {
        match waits {
            true => Self { create: sql::TOPICS_CREATE_WAITING, lock: sql::TOPICS_LOCK },
            false => Self { create: sql::TOPICS_CREATE, lock: sql::TOPICS_TRY_LOCK },
        }
    }

    /// Makes those topics that are not there, and locks all. Both are statements of their own, the second with the younger
    /// snapshot.
    async fn run(self, session: &Session, new: &[&str], topics: &[&str]) -> Result<Vec<Row>, StoreError> {
        let (created, locked) = tokio::join!(
            biased;
            // A statement with nothing to do is not sent.
            async { if new.is_empty() { Ok(0) } else { session.execute(self.create, &[&new]).await } },
            async { session.query(self.lock, &[&topics]).await },
        );
        created.and(locked)
    }
}

/// Also says which rides somebody else has locked.
async fn load(
    session: &Session,
    needs: &Needs,
    grace: Duration,
    doubts: &[Doubt],
) -> Result<(Ledger, HashSet<RideId>, Vec<Outcomes>), StoreError> {
    let locking = Locking::new(needs.waits);
    if !doubts.is_empty() {
        session.prepare(&[sql::EVENTS_OUTCOME]).await?;
    }
    session
        .prepare(&[
            locking.create,
            locking.lock,
            sql::RIDES_BY_ID,
            sql::RIDES_PEOPLE,
            sql::MESSAGES_BY_ID,
            sql::MESSAGES_BY_CLIENT_ID,
            sql::MESSAGES_LAST_OF_OTHERS,
        ])
        .await?;
    let users: BTreeSet<&Topic> = doubts.iter().flat_map(Doubt::users).collect();
    let topics: Vec<_> = needs.rides.iter().map(Topic::ride).collect();
    let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
    let new_topics: Vec<_> = needs.new_rides.iter().map(Topic::ride).collect();
    let new_topics: Vec<_> = new_topics.iter().map(Topic::as_str).collect();
    let users: Vec<_> = users.into_iter().map(Topic::as_str).collect();
    let rides: Vec<_> = needs.rides.iter().map(RideId::as_str).collect();
    let ids: Vec<_> = needs.messages.iter().map(|id| id.0).collect();
    let named_rides: Vec<_> = needs.sent.iter().map(|(ride, ..)| ride.as_str()).collect();
    let named_senders: Vec<_> = needs.sent.iter().map(|(_, sender, _)| sender.as_str()).collect();
    let names: Vec<_> = needs.sent.iter().map(|(.., name)| ClientMessageId::as_str(name)).collect();
    let mark_rides: Vec<_> = needs.last_of_others.iter().map(|(ride, ..)| ride.as_str()).collect();
    let mark_users: Vec<_> = needs.last_of_others.iter().map(|(_, user, _)| user.as_str()).collect();
    let mark_seqs: Vec<_> = needs.last_of_others.iter().map(|(.., seq)| *seq).collect();

    // A statement with nothing to do is not sent.
    let settings = match needs.waits {
        _ if !doubts.is_empty() => IN_DOUBT,
        true => WAITING,
        false => "",
    };
    let (begun, locked, users_locked, outcomes, rides, people, by_id, by_name, marks) = tokio::join!(
        biased;
        session.begin(settings),
        locking.run(session, &new_topics, &topics),
        // What a batch in doubt may have made is waited for by making it. After the rides, as everywhere.
        async {
            if users.is_empty() { Ok(Vec::new()) } else { locking.run(session, &users, &users).await }
        },
        doubt::look_up(session, doubts),
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
    let locked = locked?;
    let (users_locked, outcomes) = (users_locked?, outcomes?);
    let transaction = users_locked.last().or(locked.last()).ok_or(StoreError::Corrupt("no transaction"))?;
    let now = Time::from(transaction.try_get::<_, jiff::Timestamp>("now")?);
    let held = locked.iter().filter_map(|row| row.try_get::<_, Option<&str>>("name").transpose());
    let held = held.map(|name| Ok(Topic::from_stored(name?))).collect::<Result<HashSet<_>, StoreError>>()?;
    let is_held = |ride: &RideId| held.contains(&Topic::ride(ride));
    let snapshots = snapshots(&locked, &rides?, &people?, now)?;
    // What is there, or was to be created, and could not be locked.
    let mut not_held: HashSet<_> = needs.new_rides.iter().filter(|ride| !is_held(ride)).cloned().collect();
    let (snapshots, others): (Vec<_>, Vec<_>) =
        snapshots.into_iter().partition(|(snapshot, _)| is_held(&snapshot.ride.id));
    not_held.extend(others.into_iter().map(|(snapshot, _)| snapshot.ride.id));
    let by_id = by_id?.iter().map(message_from_row).collect::<Result<Vec<_>, _>>()?;
    let by_name = by_name?.iter().map(message_from_row).collect::<Result<Vec<_>, _>>()?;
    let mut places = HashMap::new();
    for row in marks? {
        let ride = RideId::parse(row.try_get("ride_id")?).map_err(|_| StoreError::Corrupt("ride_id"))?;
        let user = UserId::parse(row.try_get("user_id")?).map_err(|_| StoreError::Corrupt("user_id"))?;
        places.insert((ride, user, row.try_get("up_to")?), (row.try_get("seq")?, MessageId(row.try_get("id")?)));
    }
    Ok((Ledger::new(now, grace, snapshots, by_id.into_iter().chain(by_name), places), not_held, outcomes))
}

/// See [`Attempt::lock_told`].
async fn lock_told(session: &Session, ledger: &mut Ledger, waits: bool) -> Result<HashSet<Topic>, StoreError> {
    if ledger.changes.told.is_empty() {
        return Ok(HashSet::new());
    }
    let locking = Locking::new(waits);
    session.prepare(&[locking.create, locking.lock]).await?;
    let topics: Vec<_> = ledger.told_topics().into_iter().map(Topic::as_str).collect();
    let mut heads = HashMap::new();
    for row in locking.run(session, &topics, &topics).await? {
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

/// The rides with their people and receipts, as they are under the lock, and the batches that wrote the ends of their logs. Of their people those who are there; where
/// they are and what they follow plays no part in judging.
fn snapshots(
    heads: &[Row],
    rides: &[Row],
    people: &[Row],
    read_at: Time,
) -> Result<Vec<(RideSnapshot, BatchId)>, StoreError> {
    let mut snapshots = HashMap::new();
    for row in rides {
        let ride = ride_from_row(row)?;
        let nobody = RideSnapshot {
            head: 0,
            ride: ride.clone(),
            participants: Vec::new(),
            receipts: Receipts::default(),
            location: None,
            read_at,
            last_batch: 0,
        };
        snapshots.insert(Topic::ride(&ride.id), (nobody, 0));
    }
    for row in heads {
        let Some(name) = row.try_get("name")? else { continue };
        if let Some((snapshot, batch)) = snapshots.get_mut(&Topic::from_stored(name)) {
            snapshot.head = row.try_get("last_seq")?;
            *batch = row.try_get("last_batch")?;
        }
    }
    for row in people {
        let (ride, person) = person_from_row(row)?;
        let Some((snapshot, _)) = snapshots.get_mut(&Topic::ride(&ride)) else { continue };
        match person {
            Person::Participant(participant) => snapshot.participants.push(participant),
            Person::Receipt(receipt) => snapshot.receipts.0.push(receipt),
        }
    }
    Ok(snapshots.into_values().collect())
}
