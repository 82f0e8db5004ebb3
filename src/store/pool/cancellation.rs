//! Connections whose statement has no caller any more.
//!
//! Closing a connection does not end its statement: Postgres notices only when it has something to send. So a cancel
//! request is sent. Until the statement has ended, the connection keeps its slot in the pool. So the number of backends
//! never exceeds the pool's size, even if they wait for locks.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::{Pool, Prepared};

/// The time that a statement without a caller may take before it is cancelled, and that a cancelled one may take to
/// end. Opening a new connection costs more than waiting this long.
const GRACE: Duration = Duration::from_millis(100);

impl Pool {
    /// Returns a connection to the pool after its statement has ended. If that takes too long, the statement is
    /// cancelled if `may_cancel`, and the connection is closed.
    pub(super) fn return_when_idle(&self, object: Object, may_cancel: bool) {
        self.spawn(async move |pool| match timeout(GRACE, object.batch_execute("")).await {
            Ok(Ok(())) => drop(object),
            _ if may_cancel => pool.cancel_and_close(object).await,
            _ => drop(Object::take(object)),
        });
    }

    /// Cancels the statement of a connection, and closes the connection.
    pub(super) fn cancel(&self, object: Object) {
        self.spawn(async move |pool| pool.cancel_and_close(object).await);
    }

    async fn cancel_and_close(&self, object: Object) {
        // The connection is never reused: the cancel request may arrive after the statement has ended, and would hit
        // the next one.
        let token = object.cancel_token();
        match timeout(self.timeouts.response, self.address.cancel(&token)).await {
            Ok(Ok(())) => match self.prepared {
                Prepared::On => drop(timeout(GRACE, object.batch_execute("")).await),
                // A pooler forwards the cancel request only while our connection is open.
                Prepared::Off => sleep(GRACE).await,
            },
            Ok(Err(error)) => tracing::debug!(%error, "a statement could not be cancelled"),
            Err(_) => tracing::debug!("a statement could not be cancelled in time"),
        }
        drop(Object::take(object));
    }

    /// Runs `work` in a task that nothing waits for. It takes little longer than
    /// [`Timeouts::response`](super::Timeouts).
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Self) -> F) {
        // Without a runtime the connections are closed already.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(work(self.clone()));
        }
    }
}
