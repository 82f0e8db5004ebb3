//! Rows into the domain's types.

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::StoreError;
use super::retention::Place;
use crate::domain::{
    ClientMessageId, Content, ContentHash, Labels, LastPresence, LastValue, Message, MessageId, Metadata, Participant,
    Reactions, Receipt, Receipts, Ride, RideId, RideRole, RideSnapshot, Seq, Status, Time, UserId,
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
        accepted: row.try_get("accepted")?,
        ended_at: time(row, "ended_at")?,
        closed_at: time(row, "closed_at")?,
        created_at: time(row, "ride_created_at")?.ok_or(StoreError::Corrupt("created_at"))?,
        updated_at: time(row, "ride_updated_at")?.ok_or(StoreError::Corrupt("updated_at"))?,
    })
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
            Person::Participant(Participant { user, role, from_seq, until_seq, presence: None })
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
            })
        });
    let marks = row.try_get::<_, Marks>("receipts")?.map(|json| json.0).unwrap_or_default();
    let marks = marks.into_iter().map(|(user, part, delivered_seq, read_seq)| {
        Ok::<_, StoreError>(Receipt { user: user_id(&user)?, role: role(&part)?, delivered_seq, read_seq })
    });
    let location = row.try_get::<_, Option<String>>("location")?.map(|data| {
        Ok::<_, StoreError>(LastValue {
            version: row.try_get("location_version")?,
            seq: row.try_get("location_seq")?,
            data: RawValue::from_string(data).map_err(|_| StoreError::Corrupt("location"))?,
        })
    });
    Ok(RideSnapshot {
        head: row.try_get("last_seq")?,
        ride: ride_from_row(row)?,
        participants: participants.collect::<Result<_, _>>()?,
        receipts: Receipts(marks.collect::<Result<_, _>>()?),
        location: location.transpose()?,
    })
}
