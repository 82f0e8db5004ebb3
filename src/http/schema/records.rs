//! The shapes of a message's trace and of the audit log.

use salvo::oapi::ToSchema;

use super::{DateTime, Id, Person, Uuid};

/// What has become of a message.
#[derive(ToSchema)]
#[salvo(schema(name = "MessageTrace", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct MessageTrace {
    message_id: Uuid,
    #[salvo(schema(minimum = 1, example = 4))]
    seq: i64,
    committed_at: DateTime,
    /// Null where it is not on the feed: not yet, no longer, or because the feed is off.
    #[salvo(schema(required = true))]
    feed_at: Option<DateTime>,
    /// Those who may see the message, its sender among them.
    participants: Vec<TracedParticipant>,
    /// The webhooks that its `message:new` is, or was, to be sent to.
    webhooks: Vec<TracedWebhook>,
}

/// What has become of a message for one participant.
#[derive(ToSchema)]
#[salvo(schema(name = "TracedParticipant", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
struct TracedParticipant {
    user_id: Person,
    /// When their delivered watermark reached it; null for the sender.
    #[salvo(schema(required = true))]
    delivered_at: Option<DateTime>,
    /// When their read watermark reached it; null for the sender.
    #[salvo(schema(required = true))]
    read_at: Option<DateTime>,
    /// When it was handed to connections of theirs, oldest first.
    handed: Vec<HandedOver>,
    /// When `message:undelivered` named it for them.
    #[salvo(schema(required = true))]
    undelivered_at: Option<DateTime>,
}

/// A message that was handed to a connection.
#[derive(ToSchema)]
#[salvo(schema(name = "HandedOver"))]
#[allow(dead_code, reason = "only its shape is used")]
struct HandedOver {
    at: DateTime,
    /// `sse` or `poll`.
    #[salvo(schema(example = "sse"))]
    transport: String,
    /// The id of the server process, as its log has it at the start.
    #[salvo(schema(example = "9f86d081884c7d65"))]
    replica: String,
}

/// A message's event at a webhook.
#[derive(ToSchema)]
#[salvo(schema(name = "TracedWebhook", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
struct TracedWebhook {
    #[salvo(schema(example = "wh_01a2064a3f0175218e7a2efe52754594"))]
    webhook_id: String,
    /// `pending`, `delivered` or `failed`.
    #[salvo(schema(example = "delivered"))]
    state: String,
    /// How many attempts there were.
    #[salvo(schema(minimum = 0, example = 1))]
    attempts: i64,
}

/// A page of the audit log, newest first.
#[derive(ToSchema)]
#[salvo(schema(name = "AuditPage", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct AuditPage {
    entries: Vec<AuditEntry>,
    /// Whether there are older ones.
    has_more: bool,
}

/// What a support or service user has viewed or done: one request.
#[derive(ToSchema)]
#[salvo(schema(name = "AuditEntry", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
struct AuditEntry {
    /// A UUID of version 7.
    id: Uuid,
    at: DateTime,
    user_id: Person,
    /// `support` or `service`.
    #[salvo(schema(example = "support"))]
    role: String,
    /// The operation, by its `operationId` in this document.
    #[salvo(schema(example = "getHistory"))]
    action: String,
    /// The ride that was named, or that the message is on.
    #[salvo(schema(required = true))]
    ride_id: Option<Id>,
    /// The message that was named or sent.
    #[salvo(schema(required = true))]
    message_id: Option<Uuid>,
    /// The user who was named; null in the entry of an erasure, and once the user is erased.
    #[salvo(schema(required = true))]
    subject_id: Option<Person>,
    /// The webhook that was named.
    #[salvo(schema(required = true))]
    webhook_id: Option<String>,
    /// Of the response; null where the client had gone before it.
    #[salvo(schema(required = true, example = 200))]
    status: Option<i64>,
    /// The `X-Request-Id` of the response.
    #[salvo(schema(example = "01a2064a-3f01-7521-8e7a-2efe52754594"))]
    request_id: String,
}
