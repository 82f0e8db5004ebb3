//! Connections whose statement nobody waits for any more.
//!
//! A closed connection does not end its statement: Postgres notices only when it has something to send. So it is asked to
//! cancel. Until then the connection keeps its place in the pool: there are never more backends than places, whatever
//! they wait for.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::{Pool, Prepared};

/// How long a statement may go on by itself when nobody waits for it, and how long one that was cancelled has to end. To close
/// a connection for less would cost more than it saves.
const GRACE: Duration = Duration::from_millis(100);

impl Pool {
    /// Puts a connection back that still works on something, once it has done it; or has it cancelled, if that may be.
    pub(super) fn settle(&self, object: Object, may_cancel: bool) {
        self.spawn(async move |pool| match timeout(GRACE, object.batch_execute("")).await {
            Ok(Ok(())) => drop(object),
            _ if may_cancel => pool.cancel_and_close(object).await,
            _ => drop(Object::take(object)),
        });
    }

    /// Cancels what a connection works on, and closes it.
    pub(super) fn cancel(&self, object: Object) {
        self.spawn(async move |pool| pool.cancel_and_close(object).await);
    }

    async fn cancel_and_close(&self, object: Object) {
        // Never used again: the request may come after its statement has ended, and would hit the next one.
        let token = object.cancel_token();
        match timeout(self.timeouts.response, self.address.cancel(&token)).await {
            Ok(Ok(())) => match self.prepared {
                Prepared::On => drop(timeout(GRACE, object.batch_execute("")).await),
                // A pooler forgets the request with our connection.
                Prepared::Off => sleep(GRACE).await,
            },
            Ok(Err(error)) => tracing::debug!(%error, "a statement could not be cancelled"),
            Err(_) => tracing::debug!("a statement could not be cancelled in time"),
        }
        drop(Object::take(object));
    }

    /// For as long as [`Timeouts::response`](super::Timeouts) at most, and a moment: nobody waits for it to end.
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Self) -> F) {
        // Without a runtime there are no connections any more.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(work(self.clone()));
        }
    }
}
