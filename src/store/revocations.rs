//! Revocations of users' tokens.

use jiff::Timestamp;

use super::pool::Store;
use super::rows::user_id;
use super::{StoreError, sql};
use crate::domain::{Time, UserId};

/// A revocation: tokens of a user that were issued until a time are no longer valid.
#[derive(Debug, Clone)]
pub struct Revocation {
    /// The user.
    pub user: UserId,
    /// Tokens issued until then are revoked.
    pub at: Time,
    /// Grows with each revocation.
    pub version: i64,
}

impl Store {
    /// Revokes a user's tokens, and returns until which issue time.
    pub async fn revoke(&self, user: &UserId) -> Result<Time, StoreError> {
        let session = self.session().await?;
        session.may_commit();
        let rows = session.query(sql::REVOCATIONS_PUT, &[&user.as_str()]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("no revocation"))?;
        Ok(row.try_get::<_, Timestamp>("revoked_at")?.into())
    }

    /// Returns the revocations that may be newer than a version.
    pub async fn newer_revocations(&self, version: i64) -> Result<Vec<Revocation>, StoreError> {
        let rows = self.read(sql::REVOCATIONS_NEWER, &[&version]).await?;
        let revocation = |row: &tokio_postgres::Row| {
            let (user, version) = (user_id(row.try_get("user_id")?)?, row.try_get("version")?);
            Ok(Revocation { user, at: row.try_get::<_, Timestamp>("revoked_at")?.into(), version })
        };
        rows.iter().map(revocation).collect()
    }
}
