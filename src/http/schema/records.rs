//! The schemas of a message's trace and of the audit log.

use salvo::oapi::ToSchema;

use super::{DateTime, RideId, UserId, Uuid};

/// The path of a message to its recipients.
#[derive(ToSchema)]
#[salvo(schema(name = "MessageTrace", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct MessageTrace {
    message_id: Uuid,
    #[salvo(schema(minimum = 1, example = 4))]
    seq: i64,
    committed_at: DateTime,
    /// When the message reached the feed. Null where it is not there yet, has expired, or the feed is off.
    #[salvo(schema(required = true))]
    feed_at: Option<DateTime>,
    /// The participants who may see the message, including its sender.
    participants: Vec<TracedParticipant>,
    /// The webhooks to which the message's `message:new` was sent or will be sent.
    webhooks: Vec<TracedWebhook>,
}

/// The path of a message to one participant.
#[derive(ToSchema)]
#[salvo(schema(name = "TracedParticipant", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
struct TracedParticipant {
    user_id: UserId,
    /// When the participant's delivered watermark reached the message; null for the sender.
    #[salvo(schema(required = true))]
    delivered_at: Option<DateTime>,
    /// When the participant's read watermark reached the message; null for the sender.
    #[salvo(schema(required = true))]
    read_at: Option<DateTime>,
    /// When the message was handed to the participant's connections, oldest first.
    handed: Vec<HandedOver>,
    /// When `message:undelivered` was sent about the message for the participant.
    #[salvo(schema(required = true))]
    undelivered_at: Option<DateTime>,
}

/// A handover of a message to a connection.
#[derive(ToSchema)]
#[salvo(schema(name = "HandedOver"))]
#[allow(dead_code, reason = "only its shape is used")]
struct HandedOver {
    at: DateTime,
    /// `sse` or `poll`.
    #[salvo(schema(example = "sse"))]
    transport: String,
    /// The id of the replica. Each server process logs its id at the start.
    #[salvo(schema(example = "9f86d081884c7d65"))]
    replica: String,
}

/// The delivery of a message's event to a webhook.
#[derive(ToSchema)]
#[salvo(schema(name = "TracedWebhook", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
struct TracedWebhook {
    #[salvo(schema(example = "wh_01a2064a3f0175218e7a2efe52754594"))]
    webhook_id: String,
    /// `pending`, `delivered` or `failed`.
    #[salvo(schema(example = "delivered"))]
    state: String,
    /// The number of attempts.
    #[salvo(schema(minimum = 0, example = 1))]
    attempts: i64,
}

/// A page of the audit log, newest first.
#[derive(ToSchema)]
#[salvo(schema(name = "AuditPage", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct AuditPage {
    entries: Vec<AuditEntry>,
    /// Whether there are older entries.
    has_more: bool,
}

/// A request of a support or service user.
#[derive(ToSchema)]
#[salvo(schema(name = "AuditEntry", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
struct AuditEntry {
    /// A UUIDv7.
    id: Uuid,
    at: DateTime,
    user_id: UserId,
    /// `support` or `service`.
    #[salvo(schema(example = "support"))]
    role: String,
    /// The `operationId` of the operation.
    #[salvo(schema(example = "getHistory"))]
    action: String,
    /// The ride that the request named, or the ride of a sent message.
    #[salvo(schema(required = true))]
    ride_id: Option<RideId>,
    /// The message that the request named or sent.
    #[salvo(schema(required = true))]
    message_id: Option<Uuid>,
    /// The user that the request named. Null in the entry of an erasure, and after the user is erased.
    #[salvo(schema(required = true))]
    subject_id: Option<UserId>,
    /// The webhook that the request named.
    #[salvo(schema(required = true))]
    webhook_id: Option<String>,
    /// The status of the response; null where the client disconnected before it.
    #[salvo(schema(required = true, example = 200))]
    status: Option<i64>,
    /// The `X-Request-Id` of the response.
    #[salvo(schema(example = "01a2064a-3f01-7521-8e7a-2efe52754594"))]
    request_id: String,
}
