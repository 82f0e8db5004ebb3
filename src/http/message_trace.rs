//! `GET /messages/{messageId}/trace`: the path of a message to its recipients.

use salvo::Writer as _;
use salvo::oapi::endpoint;
use serde::Serialize;

use super::api_error::ApiError;
use super::body::Json;
use super::params::MessagePath;
use super::schema;
use super::session::Session;
use crate::domain::{Error, MessageId, Seq, Time, UserId};
use crate::store::{HandedOver, MessageTrace, ParticipantTrace, WebhookTrace};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceView<'a> {
    message_id: MessageId,
    seq: Seq,
    committed_at: Time,
    feed_at: Option<Time>,
    participants: Vec<ParticipantView<'a>>,
    webhooks: Vec<WebhookView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParticipantView<'a> {
    user_id: &'a UserId,
    delivered_at: Option<Time>,
    read_at: Option<Time>,
    handed: Vec<HandedView<'a>>,
    undelivered_at: Option<Time>,
}

#[derive(Serialize)]
struct HandedView<'a> {
    at: Time,
    transport: &'a str,
    replica: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookView<'a> {
    webhook_id: &'a str,
    state: &'a str,
    attempts: i64,
}

fn participant(trace: &ParticipantTrace) -> ParticipantView<'_> {
    let handed = trace.handed.iter();
    let handed = handed.map(|HandedOver { at, transport, replica }| HandedView { at: *at, transport, replica });
    ParticipantView {
        user_id: &trace.user,
        delivered_at: trace.delivered_at,
        read_at: trace.read_at,
        handed: handed.collect(),
        undelivered_at: trace.undelivered_at,
    }
}

/// Trace a message
///
/// For support and the service. Returns when the message was committed and when it reached the feed. Per participant, returns when
/// the message was handed to connections, delivered and read, and when `message:undelivered` was sent. Also returns the state of
/// the message's event at each webhook. A time is null where the step has not happened or its record has expired. Handovers
/// appear within about a second. Deleted messages can be traced, too.
#[endpoint(tags("operations"), operation_id = "traceMessage", responses(
    (status_code = 200, description = "The trace", body = schema::MessageTrace),
    (status_code = 403, description = "`forbidden`: neither the `support` nor the `service` role"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn trace_message(
    session: Session,
    message: MessagePath,
) -> Result<Json<schema::MessageTrace>, ApiError> {
    let Session { caller, api, .. } = session;
    if !caller.role.is_staff() {
        return Err(Error::Forbidden("only the `support` and `service` roles can trace messages").into());
    }
    let store = &api.shards.of_message(message.0).store;
    let message = store.message(message.0).await?.ok_or(Error::MessageNotFound)?;
    let MessageTrace { feed_at, participants, webhooks } = store.trace_message(&message).await?;
    let webhooks = webhooks.iter().map(|WebhookTrace { webhook, state, attempts }| WebhookView {
        webhook_id: webhook,
        state,
        attempts: *attempts,
    });
    Json::ok(&TraceView {
        message_id: message.id,
        seq: message.seq,
        committed_at: message.created_at,
        feed_at,
        participants: participants.iter().map(participant).collect(),
        webhooks: webhooks.collect(),
    })
}
