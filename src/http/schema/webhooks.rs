//! The schemas of webhooks.

use salvo::oapi::ToSchema;

use super::DateTime;

/// An endpoint to which events are delivered.
#[derive(ToSchema)]
#[salvo(schema(name = "Webhook", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct Webhook {
    #[salvo(schema(example = "wh_01a2064a3f0175218e7a2efe52754594"))]
    id: String,
    #[salvo(schema(example = "https://platform.example/ridewire"))]
    url: String,
    /// The types of events that are sent, as they were given; `*` is all.
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
    /// The types of events that are sent, as they were given; `*` is all.
    #[salvo(schema(example = json!(["message.*", "ride:status"])))]
    types: Vec<String>,
    #[salvo(schema(required = true))]
    description: Option<String>,
    #[salvo(schema(example = "active"))]
    state: String,
    created_at: DateTime,
    /// The secret that verifies the signatures.
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

/// The result of a test.
#[derive(ToSchema)]
#[salvo(schema(name = "TestedWebhook", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct TestedWebhook {
    /// The status of the response; null where there was none.
    #[salvo(schema(required = true, example = 200))]
    status: Option<i64>,
    #[salvo(schema(minimum = 0, example = 45))]
    duration_ms: i64,
    /// Null where the test was delivered.
    #[salvo(schema(required = true))]
    error: Option<String>,
}

/// The delivery of an event to an endpoint.
#[derive(ToSchema)]
#[salvo(schema(name = "WebhookDelivery", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct WebhookDelivery {
    /// The value of the `webhook-id` header.
    #[salvo(schema(example = "evt_0000000000001267a94a8fe5ccb19ba6"))]
    event_id: String,
    #[salvo(schema(rename = "type", example = "message.new"))]
    r#type: String,
    /// When the event was committed.
    at: DateTime,
    #[salvo(schema(minimum = 0))]
    attempts: i64,
    /// The status of the last response; null where there was none.
    #[salvo(schema(required = true, example = 200))]
    status: Option<i64>,
    /// How long the last attempt took.
    #[salvo(schema(required = true, example = 45))]
    duration_ms: Option<i64>,
    /// Why the last attempt failed.
    #[salvo(schema(required = true))]
    error: Option<String>,
    /// When the event is sent again after a failed attempt.
    #[salvo(schema(required = true))]
    next_attempt_at: Option<DateTime>,
    /// The feed cursor from which a replay begins with this event.
    #[salvo(schema(example = "4710"))]
    replay_after: String,
}

/// A page of deliveries.
#[derive(ToSchema)]
#[salvo(schema(name = "WebhookDeliveries", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct WebhookDeliveries {
    deliveries: Vec<WebhookDelivery>,
    /// Whether there are older deliveries.
    has_more: bool,
}
