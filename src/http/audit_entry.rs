//! The entry of the audit log for each request of a support or service user.
//!
//! The entry is created in the [`Session`](super::session::Session) extractor, which every operation under `/api/v1` uses, so no
//! operation can omit it. The entry is recorded when it is dropped. It has the response's status, or none where the client
//! disconnected and the handler was dropped: the writer may carry out the command all the same. An entry contains ids, never
//! content.

use std::sync::Arc;

use salvo::http::Method;
use salvo::{Depot, FlowCtrl, Handler, Request, Response, async_trait};
use uuid::Uuid;

use super::context::Api;
use super::operations::ApiOperation;
use super::params::query;
use super::request_id::RequestId;
use crate::audit::AuditLog;
use crate::deferred;
use crate::domain::{Caller, MessageId, RideId, Time};
use crate::store::AuditEntry;

/// The operation whose entry does not name the user, because the entry would restore the id that the operation erases.
const ERASE_OPERATION: &str = "eraseUser";

/// The entry of a request that is in progress.
struct PendingEntry {
    log: Arc<AuditLog>,
    entry: Option<AuditEntry>,
    is_read: bool,
}

impl Drop for PendingEntry {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.log.record(entry, self.is_read);
        }
    }
}

/// Creates the entry of a request where its caller is support or the service.
pub(super) fn begin(req: &Request, depot: &mut Depot, api: &Api, caller: &Caller, operation: Option<&ApiOperation>) {
    if !caller.role.is_staff() {
        return;
    }
    let Some(action) = operation.and_then(|operation| operation.id.clone()) else { return };
    // Only valid ids are stored, because a client can put any text into a path.
    let is_id = |text: &&str| RideId::parse(text).is_ok();
    let path_id = |name: &str| req.params().get(name).map(String::as_str).filter(is_id).map(str::to_owned);
    let subject = path_id("userId").or_else(|| query(req, "userId").filter(is_id).map(str::to_owned));
    let entry = AuditEntry {
        id: Uuid::now_v7(),
        at: Time::now(),
        user: caller.user.clone(),
        role: caller.role.as_str().to_owned(),
        ride: path_id("rideId"),
        message: req.params().get("messageId").and_then(|text| MessageId::parse(text)),
        subject: subject.filter(|_| action != ERASE_OPERATION),
        webhook: path_id("webhookId"),
        status: None,
        request: RequestId::of(depot).to_string(),
        action,
    };
    let is_read = matches!(*req.method(), Method::GET | Method::HEAD);
    depot.insert_typed(PendingEntry { log: Arc::clone(&api.audit), entry: Some(entry), is_read });
}

/// Adds the message that a request has created, and its ride, to the request's entry.
pub(super) fn add_message(depot: &mut Depot, ride: &RideId, message: MessageId) {
    if let Ok(PendingEntry { entry: Some(entry), .. }) = depot.get_typed_mut::<PendingEntry>() {
        entry.ride = Some(ride.to_string());
        entry.message = Some(message);
    }
}

/// A middleware that adds the response's status to the entry.
pub(super) struct Audited;

#[async_trait]
impl Handler for Audited {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        ctrl.call_next(req, depot, res).await;
        if let Ok(mut pending) = depot.remove_typed::<PendingEntry>() {
            // A poll that its client abandons drops the entry without a status.
            deferred::on_status(res, move |status| {
                if let Some(entry) = &mut pending.entry {
                    entry.status = Some(status);
                }
            });
        }
    }
}
