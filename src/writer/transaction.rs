//! The transaction of one batch. It takes one to three round trips, usually two. The statements of a round trip are sent in one write.
//!
//! 1. The first round trip begins the transaction, locks the topics that no other session has locked, and loads the read set.
//!    Locking is a statement of its own. Under READ COMMITTED each statement has its own snapshot, so the snapshots of the loading
//!    statements are newer than the locks. If one statement locked and loaded, its snapshot would be older than the change that the
//!    lock waited for. Two replicas could then both find that a message has not been sent yet.
//! 2. If a ride ends or its participants change, the next round trip locks the topics of the users who are notified. They are known
//!    only after the batch is applied. The topics of rides sort before those of users, and each round trip locks in order, so two
//!    batches cannot deadlock.
//! 3. The last round trip stores everything and commits. COMMIT is sent before the results of the previous statements are known.
//!    This is safe: if one of them fails, Postgres turns the COMMIT into a ROLLBACK.
//!
//! An optimistic batch, which was applied to the [ride cache](super::ride_cache), has the last round trip alone. It stores nothing of
//! a topic whose head is no longer the cached one.
//!
//! If an earlier COMMIT is in doubt, the first round trip also looks up its [outcome](InDoubtBatch), after the locks. It waits for
//! locks then, because the transaction in doubt may hold them.

mod columns;
mod in_doubt;
mod store;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio_postgres::Row;

pub(super) use self::in_doubt::{InDoubtBatch, Outcome, Outcomes};
use self::store::FeedMode;
use super::{BatchState, ReadSet, WriterConfig};
use crate::domain::{BatchId, ClientMessageId, MessageId, Receipts, RideId, RideSnapshot, Time, Topic, UserId};
use crate::store::hints::{self, Heads, Hints};
use crate::store::{
    ParticipantRow, Session, Store, StoreError, message_from_row, participant_from_row, ride_from_row, sql,
};

/// How long a transaction that looks up the outcome of another waits for that transaction to end, per lock. The server process of the
/// lost session may not have noticed yet that its client is gone.
const IN_DOUBT: &str = "set local lock_timeout = '500ms'";

/// For a batch that waits for locks. The timeout is longer than a few successive commits of other replicas, and too short to be noticed
/// by other requests that wait for the same connection.
const WAITING: &str = "set local lock_timeout = '200ms'";

/// The minimum number of topics in a commit at which its hints are combined with those of the next commits.
const COMBINE_FROM: usize = 4;

/// Why a batch was not committed, or may not have been.
#[derive(Debug)]
pub(super) enum CommitError {
    /// Nothing is committed, and nothing will be.
    NotCommitted(StoreError),
    /// The batch may be committed, or may still be. The next transaction must look up the outcome.
    InDoubt(Box<InDoubtBatch>, StoreError),
}

/// Which topics of a batch were stored.
#[derive(Debug)]
pub(super) enum Stored {
    /// All of them. On the locking path it is always all.
    All,
    /// Only these topics. The others had a conflict: another session has written to them or has locked them.
    Only(HashSet<Topic>),
}

impl Stored {
    /// Whether any topic was stored.
    pub(super) fn has_any(&self) -> bool {
        !matches!(self, Self::Only(topics) if topics.is_empty())
    }

    /// Whether the events of a ride were stored.
    pub(super) fn contains(&self, ride: &RideId) -> bool {
        match self {
            Self::All => true,
            Self::Only(topics) => topics.contains(&Topic::ride(ride)),
        }
    }
}

/// The transaction of a batch: with its locks held, or not begun yet for an optimistic batch.
#[derive(Debug)]
pub(super) struct BatchTransaction {
    session: Session,
    has_begun: bool,
    /// The rides that another session has locked. They are not loaded, and no command can be applied to them.
    pub(super) locked_rides: HashSet<RideId>,
}

impl BatchTransaction {
    /// Begins, locks and loads. Also returns the outcomes of the batches in doubt, whose commands are part of the read set.
    pub(super) async fn begin(
        store: &Store,
        read_set: &ReadSet,
        config: &WriterConfig,
        in_doubt: &[InDoubtBatch],
    ) -> Result<(Self, BatchState, Vec<Outcomes>), StoreError> {
        let session = store.session().await?;
        match load(&session, read_set, config.chat_grace, in_doubt).await {
            Ok((state, locked_rides, outcomes)) => {
                Ok((Self { session, has_begun: true, locked_rides }, state, outcomes))
            }
            Err(error) => {
                session.release_after_error(&error).await;
                Err(error)
            }
        }
    }

    /// Creates the transaction of an optimistic batch. It begins with the commit.
    pub(super) async fn optimistic(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { session: store.session().await?, has_begun: false, locked_rides: HashSet::new() })
    }

    /// Locks the topics of the user events, and assigns their seqs.
    ///
    /// Returns the topics that another session has locked or is creating. If there are any, no seq is assigned.
    pub(super) async fn lock_user_topics(
        &mut self,
        state: &mut BatchState,
        waits: bool,
    ) -> Result<HashSet<Topic>, StoreError> {
        lock_user_topics(&self.session, state, waits).await
    }

    /// Commits a transaction that stores nothing.
    ///
    /// Afterwards the commits of other transactions that were found under these locks are as durable as a commit of this one. A row lock
    /// is a write, so this COMMIT waits for the disk and for a synchronous standby, and everything before it in the WAL is there too.
    pub(super) async fn commit_unchanged(self) -> Result<(), StoreError> {
        let committed = self.session.batch_execute("commit").await;
        if let Err(error) = &committed {
            self.session.release_after_error(error).await;
        }
        committed
    }

    /// Rolls back.
    pub(super) async fn rollback(self) {
        if self.session.batch_execute("rollback").await.is_err() {
            self.session.abandon();
        }
    }

    /// Rolls back after an error.
    pub(super) async fn abort(self, error: &StoreError) {
        self.session.release_after_error(error).await;
    }

    /// Stores and commits the changes in `state`, of which there is at least one. Afterwards `state` contains only what was stored.
    pub(super) async fn commit(
        self,
        store: &Store,
        config: &WriterConfig,
        mut state: BatchState,
    ) -> Result<(Stored, BatchState), CommitError> {
        let hints = if config.notifier.is_on() { state.hints() } else { Hints::default() };
        // Under load, one NOTIFY for several commits saves more than it delays.
        let (at_once, later) = match hints.heads.len() < COMBINE_FROM && self.session.may_pipeline() {
            true => (hints::encode(&hints, &store.origin), Heads::new()),
            false => (Vec::new(), hints.heads),
        };
        let stored =
            match store::store_and_commit(&self.session, self.has_begun, &state, FeedMode::new(config), &at_once).await
            {
                Ok((only, relayed)) => {
                    state.relayed = relayed;
                    only.map_or(Stored::All, Stored::Only)
                }
                Err(error) => {
                    self.session.release_after_error(&error).await;
                    let is_in_doubt = error.is_connection_lost();
                    let in_doubt = InDoubtBatch { state, was_locked: self.has_begun };
                    return Err(match is_in_doubt {
                        true => CommitError::InDoubt(Box::new(in_doubt), error),
                        false => CommitError::NotCommitted(error),
                    });
                }
            };
        match &stored {
            Stored::All => config.notifier.notify_heads(later),
            // The hints of the round trip itself were sent for all topics or for none.
            Stored::Only(topics) => {
                state.retain_topics(topics);
                config.notifier.notify_heads(state.hints().heads);
            }
        }
        Ok((stored, state))
    }
}

/// The statements that create and lock topics.
#[derive(Debug, Clone, Copy)]
struct Locking {
    create: &'static str,
    lock: &'static str,
}

impl Locking {
    /// `waits`: whether to wait for topics that another session has locked or is creating.
    fn new(waits: bool) -> Self {
        match waits {
            true => Self { create: sql::TOPICS_CREATE_BLOCKING, lock: sql::TOPICS_LOCK },
            false => Self { create: sql::TOPICS_CREATE, lock: sql::TOPICS_TRY_LOCK },
        }
    }

    /// Creates the topics in `new` that do not exist, and locks all `topics`. These are two statements, so that the second has a newer
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

/// Locks and loads the read set. Also returns the rides that another session has locked, and the outcomes of the batches in doubt.
async fn load(
    session: &Session,
    read_set: &ReadSet,
    grace: Duration,
    in_doubt: &[InDoubtBatch],
) -> Result<(BatchState, HashSet<RideId>, Vec<Outcomes>), StoreError> {
    let locking = Locking::new(read_set.waits);
    if !in_doubt.is_empty() {
        session.prepare(&[sql::EVENTS_OUTCOME]).await?;
    }
    session
        .prepare(&[
            locking.create,
            locking.lock,
            sql::RIDES_BY_ID,
            sql::RIDES_PARTICIPANTS,
            sql::MESSAGES_BY_ID,
            sql::MESSAGES_BY_CLIENT_ID,
            sql::MESSAGES_LAST_OF_OTHERS,
        ])
        .await?;
    let users: BTreeSet<&Topic> = in_doubt.iter().flat_map(InDoubtBatch::user_topics).collect();
    let topics: Vec<_> = read_set.rides.iter().map(Topic::ride).collect();
    let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
    let new_topics: Vec<_> = read_set.new_rides.iter().map(Topic::ride).collect();
    let new_topics: Vec<_> = new_topics.iter().map(Topic::as_str).collect();
    let users: Vec<_> = users.into_iter().map(Topic::as_str).collect();
    let rides: Vec<_> = read_set.rides.iter().map(RideId::as_str).collect();
    let ids: Vec<_> = read_set.messages.iter().map(|id| id.0).collect();
    let client_rides: Vec<_> = read_set.client_message_ids.iter().map(|(ride, ..)| ride.as_str()).collect();
    let client_senders: Vec<_> = read_set.client_message_ids.iter().map(|(_, sender, _)| sender.as_str()).collect();
    let client_ids: Vec<_> =
        read_set.client_message_ids.iter().map(|(.., name)| ClientMessageId::as_str(name)).collect();
    let others_rides: Vec<_> = read_set.last_of_others.iter().map(|(ride, ..)| ride.as_str()).collect();
    let others_users: Vec<_> = read_set.last_of_others.iter().map(|(_, user, _)| user.as_str()).collect();
    let others_seqs: Vec<_> = read_set.last_of_others.iter().map(|(.., seq)| *seq).collect();

    // A statement with nothing to do is not sent.
    let settings = match read_set.waits {
        _ if !in_doubt.is_empty() => IN_DOUBT,
        true => WAITING,
        false => "",
    };
    let (begun, locked, users_locked, outcomes, rides, participants, by_id, by_client_id, others) = tokio::join!(
        biased;
        session.begin(settings),
        locking.run(session, &new_topics, &topics),
        // This waits for a batch in doubt that may have created these topics. They follow the rides, as in every lock order.
        async {
            if users.is_empty() { Ok(Vec::new()) } else { locking.run(session, &users, &users).await }
        },
        in_doubt::look_up(session, in_doubt),
        async { session.query(sql::RIDES_BY_ID, &[&rides]).await },
        async { session.query(sql::RIDES_PARTICIPANTS, &[&rides]).await },
        async { if ids.is_empty() { Ok(Vec::new()) } else { session.query(sql::MESSAGES_BY_ID, &[&ids]).await } },
        async {
            if client_ids.is_empty() {
                return Ok(Vec::new());
            }
            session.query(sql::MESSAGES_BY_CLIENT_ID, &[&client_rides, &client_senders, &client_ids]).await
        },
        async {
            if others_rides.is_empty() {
                return Ok(Vec::new());
            }
            session.query(sql::MESSAGES_LAST_OF_OTHERS, &[&others_rides, &others_users, &others_seqs]).await
        },
    );
    begun?;
    let locked = locked?;
    let (users_locked, outcomes) = (users_locked?, outcomes?);
    let transaction = users_locked.last().or(locked.last()).ok_or(StoreError::Corrupt("no transaction"))?;
    let now = Time::from(transaction.try_get::<_, jiff::Timestamp>("now")?);
    let names = locked.iter().filter_map(|row| row.try_get::<_, Option<&str>>("name").transpose());
    let held = names.map(|name| Ok(Topic::from_stored(name?))).collect::<Result<HashSet<_>, StoreError>>()?;
    let is_held = |ride: &RideId| held.contains(&Topic::ride(ride));
    let snapshots = snapshots(&locked, &rides?, &participants?, now)?;
    // Rides that exist, or were to be created, and could not be locked.
    let mut unavailable: HashSet<_> = read_set.new_rides.iter().filter(|ride| !is_held(ride)).cloned().collect();
    let (snapshots, not_held): (Vec<_>, Vec<_>) =
        snapshots.into_iter().partition(|(snapshot, _)| is_held(&snapshot.ride.id));
    unavailable.extend(not_held.into_iter().map(|(snapshot, _)| snapshot.ride.id));
    let by_id = by_id?.iter().map(message_from_row).collect::<Result<Vec<_>, _>>()?;
    let by_client_id = by_client_id?.iter().map(message_from_row).collect::<Result<Vec<_>, _>>()?;
    let mut last_of_others = HashMap::new();
    for row in others? {
        let ride = RideId::parse(row.try_get("ride_id")?).map_err(|_| StoreError::Corrupt("ride_id"))?;
        let user = UserId::parse(row.try_get("user_id")?).map_err(|_| StoreError::Corrupt("user_id"))?;
        last_of_others
            .insert((ride, user, row.try_get("up_to")?), (row.try_get("seq")?, MessageId(row.try_get("id")?)));
    }
    Ok((
        BatchState::new(now, grace, snapshots, by_id.into_iter().chain(by_client_id), last_of_others),
        unavailable,
        outcomes,
    ))
}

/// See [`BatchTransaction::lock_user_topics`].
async fn lock_user_topics(
    session: &Session,
    state: &mut BatchState,
    waits: bool,
) -> Result<HashSet<Topic>, StoreError> {
    if state.changes.user_events.is_empty() {
        return Ok(HashSet::new());
    }
    let locking = Locking::new(waits);
    session.prepare(&[locking.create, locking.lock]).await?;
    let topics: Vec<_> = state.user_topics().into_iter().map(Topic::as_str).collect();
    let mut heads = HashMap::new();
    for row in locking.run(session, &topics, &topics).await? {
        // If no topic could be locked, there is one row without a name.
        if let Some(name) = row.try_get("name")? {
            heads.insert(Topic::from_stored(name), row.try_get("last_seq")?);
        }
    }
    let unavailable: HashSet<_> =
        state.user_topics().into_iter().filter(|topic| !heads.contains_key(*topic)).cloned().collect();
    if unavailable.is_empty() {
        state.assign_seqs(heads)?;
    }
    Ok(unavailable)
}

/// Returns the rides with their participants and receipts as of the locks, each with the batch that wrote the last event of its log.
///
/// Past participants are included. Presence and location are not loaded, because no command needs them.
fn snapshots(
    heads: &[Row],
    rides: &[Row],
    participants: &[Row],
    read_at: Time,
) -> Result<Vec<(RideSnapshot, BatchId)>, StoreError> {
    let mut snapshots = HashMap::new();
    for row in rides {
        let ride = ride_from_row(row)?;
        let snapshot = RideSnapshot {
            head: 0,
            ride: ride.clone(),
            participants: Vec::new(),
            receipts: Receipts::default(),
            location: None,
            read_at,
            last_batch: 0,
        };
        snapshots.insert(Topic::ride(&ride.id), (snapshot, 0));
    }
    for row in heads {
        let Some(name) = row.try_get("name")? else { continue };
        if let Some((snapshot, batch)) = snapshots.get_mut(&Topic::from_stored(name)) {
            snapshot.head = row.try_get("last_seq")?;
            *batch = row.try_get("last_batch")?;
        }
    }
    for row in participants {
        let (ride, row) = participant_from_row(row)?;
        let Some((snapshot, _)) = snapshots.get_mut(&Topic::ride(&ride)) else { continue };
        match row {
            ParticipantRow::Participant(participant) => snapshot.participants.push(participant),
            ParticipantRow::Receipt(receipt) => snapshot.receipts.0.push(receipt),
        }
    }
    Ok(snapshots.into_values().collect())
}
