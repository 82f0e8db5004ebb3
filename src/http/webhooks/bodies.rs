//! The bodies of the requests and responses of `/webhooks`.

use salvo::oapi::ToSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::domain::Time;
use crate::store::Webhook;

/// A new endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "NewWebhook"))]
pub(in crate::http) struct NewBody {
    /// The URL to which events are sent: `https`, with a host that has a public address.
    #[salvo(schema(
        required = true,
        nullable = false,
        max_length = 2048,
        example = "https://platform.example/ridewire"
    ))]
    pub(super) url: Option<String>,
    /// The types of events to send, in either notation. `*` at the end matches a prefix. Default: all types.
    #[salvo(schema(min_items = 1, max_items = 50, example = json!(["message.*", "ride:status"])))]
    pub(super) types: Option<Vec<String>>,
    /// At most 500 characters.
    #[salvo(schema(max_length = 500, example = "Trip service"))]
    pub(super) description: Option<String>,
}

/// An update of an endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "WebhookUpdate"))]
pub(in crate::http) struct UpdateBody {
    /// The URL to which events are sent from the next attempt on.
    #[salvo(schema(max_length = 2048, example = "https://platform.example/ridewire"))]
    pub(super) url: Option<String>,
    /// The types of events to send. Applies to later events.
    #[salvo(schema(min_items = 1, max_items = 50, example = json!(["message.*", "ride:status"])))]
    pub(super) types: Option<Vec<String>>,
    /// At most 500 characters; null removes it.
    #[serde(default, deserialize_with = "deserialize_some")]
    #[salvo(schema(value_type = Option<String>, max_length = 500, example = "Trip service"))]
    pub(super) description: Option<Option<String>>,
    /// `active` or `paused`.
    #[salvo(schema(example = "active"))]
    pub(super) state: Option<String>,
}

/// The start of a replay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "WebhookReplay"))]
pub(in crate::http) struct ReplayBody {
    /// A cursor of the feed; 0 is the whole retained feed.
    #[salvo(schema(required = true, nullable = false, value_type = String, example = "4711"))]
    pub(super) after: Option<Value>,
}

/// Distinguishes a field that is `null` (`Some(None)`) from an absent field (`None`).
fn deserialize_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookView<'a> {
    pub(super) id: &'a str,
    pub(super) url: &'a str,
    pub(super) types: &'a [String],
    pub(super) description: Option<&'a str>,
    pub(super) state: &'static str,
    pub(super) created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
}

impl<'a> WebhookView<'a> {
    pub(super) fn of(webhook: &'a Webhook) -> Self {
        let Webhook { id, url, types, description, state, created_at } = webhook;
        let (description, state) = (description.as_deref(), state.as_str());
        Self { id, url, types, description, state, created_at: *created_at, secret: None }
    }
}

#[derive(Serialize)]
pub(super) struct List<'a> {
    pub(super) webhooks: Vec<WebhookView<'a>>,
}

#[derive(Serialize)]
pub(super) struct SecretView {
    pub(super) secret: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TestedView {
    pub(super) status: Option<u16>,
    pub(super) duration_ms: u128,
    pub(super) error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryView {
    pub(super) event_id: String,
    pub(super) r#type: String,
    pub(super) at: Time,
    pub(super) attempts: i64,
    pub(super) status: Option<i64>,
    pub(super) duration_ms: Option<i64>,
    pub(super) error: Option<String>,
    pub(super) next_attempt_at: Option<Time>,
    pub(super) replay_after: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Deliveries {
    pub(super) deliveries: Vec<DeliveryView>,
    pub(super) has_more: bool,
}
