//! Whose logins count no longer: all of them on every replica, in memory.
//!
//! The table is the truth. A replica reads what is new in it when it starts, when a hint says so, and with each look of
//! the fallback; so a revocation that no hint has told of is late by that much and no more.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{Caller, Time, UserId};
use crate::store::{Store, StoreError};

/// The revocations that this replica knows.
#[derive(Debug)]
pub struct Revocations {
    known: RwLock<HashMap<UserId, Time>>,
    /// Of the newest.
    version: watch::Sender<i64>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { known: RwLock::default(), version: watch::Sender::new(0) }
    }
}

impl Revocations {
    /// Reads what is new.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let known = *self.version.borrow();
        let newer = store.newer_revocations(known).await?;
        let Some(latest) = newer.iter().map(|revocation| revocation.version).max() else { return Ok(()) };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut has_changed = false;
        for revocation in newer {
            if known.get(&revocation.user).is_none_or(|at| *at < revocation.at) {
                known.insert(revocation.user, revocation.at);
                has_changed = true;
            }
        }
        drop(known);
        // Told also where the version stays: one that was committed late may be older than the newest.
        self.version.send_if_modified(|version| {
            *version = latest.max(*version);
            has_changed
        });
        Ok(())
    }

    /// Whether a login was revoked after it was issued. One that does not say when it was issued counts as older; one of
    /// the same second as well, since most tokens give no part of it. Where the issuer's clock is `ahead`, a login may be older by
    /// that much than it says.
    pub fn is_revoked(&self, caller: &Caller, ahead: Duration) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_older = |revoked_at: Time| caller.issued_at.is_none_or(|at| at <= revoked_at.plus(ahead));
        known.get(&caller.user).is_some_and(|revoked_at| is_older(*revoked_at))
    }

    /// Waits until a login is revoked.
    pub async fn revoked(&self, caller: &Caller, ahead: impl Fn() -> Duration) {
        let mut changes = self.version.subscribe();
        while !self.is_revoked(caller, ahead()) {
            // The sender lives in `self`, so this cannot fail.
            let _ = changes.changed().await;
        }
    }
}
