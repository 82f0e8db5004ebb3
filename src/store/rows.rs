//! Conversion of rows into domain types.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::StoreError;
use crate::domain::{
    ChatPolicy, ClientMessageId, ClosingTimes, Content, ContentHash, Coordinates, DriverState, GraceSeconds, Labels,
    LastPresence, LatestValue, Message, MessageId, Metadata, OpensAt, Participant, Reactions, Receipt, Receipts, Ride,
    RideId, RideRole, RideSnapshot, Seq, StateUpdate, Status, Time, UserId,
};

/// The log position of a message: the ride and the seq.
pub type LogPosition = (RideId, Seq);

pub(super) fn ride_id(text: &str) -> Result<RideId, StoreError> {
    RideId::parse(text).map_err(|_| StoreError::Corrupt("ride_id"))
}

pub(super) fn user_id(text: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|_| StoreError::Corrupt("user_id"))
}

fn role(text: &str) -> Result<RideRole, StoreError> {
    RideRole::from_stored(text).ok_or(StoreError::Corrupt("role"))
}

/// Reads a number of seconds as a duration; zero if it is negative.
pub(super) fn seconds(row: &Row, column: &str) -> Result<Option<Duration>, StoreError> {
    let seconds = row.try_get::<_, Option<f64>>(column)?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

fn time(row: &Row, column: &str) -> Result<Option<Time>, StoreError> {
    Ok(row.try_get::<_, Option<Timestamp>>(column)?.map(Time::from))
}

/// Converts a row with all columns of `messages` into a message.
pub fn message_from_row(row: &Row) -> Result<Message, StoreError> {
    let parse_content = |text| Content::parse(text).map_err(|_| StoreError::Corrupt("content"));
    let parse_metadata = |text| Metadata::from_stored(text).ok_or(StoreError::Corrupt("metadata"));
    let parse_labels = |text| Labels::from_stored(text).ok_or(StoreError::Corrupt("labels"));
    let parse_client_id = |text| ClientMessageId::parse(text).map_err(|_| StoreError::Corrupt("client_message_id"));
    Ok(Message {
        id: MessageId(row.try_get::<_, Uuid>("id")?),
        ride: ride_id(row.try_get("ride_id")?)?,
        seq: row.try_get("seq")?,
        sender: user_id(row.try_get("sender_id")?)?,
        sender_role: role(row.try_get("sender_role")?)?,
        content: row.try_get::<_, Option<String>>("content")?.map(parse_content).transpose()?,
        metadata: row.try_get::<_, Option<String>>("metadata")?.map(parse_metadata).transpose()?,
        client_message_id: row.try_get::<_, Option<String>>("client_message_id")?.map(parse_client_id).transpose()?,
        content_hash: ContentHash::from_stored(row.try_get("content_hash")?).ok_or(StoreError::Corrupt("hash"))?,
        labels: row.try_get::<_, Option<&str>>("labels")?.map(parse_labels).transpose()?,
        reactions: Reactions::from_stored(row.try_get("reactions")?).ok_or(StoreError::Corrupt("reactions"))?,
        created_at: time(row, "created_at")?.ok_or(StoreError::Corrupt("created_at"))?,
        edited_at: time(row, "edited_at")?,
        deleted_at: time(row, "deleted_at")?,
    })
}

/// Converts a row with the columns of a ride into a ride.
pub fn ride_from_row(row: &Row) -> Result<Ride, StoreError> {
    Ok(Ride {
        id: ride_id(row.try_get("ride_id")?)?,
        status: Status::from_stored(row.try_get("status")?).ok_or(StoreError::Corrupt("status"))?,
        rider: user_id(row.try_get("rider_id")?)?,
        driver: row.try_get::<_, Option<&str>>("driver_id")?.map(user_id).transpose()?,
        chat_policy: chat_policy(row)?,
        has_opened: row.try_get("accepted")?,
        ended_at: time(row, "ended_at")?,
        closing_times: time(row, "rider_closes_at")?
            .zip(time(row, "driver_closes_at")?)
            .map(|(rider, driver)| ClosingTimes { rider, driver }),
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

/// Converts a row of `driver_state` into a state update.
pub(super) fn driver_update(row: &Row) -> Result<StateUpdate, StoreError> {
    let coordinates = row.try_get::<_, Option<f64>>("lat")?.zip(row.try_get::<_, Option<f64>>("lng")?);
    let state = DriverState {
        driver: UserId::parse(row.try_get("driver_id")?).map_err(|_| StoreError::Corrupt("driver_id"))?,
        available: row.try_get("available")?,
        coordinates: coordinates.map(|(lat, lng)| Coordinates { lat, lng }),
        at: Time::from(row.try_get::<_, Timestamp>("at")?),
    };
    state.to_update(row.try_get("version")?).map_err(|_| StoreError::Corrupt("driver_state"))
}

/// A row about a participant of a ride.
#[derive(Debug)]
pub enum ParticipantRow {
    /// The participant, with access to one interval of the log.
    Participant(Participant),
    /// The participant's watermarks.
    Receipt(Receipt),
}

/// Converts a row of `rides/participants.sql`. Returns the ride too.
pub fn participant_from_row(row: &Row) -> Result<(RideId, ParticipantRow), StoreError> {
    let (user, role) = (user_id(row.try_get("user_id")?)?, role(row.try_get("role")?)?);
    let participant = match row.try_get("from_seq")? {
        Some(from_seq) => {
            let until_seq = row.try_get("until_seq")?;
            ParticipantRow::Participant(Participant {
                user,
                role,
                from_seq,
                until_seq,
                presence: None,
                ride_at_leave: None,
            })
        }
        None => ParticipantRow::Receipt(Receipt {
            user,
            role,
            delivered_seq: row.try_get("delivered_seq")?,
            read_seq: row.try_get("read_seq")?,
        }),
    };
    Ok((ride_id(row.try_get("ride_id")?)?, participant))
}

/// Converts a row into a message's log position and id.
pub(super) fn message_position_from_row(row: &Row) -> Result<(LogPosition, MessageId), StoreError> {
    Ok(((ride_id(row.try_get("ride_id")?)?, row.try_get("seq")?), MessageId(row.try_get("id")?)))
}

/// Converts a row of the view `ride_snapshots` into a snapshot.
pub(super) fn snapshot_from_row(row: &Row) -> Result<RideSnapshot, StoreError> {
    type ParticipantColumns = (String, String, Seq, Option<Seq>, Option<bool>, Option<i64>, Option<i64>, Option<Seq>);
    type Participants = Option<Json<Vec<ParticipantColumns>>>;
    type ReceiptColumns = Option<Json<Vec<(String, String, Seq, Seq)>>>;
    let participants = row.try_get::<_, Participants>("participants")?.map(|json| json.0).unwrap_or_default();
    let participants =
        participants.into_iter().map(|(user, ride_role, from_seq, until_seq, online, since, version, seq)| {
            let since = since.and_then(Time::from_unix_milliseconds);
            let presence = match (online, since, version, seq) {
                (Some(online), Some(since), Some(version), Some(seq)) => {
                    Some(LastPresence { online, since, version, seq })
                }
                _ => None,
            };
            Ok::<_, StoreError>(Participant {
                user: user_id(&user)?,
                role: role(&ride_role)?,
                from_seq,
                until_seq,
                presence,
                ride_at_leave: None,
            })
        });
    let receipts = row.try_get::<_, ReceiptColumns>("receipts")?.map(|json| json.0).unwrap_or_default();
    let receipts = receipts.into_iter().map(|(user, ride_role, delivered_seq, read_seq)| {
        Ok::<_, StoreError>(Receipt { user: user_id(&user)?, role: role(&ride_role)?, delivered_seq, read_seq })
    });
    let participants = participants.collect::<Result<Vec<_>, _>>()?;
    let location = row.try_get::<_, Option<String>>("location")?.map(|data| {
        Ok::<_, StoreError>(LatestValue {
            version: row.try_get("location_version")?,
            seq: row.try_get("location_seq")?,
            data: RawValue::from_string(data).map_err(|_| StoreError::Corrupt("location"))?,
        })
    });
    let location = location.transpose()?;
    // A location from an earlier assignment of the same driver does not apply to the current one either.
    let is_of_driver = |person: &&Participant| person.role == RideRole::Driver && person.until_seq.is_none();
    let since = participants.iter().find(is_of_driver).map_or(Seq::MAX, |driver| driver.from_seq);
    Ok(RideSnapshot {
        head: row.try_get("last_seq")?,
        ride: ride_from_row(row)?,
        participants,
        receipts: Receipts(receipts.collect::<Result<_, _>>()?),
        location: location.filter(|last| last.seq >= since),
        read_at: time(row, "read_at")?.ok_or(StoreError::Corrupt("read_at"))?,
        last_batch: row.try_get("last_batch")?,
    })
}
