//! The last round trip: the changes of a batch as set-based statements, and COMMIT.

use std::collections::{HashMap, HashSet};

use futures_util::future::poll_immediate;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::columns::{
    ChangedMessageRow, ChangedMessageRows, Columns, EventRow, EventRows, FlagRow, FlagRows, MessageRow, MessageRows,
    Param, ParticipantRow, ParticipantRows, ReceiptRow, ReceiptRows, RideRow, RideRows, TombstoneRow, TombstoneRows,
    TopicEndRow, TopicEndRows, execute,
};
use super::outbox;
use crate::domain::{
    ClientMessageId, Content, Labels, Message, Metadata, NewEvent, Participant, Ride, RideId, RideSnapshot, Seq, Time,
    Topic, UserId,
};
use crate::store::{Session, StoreError, sql};
use crate::writer::{BatchState, Relayed, WriterConfig};

/// The statements of any commit, and the additional statements after the locking path.
const COMMIT_STATEMENTS: [&str; 2] = [sql::EVENTS_APPEND, sql::TOPICS_NOTIFY_COMMITTED];
const LOCKING_STATEMENTS: [&str; 5] =
    [sql::RIDES_PUT, sql::PARTICIPANTS_PUT, sql::RECEIPTS_PUT, sql::MESSAGES_UPDATE, sql::EVENTS_ERASE];
/// The additional statement if a ride is closed, or read after it was closed.
const CLOSED_STATEMENTS: [&str; 1] = [sql::PARTICIPANTS_SET_READ];
/// The additional statements if a message is flagged, or a message is deleted that may have been flagged.
const FLAG_STATEMENTS: [&str; 2] = [sql::FLAGS_PUT, sql::FLAGS_ERASE];
/// The additional statements if a user's reactions are erased.
const REACTION_STATEMENTS: [&str; 1] = [sql::EVENTS_ERASE_REACTIONS];
/// The additional statement if the batch assigns positions on the feed.
const FEED_STATEMENTS: [&str; 1] = [sql::FEED_RELAY];

/// The maximum number of batches, including its own, to which a batch assigns positions on the feed.
const RELAYED_BATCHES: i64 = 50;

/// What a commit does for the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedMode {
    /// Nothing.
    Off,
    /// Queues the batch for the relay.
    Queue,
    /// Also assigns positions to the queued batches, if no other transaction does.
    Relay,
}

impl FeedMode {
    pub(super) fn new(config: &WriterConfig) -> Self {
        match &config.relay {
            Some(relay) if relay.is_read() => Self::Relay,
            Some(_) => Self::Queue,
            None => Self::Off,
        }
    }
}

/// Stores the changes and commits. Begins the transaction first, unless it has begun.
///
/// Returns the topics that were stored, or `None` if it was all of them, as always on the locking path, and the positions on the feed
/// that were assigned. If the connection was lost, an
/// error does not say whether the commit happened. After any other error it did not happen.
///
/// `hints` are sent to the other replicas right after the commit, and only if it happens. This function does not wait for them, so
/// there must be none if a pooler may give the connection to another client. A lost hint costs the other replicas the time until
/// their next poll.
pub(super) async fn store_and_commit(
    session: &Session,
    has_begun: bool,
    state: &BatchState,
    feed: FeedMode,
    hints: &[String],
) -> Result<(Option<HashSet<Topic>>, Option<Relayed>), StoreError> {
    session.prepare(&COMMIT_STATEMENTS).await?;
    let has_flags = !state.changes.flags.is_empty();
    if has_begun || has_flags {
        session.prepare(&LOCKING_STATEMENTS).await?;
    }
    let closed_rides: Vec<&str> = state.changed_closed_rides().into_iter().map(RideId::as_str).collect();
    if !closed_rides.is_empty() {
        session.prepare(&CLOSED_STATEMENTS).await?;
    }
    if has_flags || !state.changes.erased_messages.is_empty() {
        session.prepare(&FLAG_STATEMENTS).await?;
    }
    if !state.changes.erased_reactions.is_empty() {
        session.prepare(&REACTION_STATEMENTS).await?;
    }
    if feed == FeedMode::Relay {
        session.prepare(&FEED_STATEMENTS).await?;
    }
    outbox::prepare(session, state).await?;
    let first = state.changes.events.first().map(|event| (event.topic.as_str(), event.seq));
    // Without an event there are no hints.
    let (topic, seq) = first.unwrap_or_default();
    session.may_commit();
    let now = state.now().timestamp();
    let notify_params: [&(dyn ToSql + Sync); 4] = [&hints, &topic, &seq, &now];
    // An optimistic batch is stored by one statement, which is a transaction of its own. Its response is complete after its commit.
    // Through a pooler it needs a BEGIN for the transaction's settings.
    let is_single_statement = !has_begun && !has_flags && feed != FeedMode::Relay && session.may_pipeline();
    // The erasing statements also find the events and the flags of their own batch. The feed's head is locked last.
    let (
        begun,
        appended,
        rides,
        participants,
        receipts,
        updated,
        read,
        flagged,
        erased,
        unreacted,
        unflagged,
        sent,
        listed,
        unlisted,
        relayed,
        committed,
        (),
    ) = tokio::join!(
        biased;
        async { if has_begun || is_single_statement { Ok(()) } else { session.begin("").await } },
        append(session, has_begun, state, feed),
        put_rides(session, state),
        put_participants(session, state),
        put_receipts(session, state),
        update_messages(session, state),
        set_read(session, &closed_rides),
        put_flags(session, state, feed),
        erase_events(session, state),
        erase_reactions(session, state),
        erase_flags(session, state),
        outbox::put_outbox(session, state),
        outbox::put_remote_rides(session, state),
        outbox::delete_remote_rides(session, state),
        relay(session, state, feed),
        async { if is_single_statement { Ok(()) } else { session.batch_execute("commit").await } },
        async {
            if !hints.is_empty() {
                // The first poll sends it.
                poll_immediate(session.send(sql::TOPICS_NOTIFY_COMMITTED, &notify_params)).await;
            }
        },
    );
    // The first failure is the cause. The failures after it only report that the transaction is aborted.
    begun?;
    let stored_topics = appended?;
    let outbox = [sent, listed, unlisted];
    for stored in [rides, participants, receipts, updated, read, flagged, erased, unreacted, unflagged] {
        stored?;
    }
    outbox.into_iter().collect::<Result<Vec<_>, _>>()?;
    let relayed = relayed?;
    committed?;
    Ok((stored_topics, relayed))
}

/// Assigns positions on the feed to the queued batches. Returns `None` if another transaction has the lock. Then the relay does it
/// later.
async fn relay(session: &Session, state: &BatchState, feed: FeedMode) -> Result<Option<Relayed>, StoreError> {
    if feed != FeedMode::Relay {
        return Ok(None);
    }
    let rows = session.query(sql::FEED_RELAY, &[&RELAYED_BATCHES, &true]).await?;
    let row = rows.first().ok_or(StoreError::Corrupt("no row"))?;
    let Some(last) = row.try_get("last_seq")? else { return Ok(None) };
    let has_more = row.try_get("has_more")?;
    let mut first_positions = HashMap::new();
    let ranges = state.event_ranges();
    // The other batches were committed before, by this replica or another.
    for row in &rows {
        let Some(mut position) = row.try_get::<_, Option<Seq>>("first_position")? else { continue };
        let topics: Vec<&str> = row.try_get("topics")?;
        let (first_seqs, last_seqs): (Vec<Seq>, Vec<Seq>) = (row.try_get("first_seqs")?, row.try_get("last_seqs")?);
        for (topic, (first_seq, last_seq)) in topics.into_iter().zip(first_seqs.into_iter().zip(last_seqs)) {
            let topic = Topic::from_stored(topic);
            if ranges.get(&topic).is_some_and(|(first, _)| *first == first_seq) {
                first_positions.insert(topic, (first_seq, position));
            }
            position += last_seq - first_seq + 1;
        }
    }
    Ok(Some(Relayed { last, at: state.now(), has_more, first_positions }))
}

/// Appends the events, and inserts their messages. Returns the topics that were stored, or `None` if it was all of them. With
/// `is_locked`, a conflict is an error that aborts the transaction.
async fn append(
    session: &Session,
    is_locked: bool,
    state: &BatchState,
    feed: FeedMode,
) -> Result<Option<HashSet<Topic>>, StoreError> {
    let events: EventRows<'_> = state.changes.events.iter().map(event_row).collect();
    let ends = state.event_ranges().into_iter().map(|(topic, (first, last))| TopicEndRow {
        topic: topic.as_str(),
        expected_seq: first - 1,
        expected_batch: state.expected_batch(topic),
        last_seq: last,
    });
    let ends: TopicEndRows<'_> = ends.collect();
    let messages: MessageRows<'_> = state.new_messages().map(message_row).collect();
    let (now, batch) = (state.now().timestamp(), state.batch());
    let created: Vec<Param<'_>> = vec![&now];
    let has_feed = feed != FeedMode::Off;
    let options: Vec<Param<'_>> = vec![&batch, &is_locked, &has_feed];
    let params = [events.params(), created, ends.params(), messages.params(), options].concat();
    let rows = session.query(sql::EVENTS_APPEND, &params).await?;
    let only: Option<Vec<&str>> = rows.first().ok_or(StoreError::Corrupt("no row"))?.try_get("stored_topics")?;
    Ok(only.map(|topics| topics.into_iter().map(Topic::from_stored).collect()))
}

fn event_row(event: &NewEvent) -> EventRow<'_> {
    EventRow {
        topic: event.topic.as_str(),
        seq: event.seq,
        event_type: event.kind.as_str(),
        data: event.data.as_str(),
        message_id: event.message.map(|id| id.0),
        trace: event.trace.map(|trace| trace.to_string()),
    }
}

fn message_row(message: &Message) -> MessageRow<'_> {
    MessageRow {
        id: message.id.0,
        ride_id: message.ride.as_str(),
        seq: message.seq,
        sender_id: message.sender.as_str(),
        sender_role: message.sender_role.as_str(),
        content: message.content.as_ref().map(Content::as_str),
        metadata: message.metadata.as_ref().map(Metadata::as_json),
        client_message_id: message.client_message_id.as_ref().map(ClientMessageId::as_str),
        content_hash: message.content_hash.as_bytes(),
    }
}

async fn put_rides(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let rides = state.changed_rides().map(|snapshot| &snapshot.ride).map(|ride| RideRow {
        ride_id: ride.id.as_str(),
        status: ride.status.as_str(),
        rider_id: ride.rider.as_str(),
        driver_id: ride.driver.as_ref().map(UserId::as_str),
        accepted: ride.has_opened,
        ended_at: ride.ended_at.map(Time::timestamp),
        closed_at: ride.closed_at.map(Time::timestamp),
        created_at: ride.created_at.timestamp(),
        updated_at: ride.updated_at.timestamp(),
        chat_opens_at: ride.chat_policy.map(|policy| policy.opens_at.as_str()),
        rider_grace_seconds: ride.chat_policy.map(|policy| i64::from(policy.grace_seconds.rider)),
        driver_grace_seconds: ride.chat_policy.map(|policy| i64::from(policy.grace_seconds.driver)),
        rider_closes_at: ride.closing_times.map(|closes| closes.rider.timestamp()),
        driver_closes_at: ride.closing_times.map(|closes| closes.driver.timestamp()),
        closed_seq: ride.closed_seq,
    });
    execute(session, sql::RIDES_PUT, &rides.collect::<RideRows<'_>>(), &[]).await
}

async fn put_participants(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let ranges = state.event_ranges();
    let joined_at = state.now().timestamp();
    // Participants who had left before have not changed.
    let is_new = |(ride, participant): &(&Ride, &Participant)| {
        let first_seq = ranges.get(&Topic::ride(&ride.id)).map_or(Seq::MAX, |(first, _)| *first);
        participant.until_seq.is_none_or(|until| until >= first_seq)
    };
    let participants = state.changed_rides().flat_map(participants_of).filter(is_new);
    let participants = participants.map(|(ride, participant)| ParticipantRow {
        ride_id: ride.id.as_str(),
        user_id: participant.user.as_str(),
        role: participant.role.as_str(),
        from_seq: participant.from_seq,
        until_seq: participant.until_seq,
        joined_at,
        is_over: ride.closed_at.is_some(),
        left_status: participant.ride_at_leave.as_ref().map(|left| left.status.as_str()),
        left_updated_at: participant.ride_at_leave.map(|left| left.updated_at.timestamp()),
        user_shard: state.other_shard_of(&participant.user),
    });
    execute(session, sql::PARTICIPANTS_PUT, &participants.collect::<ParticipantRows<'_>>(), &[]).await
}

fn participants_of(snapshot: &RideSnapshot) -> impl Iterator<Item = (&Ride, &Participant)> {
    snapshot.participants.iter().map(|participant| (&snapshot.ride, participant))
}

async fn put_receipts(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let receipts = state.changes.receipts.iter().map(|((ride, user), receipt)| ReceiptRow {
        ride_id: ride.as_str(),
        user_id: user.as_str(),
        role: receipt.role.as_str(),
        delivered_seq: receipt.delivered_seq,
        read_seq: receipt.read_seq,
    });
    execute(session, sql::RECEIPTS_PUT, &receipts.collect::<ReceiptRows<'_>>(), &[]).await
}

/// Records which participants of closed rides have no unread messages.
async fn set_read(session: &Session, closed_rides: &[&str]) -> Result<u64, StoreError> {
    if closed_rides.is_empty() {
        return Ok(0);
    }
    session.execute(sql::PARTICIPANTS_SET_READ, &[&closed_rides]).await
}

async fn update_messages(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let messages = state.changed_messages().map(|message| ChangedMessageRow {
        id: message.id.0,
        content: message.content.as_ref().map(Content::as_str),
        metadata: message.metadata.as_ref().map(Metadata::as_json),
        edited_at: message.edited_at.map(Time::timestamp),
        deleted_at: message.deleted_at.map(Time::timestamp),
        reactions: message.reactions.to_stored(),
        labels: message.labels.as_ref().map(Labels::to_stored),
        client_message_id: message.client_message_id.as_ref().map(ClientMessageId::as_str),
    });
    execute(session, sql::MESSAGES_UPDATE, &messages.collect::<ChangedMessageRows<'_>>(), &[]).await
}

/// Stores the flags of messages for the feed. Those of topics that were not stored are left out.
async fn put_flags(session: &Session, state: &BatchState, feed: FeedMode) -> Result<u64, StoreError> {
    if feed == FeedMode::Off {
        return Ok(0);
    }
    let flags = state.changes.flags.iter().map(|flag| FlagRow {
        id: Uuid::now_v7(),
        message_id: flag.message.0,
        topic: flag.topic.as_str(),
        seq: flag.seq,
        labels: flag.labels.to_stored(),
    });
    let (batch, now) = (state.batch(), state.now().timestamp());
    execute(session, sql::FLAGS_PUT, &flags.collect::<FlagRows<'_>>(), &[&batch, &now]).await
}

async fn erase_flags(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let ids: Vec<_> = state.changes.erased_messages.iter().map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(0);
    }
    session.execute(sql::FLAGS_ERASE, &[&ids]).await
}

async fn erase_reactions(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let erased = &state.changes.erased_reactions;
    if erased.is_empty() {
        return Ok(0);
    }
    let messages: Vec<_> = erased.iter().map(|(message, _)| message.0).collect();
    let users: Vec<_> = erased.iter().map(|(_, user)| user.as_str()).collect();
    session.execute(sql::EVENTS_ERASE_REACTIONS, &[&messages, &users]).await
}

async fn erase_events(session: &Session, state: &BatchState) -> Result<u64, StoreError> {
    let tombstones: Vec<_> = state.tombstones().collect();
    let topics: Vec<_> = tombstones.iter().map(|(message, _)| Topic::ride(&message.ride)).collect();
    let tombstones = tombstones.into_iter().zip(&topics).map(|((message, tombstone), topic)| TombstoneRow {
        topic: topic.as_str(),
        seq: message.seq,
        message_id: message.id.0,
        tombstone,
    });
    execute(session, sql::EVENTS_ERASE, &tombstones.collect::<TombstoneRows<'_>>(), &[]).await
}
