//! Webhook endpoints.

use std::time::Duration;

use tokio_postgres::Row;

use super::pool::Store;
use super::{StoreError, sql};
use crate::domain::{Seq, Time};

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Where deliveries go.
    pub url: String,
    /// The event types that it subscribes to, as its owner wrote them.
    pub types: Vec<String>,
    /// The owner's description.
    pub description: Option<String>,
    /// Whether events are delivered.
    pub state: WebhookState,
    /// When it was created.
    pub created_at: Time,
}

/// Whether events are delivered to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    /// Events are delivered.
    Active,
    /// The owner has paused deliveries.
    Paused,
    /// Deliveries are paused because the endpoint responded 410 or has failed for too long.
    Disabled,
}

impl WebhookState {
    /// Returns the state as it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// Parses what [`WebhookState::as_str`] returns.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Disabled].into_iter().find(|state| state.as_str() == text)
    }
}

/// An endpoint to be created.
#[derive(Debug)]
pub struct NewWebhook<'a> {
    /// Its id.
    pub id: &'a str,
    /// Where deliveries go.
    pub url: &'a str,
    /// The event types that it subscribes to, as its owner wrote them.
    pub types: &'a [String],
    /// The same types as LIKE patterns.
    pub patterns: &'a [String],
    /// The owner's description.
    pub description: Option<&'a str>,
    /// The secret that signs its deliveries.
    pub secret: &'a [u8],
}

/// The changes to an endpoint.
#[derive(Debug, Default)]
pub struct WebhookUpdate {
    /// Where deliveries go.
    pub url: Option<String>,
    /// The types, as its owner wrote them and as LIKE patterns.
    pub types: Option<(Vec<String>, Vec<String>)>,
    /// The owner's description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Whether events are delivered.
    pub state: Option<WebhookState>,
}

/// The result of a replay request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Events are delivered again.
    Done,
    /// The feed does not have all events after the cursor. The first and the last valid cursor are:
    Gap {
        /// The first cursor from which a replay is possible.
        first: Seq,
        /// The last one.
        last: Seq,
    },
}

impl Store {
    /// Creates an endpoint. Its deliveries begin at the feed's end.
    pub async fn create_webhook(&self, new: &NewWebhook<'_>) -> Result<Webhook, StoreError> {
        let NewWebhook { id, url, types, patterns, description, secret } = new;
        let session = self.session().await?;
        let rows = session.query(sql::WEBHOOKS_CREATE, &[id, url, types, patterns, description, secret]).await?;
        rows.first().map(webhook).transpose()?.ok_or(StoreError::Corrupt("no feed"))
    }

    /// Returns all endpoints, oldest first.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        self.read(sql::WEBHOOKS_LIST, &[]).await?.iter().map(webhook).collect()
    }

    /// Returns an endpoint and the secrets that sign its deliveries now, the newest first.
    pub async fn webhook(&self, id: &str) -> Result<Option<(Webhook, Vec<Vec<u8>>)>, StoreError> {
        let rows = self.read(sql::WEBHOOKS_BY_ID, &[&id]).await?;
        rows.first().map(|row| Ok((webhook(row)?, secrets(row)?))).transpose()
    }

    /// Changes an endpoint; returns `None` if it does not exist.
    pub async fn update_webhook(&self, id: &str, update: &WebhookUpdate) -> Result<Option<Webhook>, StoreError> {
        let (types, patterns) = update.types.as_ref().map(|(types, patterns)| (types, patterns)).unzip();
        let description = update.description.as_ref().and_then(Option::as_deref);
        let state = update.state.map(WebhookState::as_str);
        let session = self.session().await?;
        let rows = session
            .query(
                sql::WEBHOOKS_UPDATE,
                &[&id, &update.url, &types, &patterns, &update.description.is_some(), &description, &state],
            )
            .await?;
        rows.first().map(webhook).transpose()
    }

    /// Deletes an endpoint. Returns whether it existed.
    pub async fn delete_webhook(&self, id: &str) -> Result<bool, StoreError> {
        let rows = self.session().await?.query(sql::WEBHOOKS_DELETE, &[&id]).await?;
        Ok(!rows.is_empty())
    }

    /// Replaces an endpoint's secret. The previous secret also signs for the time `overlap`. Returns whether the
    /// endpoint exists.
    pub async fn rotate_webhook_secret(&self, id: &str, secret: &[u8], overlap: Duration) -> Result<bool, StoreError> {
        let session = self.session().await?;
        let rows = session.query(sql::WEBHOOKS_ROTATE, &[&id, &secret, &overlap.as_secs_f64()]).await?;
        Ok(!rows.is_empty())
    }

    /// Schedules the events after a feed position for redelivery; returns `None` if the endpoint does not exist.
    pub async fn replay_webhook(&self, id: &str, after: Seq) -> Result<Option<Replayed>, StoreError> {
        let rows = self.session().await?.query(sql::WEBHOOKS_REPLAY, &[&id, &after]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (first, last) = (row.try_get("first")?, row.try_get("last")?);
        Ok(Some(if (first..=last).contains(&after) { Replayed::Done } else { Replayed::Gap { first, last } }))
    }
}

fn webhook(row: &Row) -> Result<Webhook, StoreError> {
    Ok(Webhook {
        id: row.try_get("id")?,
        url: row.try_get("url")?,
        types: row.try_get("types")?,
        description: row.try_get("description")?,
        state: WebhookState::parse(row.try_get("state")?).ok_or(StoreError::Corrupt("state"))?,
        created_at: Time::from(row.try_get::<_, jiff::Timestamp>("created_at")?),
    })
}

/// Reads the secrets that sign now, the newest first.
pub(super) fn secrets(row: &Row) -> Result<Vec<Vec<u8>>, StoreError> {
    let (secret, previous) = (row.try_get("secret")?, row.try_get::<_, Option<Vec<u8>>>("previous_secret")?);
    Ok(std::iter::once(secret).chain(previous).collect())
}
