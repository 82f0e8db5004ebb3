//! The shapes of webhooks.

use salvo::oapi::ToSchema;

use super::DateTime;

/// An endpoint for which events are delivered.
#[derive(ToSchema)]
#[salvo(schema(name = "Webhook", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct Webhook {
    #[salvo(schema(example = "wh_01a2064a3f0175218e7a2efe52754594"))]
    id: String,
    #[salvo(schema(example = "https://platform.example/ridewire"))]
    url: String,
    /// As they were given; `*` is all.
    #[salvo(schema(example = json!(["message.*", "ride:status"])))]
    types: Vec<String>,
    #[salvo(schema(required = true))]
    description: Option<String>,
    /// `active`, `paused`, or `disabled` (after a 410, or after failing for three days).
    #[salvo(schema(example = "active"))]
    state: String,
    created_at: DateTime,
}

/// A new endpoint, with its secret.
#[derive(ToSchema)]
#[salvo(schema(name = "CreatedWebhook", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct CreatedWebhook {
    #[salvo(schema(example = "wh_01a2064a3f0175218e7a2efe52754594"))]
    id: String,
    #[salvo(schema(example = "https://platform.example/ridewire"))]
    url: String,
    /// As they were given; `*` is all.
    #[salvo(schema(example = json!(["message.*", "ride:status"])))]
    types: Vec<String>,
    #[salvo(schema(required = true))]
    description: Option<String>,
    #[salvo(schema(example = "active"))]
    state: String,
    created_at: DateTime,
    /// What verifies the signatures.
    #[salvo(schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))]
    secret: String,
}

/// All endpoints.
#[derive(ToSchema)]
#[salvo(schema(name = "Webhooks"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct Webhooks {
    webhooks: Vec<Webhook>,
}

/// A new secret.
#[derive(ToSchema)]
#[salvo(schema(name = "WebhookSecret"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct WebhookSecret {
    #[salvo(schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))]
    secret: String,
}

/// What has come of a test.
#[derive(ToSchema)]
#[salvo(schema(name = "TestedWebhook", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct TestedWebhook {
    /// Of the response; null where there was none.
    #[salvo(schema(required = true, example = 200))]
    status: Option<i64>,
    #[salvo(schema(minimum = 0, example = 45))]
    duration_ms: i64,
    /// Null where the test was delivered.
    #[salvo(schema(required = true))]
    error: Option<String>,
}

/// An event that was, or is to be, sent to an endpoint.
#[derive(ToSchema)]
#[salvo(schema(name = "WebhookDelivery", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct WebhookDelivery {
    /// `webhook-id`.
    #[salvo(schema(example = "evt_0000000000001267a94a8fe5ccb19ba6"))]
    event_id: String,
    #[salvo(schema(rename = "type", example = "message.new"))]
    r#type: String,
    /// When the event was committed.
    at: DateTime,
    #[salvo(schema(minimum = 0))]
    attempts: i64,
    /// Of the last response; null where there was none.
    #[salvo(schema(required = true, example = 200))]
    status: Option<i64>,
    /// How long the last attempt took.
    #[salvo(schema(required = true, example = 45))]
    duration_ms: Option<i64>,
    /// Why the last attempt has failed.
    #[salvo(schema(required = true))]
    error: Option<String>,
    /// When the event is sent again, after an attempt that has failed.
    #[salvo(schema(required = true))]
    next_attempt_at: Option<DateTime>,
    /// The cursor of the feed after which a replay begins with this event.
    #[salvo(schema(example = "4710"))]
    replay_after: String,
}

/// A page of deliveries.
#[derive(ToSchema)]
#[salvo(schema(name = "WebhookDeliveries", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct WebhookDeliveries {
    deliveries: Vec<WebhookDelivery>,
    /// Whether there are older ones.
    has_more: bool,
}
