//! The last flight: what a ledger says, as set-based statements, and COMMIT.

use std::collections::HashSet;

use futures_util::future::poll_immediate;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::{
    ClientMessageId, Content, Labels, Message, Metadata, Participant, Ride, RideSnapshot, Seq, Topic, UserId,
};
use crate::store::{Session, StoreError, sql};
use crate::writer::Ledger;

/// What any flight may be of, and what else where a transaction has begun.
const OF_ANY: [&str; 2] = [sql::EVENTS_APPEND, sql::TOPICS_NOTIFY_COMMITTED];
const OF_BEGUN: [&str; 5] =
    [sql::RIDES_PUT, sql::PARTICIPANTS_PUT, sql::RECEIPTS_PUT, sql::MESSAGES_UPDATE, sql::EVENTS_ERASE];
/// And where something is flagged, or deleted that may have been.
const OF_FLAGS: [&str; 2] = [sql::FLAGS_PUT, sql::FLAGS_ERASE];
/// And where a user's reactions are erased.
const OF_REACTIONS: [&str; 1] = [sql::EVENTS_ERASE_REACTIONS];

/// Stores everything and commits; begins first, where nothing has. Says of which topics, unless of all, which it is under
/// locks. An error says nothing about the commit when the connection was lost, and that it did not happen otherwise.
///
/// `hints` are told right after the commit, and only if it happens. Nobody waits for that, so there may be none where the
/// connection is not ours; one that is lost costs the other replicas the wait for their next look.
pub(super) async fn store_and_commit(
    session: &Session,
    has_begun: bool,
    ledger: &Ledger,
    has_feed: bool,
    hints: &[String],
) -> Result<Option<HashSet<Topic>>, StoreError> {
    session.prepare(&OF_ANY).await?;
    let has_flags = !ledger.changes.flags.is_empty();
    if has_begun || has_flags {
        session.prepare(&OF_BEGUN).await?;
    }
    if has_flags || !ledger.changes.erased_messages.is_empty() {
        session.prepare(&OF_FLAGS).await?;
    }
    if !ledger.changes.erased_reactions.is_empty() {
        session.prepare(&OF_REACTIONS).await?;
    }
    let first = ledger.changes.events.first().map(|event| (event.topic.as_str(), event.seq));
    let (topic, seq) = first.ok_or(StoreError::Corrupt("a batch without an event"))?;
    session.may_commit();
    let now = ledger.now().timestamp();
    let of_first: [&(dyn ToSql + Sync); 4] = [&hints, &topic, &seq, &now];
    // Where nothing has begun there is nothing to store but by one statement, which is a transaction of its own; its answer
    // is complete after its commit. Through a pooler it needs a BEGIN for the transaction's settings.
    let is_whole = !has_begun && !has_flags && session.may_run_ahead();
    // An erasure finds the events and the flags of its own batch as well.
    let (begun, appended, rides, participants, receipts, updated, flagged, erased, unreacted, unflagged, committed, ()) = tokio::join!(
        biased;
        async { if has_begun || is_whole { Ok(()) } else { session.begin("").await } },
        append(session, has_begun, ledger, has_feed),
        put_rides(session, ledger),
        put_participants(session, ledger),
        put_receipts(session, ledger),
        update_messages(session, ledger),
        put_flags(session, ledger, has_feed),
        erase_events(session, ledger),
        erase_reactions(session, ledger),
        erase_flags(session, ledger),
        async { if is_whole { Ok(()) } else { session.batch_execute("commit").await } },
        async {
            if !hints.is_empty() {
                // Sent when it is first polled.
                poll_immediate(session.send(sql::TOPICS_NOTIFY_COMMITTED, &of_first)).await;
            }
        },
    );
    // The first that failed is the cause; those after it only say that the transaction is aborted.
    begun?;
    let only = appended?;
    for stored in [rides, participants, receipts, updated, flagged, erased, unreacted, unflagged] {
        stored?;
    }
    committed?;
    Ok(only)
}

/// Appends the events and the messages that some of them are. Says of which topics, unless of all; under locks it is all, or an
/// error that takes the whole transaction along.
async fn append(
    session: &Session,
    is_locked: bool,
    ledger: &Ledger,
    has_feed: bool,
) -> Result<Option<HashSet<Topic>>, StoreError> {
    let events = &ledger.changes.events;
    let topics: Vec<_> = events.iter().map(|event| event.topic.as_str()).collect();
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    let types: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
    let edited: Vec<_> = events.iter().map(|event| event.message.map(|id| id.0)).collect();
    let traces: Vec<_> = events.iter().map(|event| event.trace.map(|trace| trace.to_string())).collect();
    let now = ledger.now().timestamp();
    let ends = ledger.ends();
    let ended: Vec<_> = ends.keys().map(|topic| topic.as_str()).collect();
    let judged_at: Vec<_> = ends.values().map(|(first, _)| first - 1).collect();
    let judged_batches: Vec<_> = ends.keys().map(|topic| ledger.judged_at(topic)).collect();
    let heads: Vec<_> = ends.values().map(|(_, last)| *last).collect();
    let messages: Vec<&Message> = ledger.new_messages().collect();
    let ids: Vec<_> = messages.iter().map(|message| message.id.0).collect();
    let rides: Vec<_> = messages.iter().map(|message| message.ride.as_str()).collect();
    let places: Vec<_> = messages.iter().map(|message| message.seq).collect();
    let senders: Vec<_> = messages.iter().map(|message| message.sender.as_str()).collect();
    let roles: Vec<_> = messages.iter().map(|message| message.sender_role.as_str()).collect();
    let (contents, metadata) = words(&messages);
    let names = names(&messages);
    let hashes: Vec<_> = messages.iter().map(|message| message.content_hash.as_bytes()).collect();
    let batch = ledger.batch();
    let params: [&(dyn ToSql + Sync); 23] = [
        &topics,
        &seqs,
        &types,
        &data,
        &edited,
        &traces,
        &now,
        &ended,
        &judged_at,
        &judged_batches,
        &heads,
        &ids,
        &rides,
        &places,
        &senders,
        &roles,
        &contents,
        &metadata,
        &names,
        &hashes,
        &batch,
        &is_locked,
        &has_feed,
    ];
    let rows = session.query(sql::EVENTS_APPEND, &params).await?;
    let only: Option<Vec<&str>> = rows.first().ok_or(StoreError::Corrupt("no answer"))?.try_get("only")?;
    Ok(only.map(|topics| topics.into_iter().map(Topic::from_stored).collect()))
}

async fn put_rides(session: &Session, ledger: &Ledger) -> Result<u64, StoreError> {
    let rides: Vec<_> = ledger.changed_rides().map(|snapshot| &snapshot.ride).collect();
    let ids: Vec<_> = rides.iter().map(|ride| ride.id.as_str()).collect();
    let statuses: Vec<_> = rides.iter().map(|ride| ride.status.as_str()).collect();
    let riders: Vec<_> = rides.iter().map(|ride| ride.rider.as_str()).collect();
    let drivers: Vec<_> = rides.iter().map(|ride| ride.driver.as_ref().map(UserId::as_str)).collect();
    let opened: Vec<_> = rides.iter().map(|ride| ride.has_opened).collect();
    let ended: Vec<_> = rides.iter().map(|ride| ride.ended_at.map(|at| at.timestamp())).collect();
    let closed: Vec<_> = rides.iter().map(|ride| ride.closed_at.map(|at| at.timestamp())).collect();
    let created: Vec<_> = rides.iter().map(|ride| ride.created_at.timestamp()).collect();
    let updated: Vec<_> = rides.iter().map(|ride| ride.updated_at.timestamp()).collect();
    let policies = || rides.iter().map(|ride| ride.chat_policy);
    let opens_at: Vec<_> = policies().map(|policy| policy.map(|policy| policy.opens_at.as_str())).collect();
    let rider_grace: Vec<_> =
        policies().map(|policy| policy.map(|policy| i64::from(policy.grace_seconds.rider))).collect();
    let driver_grace: Vec<_> =
        policies().map(|policy| policy.map(|policy| i64::from(policy.grace_seconds.driver))).collect();
    let rider_closes: Vec<_> = rides.iter().map(|ride| ride.closes.map(|closes| closes.rider.timestamp())).collect();
    let driver_closes: Vec<_> = rides.iter().map(|ride| ride.closes.map(|closes| closes.driver.timestamp())).collect();
    let closed_seqs: Vec<_> = rides.iter().map(|ride| ride.closed_seq).collect();
    if rides.is_empty() {
        return Ok(0);
    }
    let params: [&(dyn ToSql + Sync); 15] = [
        &ids,
        &statuses,
        &riders,
        &drivers,
        &opened,
        &ended,
        &closed,
        &created,
        &updated,
        &opens_at,
        &rider_grace,
        &driver_grace,
        &rider_closes,
        &driver_closes,
        &closed_seqs,
    ];
    session.execute(sql::RIDES_PUT, &params).await
}

async fn put_participants(session: &Session, ledger: &Ledger) -> Result<u64, StoreError> {
    let ends = ledger.ends();
    // Those who had left before have nothing new.
    let is_new = |(ride, person): &(&Ride, &Participant)| {
        let began = ends.get(&Topic::ride(&ride.id)).map_or(Seq::MAX, |(first, _)| *first);
        person.until_seq.is_none_or(|until| until >= began)
    };
    let people: Vec<_> = ledger.changed_rides().flat_map(participants_of).filter(is_new).collect();
    let rides: Vec<_> = people.iter().map(|(ride, _)| ride.id.as_str()).collect();
    let users: Vec<_> = people.iter().map(|(_, person)| person.user.as_str()).collect();
    let roles: Vec<_> = people.iter().map(|(_, person)| person.role.as_str()).collect();
    let from: Vec<_> = people.iter().map(|(_, person)| person.from_seq).collect();
    let until: Vec<_> = people.iter().map(|(_, person)| person.until_seq).collect();
    let over: Vec<_> = people.iter().map(|(ride, _)| ride.closed_at.is_some()).collect();
    let joined = vec![ledger.now().timestamp(); people.len()];
    let left = || people.iter().map(|(_, person)| person.left_as);
    let left_status: Vec<_> = left().map(|left| left.map(|left| left.status.as_str())).collect();
    let left_updated: Vec<_> = left().map(|left| left.map(|left| left.updated_at.timestamp())).collect();
    if people.is_empty() {
        return Ok(0);
    }
    let params: [&(dyn ToSql + Sync); 9] =
        [&rides, &users, &roles, &from, &until, &joined, &over, &left_status, &left_updated];
    session.execute(sql::PARTICIPANTS_PUT, &params).await
}

fn participants_of(snapshot: &RideSnapshot) -> impl Iterator<Item = (&Ride, &Participant)> {
    snapshot.participants.iter().map(|person| (&snapshot.ride, person))
}

async fn put_receipts(session: &Session, ledger: &Ledger) -> Result<u64, StoreError> {
    let receipts = &ledger.changes.receipts;
    let rides: Vec<_> = receipts.keys().map(|(ride, _)| ride.as_str()).collect();
    let users: Vec<_> = receipts.keys().map(|(_, user)| user.as_str()).collect();
    let roles: Vec<_> = receipts.values().map(|receipt| receipt.role.as_str()).collect();
    let delivered: Vec<_> = receipts.values().map(|receipt| receipt.delivered_seq).collect();
    let read: Vec<_> = receipts.values().map(|receipt| receipt.read_seq).collect();
    if receipts.is_empty() {
        return Ok(0);
    }
    session.execute(sql::RECEIPTS_PUT, &[&rides, &users, &roles, &delivered, &read]).await
}

async fn update_messages(session: &Session, ledger: &Ledger) -> Result<u64, StoreError> {
    let messages: Vec<&Message> = ledger.changed_messages().collect();
    let ids: Vec<_> = messages.iter().map(|message| message.id.0).collect();
    let (contents, metadata) = words(&messages);
    let edited: Vec<_> = messages.iter().map(|message| message.edited_at.map(|at| at.timestamp())).collect();
    let reactions: Vec<_> = messages.iter().map(|message| message.reactions.to_stored()).collect();
    let deleted: Vec<_> = messages.iter().map(|message| message.deleted_at.map(|at| at.timestamp())).collect();
    let labels: Vec<_> = messages.iter().map(|message| message.labels.as_ref().map(Labels::to_stored)).collect();
    if messages.is_empty() {
        return Ok(0);
    }
    let names = names(&messages);
    let params: [&(dyn ToSql + Sync); 8] = [&ids, &contents, &metadata, &edited, &deleted, &reactions, &labels, &names];
    session.execute(sql::MESSAGES_UPDATE, &params).await
}

/// Keeps what was flagged of the topics that are stored, for the feed.
async fn put_flags(session: &Session, ledger: &Ledger, has_feed: bool) -> Result<u64, StoreError> {
    let flags = &ledger.changes.flags;
    if flags.is_empty() || !has_feed {
        return Ok(0);
    }
    let ids: Vec<_> = flags.iter().map(|_| Uuid::now_v7()).collect();
    let messages: Vec<_> = flags.iter().map(|flag| flag.message.0).collect();
    let topics: Vec<_> = flags.iter().map(|flag| flag.topic.as_str()).collect();
    let seqs: Vec<_> = flags.iter().map(|flag| flag.seq).collect();
    let labels: Vec<_> = flags.iter().map(|flag| flag.labels.to_stored()).collect();
    let (batch, now) = (ledger.batch(), ledger.now().timestamp());
    session.execute(sql::FLAGS_PUT, &[&ids, &messages, &topics, &seqs, &labels, &batch, &now]).await
}

async fn erase_flags(session: &Session, ledger: &Ledger) -> Result<u64, StoreError> {
    let ids: Vec<_> = ledger.changes.erased_messages.iter().map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(0);
    }
    session.execute(sql::FLAGS_ERASE, &[&ids]).await
}

fn words<'a>(messages: &[&'a Message]) -> (Vec<Option<&'a str>>, Vec<Option<&'a str>>) {
    let contents = messages.iter().map(|message| message.content.as_ref().map(Content::as_str));
    let metadata = messages.iter().map(|message| message.metadata.as_ref().map(Metadata::as_json));
    (contents.collect(), metadata.collect())
}

fn names<'a>(messages: &[&'a Message]) -> Vec<Option<&'a str>> {
    messages.iter().map(|message| message.client_message_id.as_ref().map(ClientMessageId::as_str)).collect()
}

async fn erase_reactions(session: &Session, ledger: &Ledger) -> Result<u64, StoreError> {
    let erased = &ledger.changes.erased_reactions;
    if erased.is_empty() {
        return Ok(0);
    }
    let messages: Vec<_> = erased.iter().map(|(message, _)| message.0).collect();
    let users: Vec<_> = erased.iter().map(|(_, user)| user.as_str()).collect();
    session.execute(sql::EVENTS_ERASE_REACTIONS, &[&messages, &users]).await
}

async fn erase_events(session: &Session, ledger: &Ledger) -> Result<u64, StoreError> {
    let tombstones: Vec<_> = ledger.tombstones().collect();
    let topics: Vec<_> = tombstones.iter().map(|(message, _)| Topic::ride(&message.ride)).collect();
    let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
    let seqs: Vec<_> = tombstones.iter().map(|(message, _)| message.seq).collect();
    let ids: Vec<_> = tombstones.iter().map(|(message, _)| message.id.0).collect();
    let data: Vec<_> = tombstones.iter().map(|(_, data)| data.as_str()).collect();
    if tombstones.is_empty() {
        return Ok(0);
    }
    session.execute(sql::EVENTS_ERASE, &[&topics, &seqs, &ids, &data]).await
}
