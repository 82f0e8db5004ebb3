//! Users whose logins were revoked.

use jiff::Timestamp;

use super::pool::Store;
use super::rows::user_id;
use super::{StoreError, sql};
use crate::domain::{Time, UserId};

/// Logins of a user that were issued until a moment count no longer.
#[derive(Debug, Clone)]
pub struct Revocation {
    /// Whose.
    pub user: UserId,
    /// Until when.
    pub at: Time,
    /// Grows with each.
    pub version: i64,
}

impl Store {
    /// Revokes a user's logins, and says as of when.
    pub async fn revoke(&self, user: &UserId) -> Result<Time, StoreError> {
        let session = self.session().await?;
        session.may_commit();
        let rows = session.query(sql::REVOCATIONS_PUT, &[&user.as_str()]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("no revocation"))?;
        Ok(row.try_get::<_, Timestamp>("revoked_at")?.into())
    }

    /// Those that may be newer than a version.
    pub async fn newer_revocations(&self, version: i64) -> Result<Vec<Revocation>, StoreError> {
        let rows = self.read(sql::REVOCATIONS_NEWER, &[&version]).await?;
        let revocation = |row: &tokio_postgres::Row| {
            let (user, version) = (user_id(row.try_get("user_id")?)?, row.try_get("version")?);
            Ok(Revocation { user, at: row.try_get::<_, Timestamp>("revoked_at")?.into(), version })
        };
        rows.iter().map(revocation).collect()
    }
}
