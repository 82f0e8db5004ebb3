//! `GET /messages/{messageId}/trace`: why a message did not arrive.

use salvo::Writer as _;
use salvo::oapi::endpoint;
use serde::Serialize;

use super::body::Json;
use super::context::Session;
use super::params::MessagePath;
use super::refusal::Refusal;
use super::schema;
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
/// For support and the service: when the message was committed, on the feed, handed to the connections of each participant, delivered and
/// read, when `message:undelivered` was sent, and what has come of its event at the webhooks. A time is null where it has not happened, or is no
/// longer known. Handovers appear within about a second. A deleted message can be traced as well.
#[endpoint(tags("operations"), operation_id = "traceMessage", responses(
    (status_code = 200, description = "The trace", body = schema::MessageTrace),
    (status_code = 403, description = "`forbidden`: only support and the service can trace messages"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn trace_message(
    session: Session,
    message: MessagePath,
) -> Result<Json<schema::MessageTrace>, Refusal> {
    let Session { caller, api, .. } = session;
    if !caller.role.is_staff() {
        return Err(Error::Forbidden("only support and the service can trace messages").into());
    }
    let message = api.store.message(message.0).await?.ok_or(Error::MessageNotFound)?;
    let MessageTrace { feed_at, participants, webhooks } = api.store.trace_message(&message).await?;
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
