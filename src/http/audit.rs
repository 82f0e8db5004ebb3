//! What support and service users view and do: one entry for each of their requests, and `GET /audit`.
//!
//! An entry is begun where the request's caller is known, in the extractor that every operation under `/api/v1` has, so an operation cannot
//! forget it. It is recorded when it is dropped: with the response's status, or without one where the client has gone and the
//! handler was dropped, since what the handler gave to the writer is carried out all the same. It has ids and nothing of what was said.

use std::sync::Arc;
use std::time::Duration;

use salvo::http::{Method, StatusCode};
use salvo::oapi::endpoint;
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Writer as _, async_trait};
use serde::Serialize;
use tokio::time::sleep;
use uuid::Uuid;

use super::body::Json;
use super::context::{Api, Session};
use super::operations::ApiOperation;
use super::params::{number, query};
use super::refusal::Refusal;
use super::schema;
use super::trace::RequestId;
use crate::audit::AuditLog;
use crate::domain::{Caller, Error, MessageId, RideId, Role, Time, UserId};
use crate::store::{AuditEntry, StoreError};

/// The operation whose entry does not name the user: it would bring back what it erases.
const ERASE: &str = "eraseUser";

/// How long after it was recorded something is written: replicas write each second.
const WRITTEN: Duration = Duration::from_millis(1_250);

/// The most entries of a page, and how many where no limit is given.
const PAGE: (usize, usize) = (200, 50);

/// An entry whose request is being answered.
struct Pending {
    log: Arc<AuditLog>,
    entry: Option<AuditEntry>,
    is_read: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.log.record(entry, self.is_read);
        }
    }
}

/// Begins the entry of a request, where its caller is support or the service.
pub(super) fn begin(req: &Request, depot: &mut Depot, api: &Api, caller: &Caller, operation: Option<&ApiOperation>) {
    if !caller.role.is_staff() {
        return;
    }
    let Some(action) = operation.and_then(|operation| operation.id.clone()) else { return };
    // Only what is an id is kept: anything can stand in a path.
    let is_id = |text: &&str| RideId::parse(text).is_ok();
    let named = |name: &str| req.params().get(name).map(String::as_str).filter(is_id).map(str::to_owned);
    let subject = named("userId").or_else(|| query(req, "userId").filter(is_id).map(str::to_owned));
    let entry = AuditEntry {
        id: Uuid::now_v7(),
        at: Time::now(),
        user: caller.user.clone(),
        role: caller.role.as_str().to_owned(),
        ride: named("rideId"),
        message: req.params().get("messageId").and_then(|text| MessageId::parse(text)),
        subject: subject.filter(|_| action != ERASE),
        webhook: named("webhookId"),
        status: None,
        request: RequestId::of(depot).to_string(),
        action,
    };
    let is_read = matches!(*req.method(), Method::GET | Method::HEAD);
    depot.insert_typed(Pending { log: Arc::clone(&api.audit), entry: Some(entry), is_read });
}

/// Names the message that a request has created, and its ride.
pub(super) fn sent(depot: &mut Depot, ride: &RideId, message: MessageId) {
    if let Ok(Pending { entry: Some(entry), .. }) = depot.get_typed_mut::<Pending>() {
        entry.ride = Some(ride.to_string());
        entry.message = Some(message);
    }
}

/// Erases a user from what is recorded beside the log: the entries of requests that named them, and what was handed to them.
pub(super) async fn erase(api: &Api, user: &UserId) -> Result<(), StoreError> {
    api.audit.flush(&api.store).await?;
    // What was recorded by now on any replica is in the tables then, unless that replica cannot write.
    sleep(WRITTEN).await;
    api.store.forget_in_records(user).await
}

/// Completes the entries of the requests below it.
pub(super) struct Audited;

#[async_trait]
impl Handler for Audited {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        ctrl.call_next(req, depot, res).await;
        if let Ok(mut pending) = depot.remove_typed::<Pending>()
            && let Some(entry) = &mut pending.entry
        {
            entry.status = Some(res.status_code.unwrap_or(StatusCode::OK).as_u16());
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryView<'a> {
    id: Uuid,
    at: Time,
    user_id: &'a UserId,
    role: &'a str,
    action: &'a str,
    ride_id: Option<&'a str>,
    message_id: Option<MessageId>,
    subject_id: Option<&'a str>,
    webhook_id: Option<&'a str>,
    status: Option<u16>,
    request_id: &'a str,
}

impl<'a> EntryView<'a> {
    fn of(entry: &'a AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            user_id: &entry.user,
            role: &entry.role,
            action: &entry.action,
            ride_id: entry.ride.as_deref(),
            message_id: entry.message,
            subject_id: entry.subject.as_deref(),
            webhook_id: entry.webhook.as_deref(),
            status: entry.status,
            request_id: &entry.request,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    entries: Vec<EntryView<'a>>,
    has_more: bool,
}

/// List the audit log
///
/// What support and service users have viewed and done, newest first: one entry for each request, with the ids that it named and without
/// any content. A read that is repeated within a minute is one entry on each server. Entries appear within about a second.
#[endpoint(tags("operations"), operation_id = "listAudit",
    parameters(
        ("before" = Option<String>, Query, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            description = "Only entries before this one: the `id` of the last entry of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "The most entries: 1 to 200, 50 where not given.")),
    responses(
        (status_code = 200, description = "Entries", body = schema::AuditPage),
        (status_code = 403, description = "`forbidden`: only the `service` role can read the audit log")))]
pub(super) async fn list_audit(session: Session, req: &mut Request) -> Result<Json<schema::AuditPage>, Refusal> {
    let Session { caller, api, .. } = session;
    if caller.role != Role::Service {
        return Err(Error::Forbidden("only the `service` role can read the audit log").into());
    }
    let before =
        |text| MessageId::parse(text).ok_or_else(|| Error::invalid("before", "must be the id of an entry: a UUID"));
    let before = query(req, "before").map(before).transpose()?.map_or(Uuid::max(), |before| before.0);
    let limit = number(req, "limit", 1..=PAGE.0)?.unwrap_or(PAGE.1);
    // One more than asked, to know whether there are more.
    let mut entries = api.store.audit(before, i64::try_from(limit + 1).unwrap_or(i64::MAX)).await?;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    Json::ok(&Page { entries: entries.iter().map(EntryView::of).collect(), has_more })
}
