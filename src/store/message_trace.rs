//! The trace of a message: when it reached the feed, and when it was handed to connections, delivered, read and sent to
//! webhooks.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::pool::{Params, Store};
use super::rows::user_id;
use super::{StoreError, sql};
use crate::domain::{Message, RideId, Seq, Time, Topic, UserId};

/// A range of a ride's messages that was handed to a connection of a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The ride.
    pub ride: RideId,
    /// The participant.
    pub user: UserId,
    /// The seq of the first message.
    pub first_seq: Seq,
    /// The seq of the last message, fewer than 1,000 after the first. All messages in between that the user may see are
    /// included.
    pub last_seq: Seq,
    /// `sse` or `poll`.
    pub transport: &'static str,
    /// The time, by this replica's clock.
    pub at: Time,
}

/// When and where a message was handed to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// The time, by the clock of the replica.
    pub at: Time,
    /// `sse` or `poll`.
    pub transport: String,
    /// The id of the replica.
    pub replica: String,
}

/// The trace of a message for one participant.
#[derive(Debug)]
pub struct ParticipantTrace {
    /// The participant.
    pub user: UserId,
    /// When the delivered watermark reached the message.
    pub delivered_at: Option<Time>,
    /// When the read watermark reached the message.
    pub read_at: Option<Time>,
    /// When it was handed to connections, oldest first.
    pub handed: Vec<HandedOver>,
    /// When `message:undelivered` was sent for it.
    pub undelivered_at: Option<Time>,
}

/// The delivery of a message's event to an endpoint.
#[derive(Debug)]
pub struct WebhookTrace {
    /// The endpoint.
    pub webhook: String,
    /// `pending`, `delivered` or `failed`.
    pub state: String,
    /// The number of attempts.
    pub attempts: i64,
}

/// The trace of a message.
#[derive(Debug)]
pub struct MessageTrace {
    /// When it was added to the feed.
    pub feed_at: Option<Time>,
    /// The participants who may see it.
    pub participants: Vec<ParticipantTrace>,
    /// The endpoints that are subscribed to it.
    pub webhooks: Vec<WebhookTrace>,
}

fn time(row: &Row, column: &str) -> Result<Option<Time>, StoreError> {
    Ok(row.try_get::<_, Option<Timestamp>>(column)?.map(Time::from))
}

impl Store {
    /// Stores what this replica has handed to connections.
    pub async fn put_handovers(&self, replica: &str, handovers: &[Handover]) -> Result<(), StoreError> {
        fn column<'a, T: 'a>(handovers: &'a [Handover], of: impl Fn(&'a Handover) -> T) -> Vec<T> {
            handovers.iter().map(of).collect()
        }
        let params: Params<'_> = &[
            &replica,
            &column(handovers, |handover| handover.ride.as_str()),
            &column(handovers, |handover| handover.user.as_str()),
            &column(handovers, |handover| handover.first_seq),
            &column(handovers, |handover| handover.last_seq),
            &column(handovers, |handover| handover.transport),
            &column(handovers, |handover| handover.at.timestamp()),
        ];
        self.session().await?.execute(sql::HANDOVERS_PUT, params).await.map(drop)
    }

    /// Returns the trace of a message, as far as it has not expired.
    pub async fn trace_message(&self, message: &Message) -> Result<MessageTrace, StoreError> {
        let topic = Topic::ride(&message.ride);
        let (ride, topic, seq) = (message.ride.as_str(), topic.as_str(), message.seq);
        let mut handed = self.handed(ride, seq).await?;
        let undelivered = self.read(sql::FEED_UNDELIVERED_OF, &[&topic, &seq]).await?;
        let undelivered = undelivered.iter().map(|row| {
            let user: String = row.try_get("user_id")?;
            Ok::<_, StoreError>((user, time(row, "at")?))
        });
        let mut undelivered = undelivered.collect::<Result<HashMap<_, _>, _>>()?;
        let params: Params<'_> = &[&ride, &seq, &message.sender.as_str()];
        let rows = self.read(sql::PARTICIPANTS_OF_MESSAGE, params).await?;
        let participant = |row: &Row| {
            let user = user_id(row.try_get("user_id")?)?;
            Ok::<_, StoreError>(ParticipantTrace {
                delivered_at: time(row, "delivered_at")?,
                read_at: time(row, "read_at")?,
                handed: handed.remove(user.as_str()).unwrap_or_default(),
                undelivered_at: undelivered.remove(user.as_str()).flatten(),
                user,
            })
        };
        let participants = rows.iter().map(participant).collect::<Result<_, _>>()?;
        let positions = self.read(sql::FEED_POSITION, &[&topic, &seq, &message.created_at.timestamp()]).await?;
        let Some(on_feed) = positions.first() else {
            return Ok(MessageTrace { feed_at: None, participants, webhooks: Vec::new() });
        };
        let position: Seq = on_feed.try_get("position")?;
        let deliveries = self.read(sql::WEBHOOKS_OF_EVENT, &[&position]).await?;
        let webhook = |row: &Row| {
            let (webhook, state) = (row.try_get("id")?, row.try_get("state")?);
            Ok::<_, StoreError>(WebhookTrace { webhook, state, attempts: row.try_get("attempts")? })
        };
        let webhooks = deliveries.iter().map(webhook).collect::<Result<_, _>>()?;
        Ok(MessageTrace { feed_at: time(on_feed, "created_at")?, participants, webhooks })
    }

    /// Returns the connections that a message was handed to, by user.
    async fn handed(&self, ride: &str, seq: Seq) -> Result<HashMap<String, Vec<HandedOver>>, StoreError> {
        let mut handed: HashMap<String, Vec<HandedOver>> = HashMap::new();
        for row in self.read(sql::HANDOVERS_OF_MESSAGE, &[&ride, &seq]).await? {
            let (transport, replica) = (row.try_get("transport")?, row.try_get("replica")?);
            let at = row.try_get::<_, Timestamp>("at")?.into();
            handed.entry(row.try_get("user_id")?).or_default().push(HandedOver { at, transport, replica });
        }
        Ok(handed)
    }

    /// Erases a user from the traces of messages and from the audit entries about the user.
    pub async fn erase_records(&self, user: &UserId) -> Result<(), StoreError> {
        let session = self.session().await?;
        session.may_commit();
        session.execute(sql::HANDOVERS_ERASE, &[&user.as_str()]).await?;
        session.execute(sql::AUDIT_ERASE, &[&user.as_str()]).await.map(drop)
    }
}
