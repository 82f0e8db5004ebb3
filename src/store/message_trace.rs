//! What has become of a message: when it was on the feed, handed to connections, delivered, read, and sent to webhooks.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::pool::{Params, Store};
use super::rows::user_id;
use super::{StoreError, sql};
use crate::domain::{Message, RideId, Seq, Time, Topic, UserId};

/// Messages of a ride that were handed to a connection of a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The ride.
    pub ride: RideId,
    /// Whose connection.
    pub user: UserId,
    /// The seq of the first message.
    pub first_seq: Seq,
    /// The seq of the last one, fewer than 1,000 after it. All between them that the user may see were handed over.
    pub last_seq: Seq,
    /// `sse` or `poll`.
    pub transport: &'static str,
    /// When, by this replica's clock.
    pub at: Time,
}

/// When and where a message was handed to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// When, by the clock of the replica.
    pub at: Time,
    /// `sse` or `poll`.
    pub transport: String,
    /// The id of the replica.
    pub replica: String,
}

/// What has become of a message for one participant.
#[derive(Debug)]
pub struct ParticipantTrace {
    /// Whom.
    pub user: UserId,
    /// When the delivered watermark has reached it.
    pub delivered_at: Option<Time>,
    /// When the read watermark has.
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
    /// How many attempts there were.
    pub attempts: i64,
}

/// What has become of a message.
#[derive(Debug)]
pub struct MessageTrace {
    /// Since when it is on the feed.
    pub feed_at: Option<Time>,
    /// For each participant who may see it.
    pub participants: Vec<ParticipantTrace>,
    /// For each endpoint that wants it.
    pub webhooks: Vec<WebhookTrace>,
}

fn time(row: &Row, column: &str) -> Result<Option<Time>, StoreError> {
    Ok(row.try_get::<_, Option<Timestamp>>(column)?.map(Time::from))
}

impl Store {
    /// Notes what the replica has handed over.
    pub async fn put_handovers(&self, replica: &str, handovers: &[Handover]) -> Result<(), StoreError> {
        fn column<'a, T: 'a>(handovers: &'a [Handover], of: impl Fn(&'a Handover) -> T) -> Vec<T> {
            handovers.iter().map(of).collect()
        }
        let params: Params<'_> = &[
            &replica,
            &column(handovers, |one| one.ride.as_str()),
            &column(handovers, |one| one.user.as_str()),
            &column(handovers, |one| one.first_seq),
            &column(handovers, |one| one.last_seq),
            &column(handovers, |one| one.transport),
            &column(handovers, |one| one.at.timestamp()),
        ];
        self.session().await?.execute(sql::HANDOVERS_PUT, params).await.map(drop)
    }

    /// What has become of a message, as far as is still known.
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
        let people = self.read(sql::PARTICIPANTS_OF_MESSAGE, params).await?;
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
        let participants = people.iter().map(participant).collect::<Result<_, _>>()?;
        let places = self.read(sql::FEED_PLACE, &[&topic, &seq, &message.created_at.timestamp()]).await?;
        let Some(place) = places.first() else {
            return Ok(MessageTrace { feed_at: None, participants, webhooks: Vec::new() });
        };
        let position: Seq = place.try_get("position")?;
        let deliveries = self.read(sql::WEBHOOKS_OF_EVENT, &[&position]).await?;
        let webhook = |row: &Row| {
            let (webhook, state) = (row.try_get("id")?, row.try_get("state")?);
            Ok::<_, StoreError>(WebhookTrace { webhook, state, attempts: row.try_get("attempts")? })
        };
        let webhooks = deliveries.iter().map(webhook).collect::<Result<_, _>>()?;
        Ok(MessageTrace { feed_at: time(place, "created_at")?, participants, webhooks })
    }

    /// The connections that a message was handed to, by user.
    async fn handed(&self, ride: &str, seq: Seq) -> Result<HashMap<String, Vec<HandedOver>>, StoreError> {
        let mut handed: HashMap<String, Vec<HandedOver>> = HashMap::new();
        for row in self.read(sql::HANDOVERS_OF_MESSAGE, &[&ride, &seq]).await? {
            let (transport, replica) = (row.try_get("transport")?, row.try_get("replica")?);
            let at = row.try_get::<_, Timestamp>("at")?.into();
            handed.entry(row.try_get("user_id")?).or_default().push(HandedOver { at, transport, replica });
        }
        Ok(handed)
    }

    /// Erases a person from the traces of messages and from the audit log's entries about them.
    pub async fn forget_in_records(&self, user: &UserId) -> Result<(), StoreError> {
        let session = self.session().await?;
        session.may_commit();
        session.execute(sql::HANDOVERS_ERASE, &[&user.as_str()]).await?;
        session.execute(sql::AUDIT_ERASE, &[&user.as_str()]).await.map(drop)
    }
}
