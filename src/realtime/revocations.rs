//! Revoked logins. Every replica caches all of them in memory.
//!
//! The table is authoritative. A replica reads new revocations when it starts, when a hint announces them, and with each fallback poll.
//! So a revocation whose hint is lost takes effect at the next fallback poll at the latest.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{Caller, Time, UserId};
use crate::store::{Store, StoreError};

/// The revocations that this replica has read.
#[derive(Debug)]
pub struct Revocations {
    cached: RwLock<HashMap<UserId, Time>>,
    /// The version of the newest revocation.
    version: watch::Sender<i64>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { cached: RwLock::default(), version: watch::Sender::new(0) }
    }
}

impl Revocations {
    /// Reads revocations that are newer than the cached ones.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let version = *self.version.borrow();
        let newer = store.newer_revocations(version).await?;
        let Some(latest) = newer.iter().map(|revocation| revocation.version).max() else { return Ok(()) };
        let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
        let mut has_changed = false;
        for revocation in newer {
            if cached.get(&revocation.user).is_none_or(|at| *at < revocation.at) {
                cached.insert(revocation.user, revocation.at);
                has_changed = true;
            }
        }
        drop(cached);
        // Waiters are also notified if the version stays the same: a revocation that was committed late may be older than the newest one.
        self.version.send_if_modified(|version| {
            *version = latest.max(*version);
            has_changed
        });
        Ok(())
    }

    /// Returns whether a login was revoked after it was issued. A login without an issue time counts as older than the revocation. So does
    /// a login of the same second, because most tokens have whole seconds only. If the issuer's clock is `ahead`, the login may be older by
    /// that much than it states.
    pub fn is_revoked(&self, caller: &Caller, ahead: Duration) -> bool {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        let is_older = |revoked_at: Time| caller.issued_at.is_none_or(|at| at <= revoked_at.plus(ahead));
        cached.get(&caller.user).is_some_and(|revoked_at| is_older(*revoked_at))
    }

    /// Returns a watch of the revocations. It changes after [`Self::is_revoked`] does.
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.version.subscribe()
    }
}
