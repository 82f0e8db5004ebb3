//! The first round trips of a batch's transaction: its locks, and what it reads under them.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio_postgres::Row;

use super::in_doubt::{self, InDoubtBatch, Outcomes};
use crate::domain::{
    BatchId, ClientMessageId, MessageId, Receipts, RideId, RideSnapshot, ShardId, Time, Topic, UserId,
};
use crate::store::{ParticipantRow, Session, StoreError, message_from_row, participant_from_row, ride_from_row, sql};
use crate::writer::batch_state::ReceivedRows;
use crate::writer::{BatchRules, BatchState, ReadSet};

/// How long a transaction that looks up the outcome of another waits for that transaction to end, per lock. The server process of the
/// lost session may not have noticed yet that its client is gone.
const IN_DOUBT: &str = "set local lock_timeout = '500ms'";

/// For a batch that waits for locks. The timeout is longer than a few successive commits of other replicas, and too short to be noticed
/// by other requests that wait for the same connection.
const WAITING: &str = "set local lock_timeout = '200ms'";

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
pub(super) async fn load(
    session: &Session,
    read_set: &ReadSet,
    rules: BatchRules,
    in_doubt: &[InDoubtBatch],
) -> Result<(BatchState, HashSet<RideId>, Vec<Outcomes>), StoreError> {
    let locking = Locking::new(read_set.waits);
    if !in_doubt.is_empty() {
        session.prepare(&[sql::EVENTS_OUTCOME]).await?;
    }
    if !read_set.outboxes.is_empty() {
        session.prepare(&[sql::REMOTE_RIDES_LOCK_SOURCES, sql::REMOTE_RIDES_LAST_IDS]).await?;
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
    let (begun, locked, users_locked, outcomes, rides, participants, by_id, by_client_id, others, received) = tokio::join!(
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
        load_received(session, read_set, rules),
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
    let mut state = BatchState::new(now, rules, snapshots, by_id.into_iter().chain(by_client_id), last_of_others);
    state.received = received?;
    Ok((state, unavailable, outcomes))
}

/// Acquires the locks of the shards whose outbox rows are applied, and loads what was applied before. These are two statements, so that
/// the second has a newer snapshot.
async fn load_received(session: &Session, read_set: &ReadSet, rules: BatchRules) -> Result<ReceivedRows, StoreError> {
    if read_set.outboxes.is_empty() {
        return Ok(ReceivedRows::default());
    }
    // Several shards may be in one database, which has these locks.
    let key = |from: &ShardId| (i64::from(rules.shard.id.number()) << 16) + i64::from(from.number());
    let keys: Vec<_> = read_set.outboxes.iter().map(key).collect();
    let users: Vec<_> = read_set.outbox_rows.iter().map(|(user, _)| user.as_str()).collect();
    let rides: Vec<_> = read_set.outbox_rows.iter().map(|(_, ride)| ride.as_str()).collect();
    let (locked, last_ids) = tokio::join!(
        biased;
        async { session.query(sql::REMOTE_RIDES_LOCK_SOURCES, &[&keys]).await },
        async { session.query(sql::REMOTE_RIDES_LAST_IDS, &[&users, &rides]).await },
    );
    let mut received = ReceivedRows::default();
    for row in locked? {
        let locked = row.try_get::<_, i64>("key")?;
        received.locked.extend(read_set.outboxes.iter().filter(|from| key(from) == locked));
    }
    for row in last_ids? {
        let user = UserId::parse(row.try_get("user_id")?).map_err(|_| StoreError::Corrupt("user_id"))?;
        let ride = RideId::parse(row.try_get("ride_id")?).map_err(|_| StoreError::Corrupt("ride_id"))?;
        received.last_ids.insert((user, ride), row.try_get("last_id")?);
    }
    Ok(received)
}

/// Locks the topics of the user events, and assigns their seqs. Returns the topics that are not available; see
/// [`BatchTransaction`](super::BatchTransaction).
pub(super) async fn lock_user_topics(
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
