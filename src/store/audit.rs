//! The audit log: what support and service users have viewed and done.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::pool::{Params, Store};
use super::rows::user_id;
use super::{StoreError, sql};
use crate::domain::{MessageId, Time, UserId};

/// An entry of the audit log: one request of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// A `UUIDv7`, so that entries sort by their time.
    pub id: Uuid,
    /// When the server received the request.
    pub at: Time,
    /// The user who sent the request.
    pub user: UserId,
    /// The role of the user's token.
    pub role: String,
    /// The id of the operation.
    pub action: String,
    /// The ride that the request named, or the ride of its message.
    pub ride: Option<String>,
    /// The message that the request named or created.
    pub message: Option<MessageId>,
    /// The user that the request named.
    pub subject: Option<String>,
    /// The webhook that the request named.
    pub webhook: Option<String>,
    /// The status of the response; `None` if the client disconnected before the response.
    pub status: Option<u16>,
    /// The id of the request.
    pub request: String,
}

impl Store {
    /// Adds entries to the audit log. Entries that exist already are unchanged.
    pub async fn put_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        fn column<'a, T: 'a>(entries: &'a [AuditEntry], of: impl Fn(&'a AuditEntry) -> T) -> Vec<T> {
            entries.iter().map(of).collect()
        }
        let params: Params<'_> = &[
            &column(entries, |entry| entry.id),
            &column(entries, |entry| entry.at.timestamp()),
            &column(entries, |entry| entry.user.as_str()),
            &column(entries, |entry| entry.role.as_str()),
            &column(entries, |entry| entry.action.as_str()),
            &column(entries, |entry| entry.ride.as_deref()),
            &column(entries, |entry| entry.message.map(|message| message.0)),
            &column(entries, |entry| entry.subject.as_deref()),
            &column(entries, |entry| entry.webhook.as_deref()),
            &column(entries, |entry| entry.status.map(i64::from)),
            &column(entries, |entry| entry.request.as_str()),
        ];
        let session = self.session().await?;
        session.may_commit();
        session.execute(sql::AUDIT_PUT, params).await.map(drop)
    }

    /// Returns the entries of the audit log before `before`, newest first; at most `limit`.
    pub async fn audit(&self, before: Uuid, limit: i64) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = self.read(sql::AUDIT_PAGE, &[&before, &limit]).await?;
        rows.iter().map(entry_from_row).collect()
    }
}

fn entry_from_row(row: &Row) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        id: row.try_get("id")?,
        at: row.try_get::<_, Timestamp>("at")?.into(),
        user: user_id(row.try_get("user_id")?)?,
        role: row.try_get("role")?,
        action: row.try_get("action")?,
        ride: row.try_get("ride_id")?,
        message: row.try_get::<_, Option<Uuid>>("message_id")?.map(MessageId),
        subject: row.try_get("subject_id")?,
        webhook: row.try_get("webhook_id")?,
        status: row.try_get::<_, Option<i64>>("status")?.and_then(|status| u16::try_from(status).ok()),
        request: row.try_get("request_id")?,
    })
}
