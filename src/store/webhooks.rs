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
    /// The types of events that it wants, as its owner wrote them.
    pub types: Vec<String>,
    /// What its owner says of it.
    pub description: Option<String>,
    /// Whether events are delivered.
    pub state: WebhookState,
    /// When it was created.
    pub created_at: Time,
}

/// Whether events are delivered to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    /// They are.
    Active,
    /// They wait: its owner wants it so.
    Paused,
    /// They wait: the endpoint answered 410, or has failed for too long.
    Disabled,
}

impl WebhookState {
    /// As it is stored and sent.
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
    /// The types of events that it wants, as its owner wrote them.
    pub types: &'a [String],
    /// The same, for LIKE.
    pub patterns: &'a [String],
    /// What its owner says of it.
    pub description: Option<&'a str>,
    /// What signs its deliveries.
    pub secret: &'a [u8],
}

/// What changes of an endpoint.
#[derive(Debug, Default)]
pub struct WebhookUpdate {
    /// Where deliveries go.
    pub url: Option<String>,
    /// The types, as its owner wrote them and for LIKE.
    pub types: Option<(Vec<String>, Vec<String>)>,
    /// What its owner says of it; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Whether events are delivered.
    pub state: Option<WebhookState>,
}

/// What has come of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Events are delivered again.
    Done,
    /// The feed does not have all events after the cursor: it begins and ends after these.
    Gap {
        /// The first cursor that can be replayed from.
        first: Seq,
        /// The last.
        last: Seq,
    },
}

impl Store {
    /// Creates an endpoint, whose deliveries begin at the feed's end.
    pub async fn create_webhook(&self, new: &NewWebhook<'_>) -> Result<Webhook, StoreError> {
        let NewWebhook { id, url, types, patterns, description, secret } = new;
        let session = self.session().await?;
        let rows = session.query(sql::WEBHOOKS_CREATE, &[id, url, types, patterns, description, secret]).await?;
        rows.first().map(webhook).transpose()?.ok_or(StoreError::Corrupt("no feed"))
    }

    /// All endpoints, oldest first.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        self.read(sql::WEBHOOKS_LIST, &[]).await?.iter().map(webhook).collect()
    }

    /// An endpoint, and the secrets that sign its deliveries now, the newest first.
    pub async fn webhook(&self, id: &str) -> Result<Option<(Webhook, Vec<Vec<u8>>)>, StoreError> {
        let rows = self.read(sql::WEBHOOKS_BY_ID, &[&id]).await?;
        rows.first().map(|row| Ok((webhook(row)?, secrets(row)?))).transpose()
    }

    /// Changes an endpoint; `None` where there is none.
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

    /// Deletes an endpoint, if there is one.
    pub async fn delete_webhook(&self, id: &str) -> Result<bool, StoreError> {
        let rows = self.session().await?.query(sql::WEBHOOKS_DELETE, &[&id]).await?;
        Ok(!rows.is_empty())
    }

    /// Replaces an endpoint's secret, if there is one. The previous secret also signs for the time `overlap`.
    pub async fn rotate_webhook_secret(&self, id: &str, secret: &[u8], overlap: Duration) -> Result<bool, StoreError> {
        let session = self.session().await?;
        let rows = session.query(sql::WEBHOOKS_ROTATE, &[&id, &secret, &overlap.as_secs_f64()]).await?;
        Ok(!rows.is_empty())
    }

    /// Has the events after a position delivered again; `None` where there is no such endpoint.
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

/// The secrets that sign now, the newest first.
pub(super) fn secrets(row: &Row) -> Result<Vec<Vec<u8>>, StoreError> {
    let (secret, previous) = (row.try_get("secret")?, row.try_get::<_, Option<Vec<u8>>>("previous_secret")?);
    Ok(std::iter::once(secret).chain(previous).collect())
}
