//! Rows into the domain's types.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::StoreError;
use super::retention::Place;
use crate::domain::{
    ChatPolicy, ClientMessageId, Content, ContentHash, GraceSeconds, Labels, LastPresence, LastValue, Message,
    MessageId, Metadata, OpensAt, Participant, Reactions, Receipt, Receipts, Ride, RideId, RideRole, RideSnapshot, Seq,
    Status, Time, UserId, Window,
};

pub(super) fn ride_id(text: &str) -> Result<RideId, StoreError> {
    RideId::parse(text).map_err(|_| StoreError::Corrupt("ride_id"))
}

pub(super) fn user_id(text: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|_| StoreError::Corrupt("user_id"))
}

fn role(text: &str) -> Result<RideRole, StoreError> {
    RideRole::parse(text).ok_or(StoreError::Corrupt("role"))
}

/// A number of seconds, which is not below zero.
pub(super) fn seconds(row: &Row, column: &str) -> Result<Option<Duration>, StoreError> {
    let seconds = row.try_get::<_, Option<f64>>(column)?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

fn time(row: &Row, column: &str) -> Result<Option<Time>, StoreError> {
    Ok(row.try_get::<_, Option<Timestamp>>(column)?.map(Time::from))
}

/// A message, from all the columns of `messages`.
pub fn message_from_row(row: &Row) -> Result<Message, StoreError> {
    let parse_content = |text| Content::parse(text).map_err(|_| StoreError::Corrupt("content"));
    let parse_metadata = |text| Metadata::from_stored(text).ok_or(StoreError::Corrupt("metadata"));
    let parse_labels = |text| Labels::from_stored(text).ok_or(StoreError::Corrupt("labels"));
    let parse_name = |text| ClientMessageId::parse(text).map_err(|_| StoreError::Corrupt("client_message_id"));
    Ok(Message {
        id: MessageId(row.try_get::<_, Uuid>("id")?),
        ride: ride_id(row.try_get("ride_id")?)?,
        seq: row.try_get("seq")?,
        sender: user_id(row.try_get("sender_id")?)?,
        sender_role: role(row.try_get("sender_role")?)?,
        content: row.try_get::<_, Option<String>>("content")?.map(parse_content).transpose()?,
        metadata: row.try_get::<_, Option<String>>("metadata")?.map(parse_metadata).transpose()?,
        client_message_id: row.try_get::<_, Option<String>>("client_message_id")?.map(parse_name).transpose()?,
        content_hash: ContentHash::from_stored(row.try_get("content_hash")?).ok_or(StoreError::Corrupt("hash"))?,
        labels: row.try_get::<_, Option<&str>>("labels")?.map(parse_labels).transpose()?,
        reactions: Reactions::from_stored(row.try_get("reactions")?).ok_or(StoreError::Corrupt("reactions"))?,
        created_at: time(row, "created_at")?.ok_or(StoreError::Corrupt("created_at"))?,
        edited_at: time(row, "edited_at")?,
        deleted_at: time(row, "deleted_at")?,
    })
}

/// A ride, from its columns.
pub fn ride_from_row(row: &Row) -> Result<Ride, StoreError> {
    Ok(Ride {
        id: ride_id(row.try_get("ride_id")?)?,
        status: Status::parse(row.try_get("status")?).ok_or(StoreError::Corrupt("status"))?,
        rider: user_id(row.try_get("rider_id")?)?,
        driver: row.try_get::<_, Option<&str>>("driver_id")?.map(user_id).transpose()?,
        chat_policy: chat_policy(row)?,
        has_opened: row.try_get("accepted")?,
        ended_at: time(row, "ended_at")?,
        closes: time(row, "rider_closes_at")?
            .zip(time(row, "driver_closes_at")?)
            .map(|(rider, driver)| Window { rider, driver }),
        closed_at: time(row, "closed_at")?,
        closed_seq: row.try_get("closed_seq")?,
        created_at: time(row, "ride_created_at")?.ok_or(StoreError::Corrupt("created_at"))?,
        updated_at: time(row, "ride_updated_at")?.ok_or(StoreError::Corrupt("updated_at"))?,
    })
}

fn chat_policy(row: &Row) -> Result<Option<ChatPolicy>, StoreError> {
    let Some(opens_at) = row.try_get::<_, Option<&str>>("chat_opens_at")? else { return Ok(None) };
    let seconds = |column| {
        let seconds = row.try_get::<_, Option<i64>>(column)?.and_then(|seconds| u32::try_from(seconds).ok());
        seconds.ok_or(StoreError::Corrupt("grace_seconds"))
    };
    Ok(Some(ChatPolicy {
        opens_at: OpensAt::parse(opens_at).ok_or(StoreError::Corrupt("chat_opens_at"))?,
        grace_seconds: GraceSeconds {
            rider: seconds("rider_grace_seconds")?,
            driver: seconds("driver_grace_seconds")?,
        },
    }))
}

/// What is known of somebody on a ride.
#[derive(Debug)]
pub enum Person {
    /// A time of theirs on it.
    Participant(Participant),
    /// How far they have received and read it.
    Receipt(Receipt),
}

/// What is known of somebody, and on which ride.
pub fn person_from_row(row: &Row) -> Result<(RideId, Person), StoreError> {
    let (user, role) = (user_id(row.try_get("user_id")?)?, role(row.try_get("role")?)?);
    let person = match row.try_get("from_seq")? {
        Some(from_seq) => {
            let until_seq = row.try_get("until_seq")?;
            Person::Participant(Participant { user, role, from_seq, until_seq, presence: None, left_as: None })
        }
        None => Person::Receipt(Receipt {
            user,
            role,
            delivered_seq: row.try_get("delivered_seq")?,
            read_seq: row.try_get("read_seq")?,
        }),
    };
    Ok((ride_id(row.try_get("ride_id")?)?, person))
}

/// Where a message is, and its id.
pub(super) fn message_place_from_row(row: &Row) -> Result<(Place, MessageId), StoreError> {
    Ok(((ride_id(row.try_get("ride_id")?)?, row.try_get("seq")?), MessageId(row.try_get("id")?)))
}

/// A snapshot, from a row of the view `ride_snapshots`.
pub(super) fn snapshot_from_row(row: &Row) -> Result<RideSnapshot, StoreError> {
    type Person = (String, String, Seq, Option<Seq>, Option<bool>, Option<i64>, Option<i64>, Option<Seq>);
    type Participants = Option<Json<Vec<Person>>>;
    type Marks = Option<Json<Vec<(String, String, Seq, Seq)>>>;
    let participants = row.try_get::<_, Participants>("participants")?.map(|json| json.0).unwrap_or_default();
    let participants =
        participants.into_iter().map(|(user, part, from_seq, until_seq, online, since, version, seq)| {
            let since = since.and_then(Time::from_unix_milliseconds);
            let presence = match (online, since, version, seq) {
                (Some(online), Some(since), Some(version), Some(seq)) => {
                    Some(LastPresence { online, since, version, seq })
                }
                _ => None,
            };
            Ok::<_, StoreError>(Participant {
                user: user_id(&user)?,
                role: role(&part)?,
                from_seq,
                until_seq,
                presence,
                left_as: None,
            })
        });
    let marks = row.try_get::<_, Marks>("receipts")?.map(|json| json.0).unwrap_or_default();
    let marks = marks.into_iter().map(|(user, part, delivered_seq, read_seq)| {
        Ok::<_, StoreError>(Receipt { user: user_id(&user)?, role: role(&part)?, delivered_seq, read_seq })
    });
    let participants = participants.collect::<Result<Vec<_>, _>>()?;
    let location = row.try_get::<_, Option<String>>("location")?.map(|data| {
        Ok::<_, StoreError>(LastValue {
            version: row.try_get("location_version")?,
            seq: row.try_get("location_seq")?,
            data: RawValue::from_string(data).map_err(|_| StoreError::Corrupt("location"))?,
        })
    });
    let location = location.transpose()?;
    // One of the same driver's time before says nothing about this one, either.
    let is_of_driver = |person: &&Participant| person.role == RideRole::Driver && person.until_seq.is_none();
    let since = participants.iter().find(is_of_driver).map_or(Seq::MAX, |driver| driver.from_seq);
    Ok(RideSnapshot {
        head: row.try_get("last_seq")?,
        ride: ride_from_row(row)?,
        participants,
        receipts: Receipts(marks.collect::<Result<_, _>>()?),
        location: location.filter(|last| last.seq >= since),
        read_at: time(row, "read_at")?.ok_or(StoreError::Corrupt("read_at"))?,
        last_batch: row.try_get("last_batch")?,
    })
}
