//! `GET /audit`: the audit log. The requests of support and service users record its [entries](super::audit_entry).

use std::time::Duration;

use futures_util::future::try_join_all;
use salvo::oapi::endpoint;
use salvo::{Request, Writer as _};
use serde::Serialize;
use tokio::time::sleep;
use uuid::Uuid;

use super::api_error::ApiError;
use super::body::Json;
use super::context::Api;
use super::params::{number, query};
use super::schema;
use super::session::Session;
use crate::domain::{Error, MessageId, Role, Time, UserId};
use crate::store::{AuditEntry, StoreError};

/// How long after recording an entry is written: replicas write each second.
const WRITE_DELAY: Duration = Duration::from_millis(1_250);

/// The maximum and the default number of entries of a page.
const PAGE: (usize, usize) = (200, 50);

/// Erases a user from the audit log and from the records of handovers.
pub(super) async fn erase(api: &Api, user: &UserId) -> Result<(), StoreError> {
    api.audit.flush(&api.shards.first().store).await?;
    // After this time the entries of all replicas are written, except those of a replica that cannot write.
    sleep(WRITE_DELAY).await;
    try_join_all(api.shards.iter().map(|shard| shard.store.erase_records(user))).await.map(drop)
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
/// For the platform (service). Returns one entry for each request of a support or service user, newest first, with the ids that
/// the request named and without content. A read that is repeated within a minute has one entry per server. Entries appear
/// within about a second.
#[endpoint(tags("operations"), operation_id = "listAudit",
    parameters(
        ("before" = Option<String>, Query, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            description = "Only entries before this one: the `id` of the last entry of the previous page."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Maximum number of entries: 1 to 200 (default 50).")),
    responses(
        (status_code = 200, description = "Entries", body = schema::AuditPage),
        (status_code = 403, description = "`forbidden`: only the `service` role can read the audit log")))]
pub(super) async fn list_audit(session: Session, req: &mut Request) -> Result<Json<schema::AuditPage>, ApiError> {
    let Session { caller, api, .. } = session;
    if caller.role != Role::Service {
        return Err(Error::Forbidden("only the `service` role can read the audit log").into());
    }
    let before =
        |text| MessageId::parse(text).ok_or_else(|| Error::invalid("before", "must be the id of an entry: a UUID"));
    let before = query(req, "before").map(before).transpose()?.map_or(Uuid::max(), |before| before.0);
    let limit = number(req, "limit", 1..=PAGE.0)?.unwrap_or(PAGE.1);
    // One more than the limit, to determine `hasMore`.
    let mut entries = api.shards.first().store.audit(before, i64::try_from(limit + 1).unwrap_or(i64::MAX)).await?;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    Json::ok(&Page { entries: entries.iter().map(EntryView::of).collect(), has_more })
}
