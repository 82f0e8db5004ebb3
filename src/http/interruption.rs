//! What ends an open stream or poll early: the server stops or drains, or the caller's token is rejected.
//!
//! Each of these conditions has a watch of its own. Streams and polls wait for a single watch, which changes after any of the others. So an
//! open stream is in one list of waiters instead of four.
//!
//! No change is missed: a waiter subscribes before it checks the conditions, and a condition changes before that is announced.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use crate::auth::{TokenError, Verifier};
use crate::domain::Caller;
use crate::realtime::Revocations;

/// Announces to streams and polls that a condition has changed which may end them.
#[derive(Debug)]
pub struct Interruptions {
    stopping: CancellationToken,
    admission: Arc<Admission>,
    revocations: Arc<Revocations>,
    verifier: Arc<Verifier>,
    changed: watch::Sender<()>,
}

/// Why a stream or poll ends early.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The server stops. The stream or poll must end now.
    Stopping,
    /// The server drains. The stream or poll must end at the time that [`Admission::drain_deadline`] returns.
    Draining,
    /// The login was revoked, or the key of the token was withdrawn.
    Rejected(TokenError),
}

impl Interruptions {
    /// Cancelling `stopping` ends all open streams and polls.
    pub fn new(
        stopping: CancellationToken,
        admission: Arc<Admission>,
        revocations: Arc<Revocations>,
        verifier: Arc<Verifier>,
    ) -> Self {
        Self { stopping, admission, revocations, verifier, changed: watch::Sender::new(()) }
    }

    /// Announces each change, forever.
    pub async fn run(&self) {
        let (mut drain, mut revocations) = (self.admission.drain_changes(), self.revocations.changes());
        let mut keys = self.verifier.key_changes();
        let mut is_stopping = self.stopping.is_cancelled();
        loop {
            // At first, this announces what has changed before the subscriptions.
            self.changed.send_replace(());
            let key_change = async {
                match &mut keys {
                    Some(keys) => drop(keys.changed().await),
                    None => std::future::pending().await,
                }
            };
            // `self` owns the senders, so `changed` cannot fail.
            tokio::select! {
                () = self.stopping.cancelled(), if !is_stopping => is_stopping = true,
                _ = drain.changed() => {}
                _ = revocations.changed() => {}
                () = key_change => {}
            }
        }
    }

    /// Waits until a stream or poll of `caller` must end. With `ignores_drain`, the drain does not count.
    pub(super) async fn wait(&self, caller: &Caller, ignores_drain: bool) -> Interruption {
        let mut changes = self.changed.subscribe();
        loop {
            match self.current(caller) {
                None => {}
                Some(Interruption::Draining) if ignores_drain => {}
                Some(interruption) => return interruption,
            }
            // `self` owns the sender, so this cannot fail.
            let _ = changes.changed().await;
        }
    }

    fn current(&self, caller: &Caller) -> Option<Interruption> {
        if self.stopping.is_cancelled() {
            Some(Interruption::Stopping)
        } else if self.revocations.is_revoked(caller, self.verifier.clock_skew()) {
            Some(Interruption::Rejected(TokenError::Revoked))
        } else if !self.verifier.has_key_of(caller) {
            Some(Interruption::Rejected(TokenError::UnknownKey))
        } else {
            self.admission.is_draining().then_some(Interruption::Draining)
        }
    }
}
