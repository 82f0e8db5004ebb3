//! The tasks of a running server, and the order in which they stop.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::{JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::AppError;
use super::records::Records;
use crate::domain::Sharded;
use crate::http::Api;
use crate::serving::Shutdown;
use crate::store::Store;
use crate::traces::Traces;
use crate::writer::Notifier;

/// How long requests in progress, and the tasks behind them, have to finish during a shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The tasks of a running server. The end of any of them is an error until the server stops.
pub(super) struct Running {
    pub(super) server: JoinHandle<()>,
    pub(super) writer: JoinHandle<()>,
    pub(super) webhooks: JoinHandle<()>,
    pub(super) push: JoinHandle<()>,
    pub(super) background: JoinSet<()>,
    pub(super) shutdown: Shutdown,
    pub(super) stopping: CancellationToken,
}

/// What the tasks leave behind, to be sent before the server ends.
pub(super) struct Pending {
    pub(super) stores: Arc<Sharded<Arc<Store>>>,
    pub(super) notifiers: Sharded<Arc<Notifier>>,
    pub(super) records: Records,
    pub(super) traces: Arc<Traces>,
}

impl Running {
    /// Waits until a task ends, and returns that as an error.
    pub(super) async fn failed(&mut self) -> AppError {
        AppError::Task(tokio::select! {
            Some(ended) = self.background.join_next() => task_result(&ended),
            ended = &mut self.webhooks => format!("webhooks: {}", task_result(&ended)),
            ended = &mut self.push => format!("Web Push: {}", task_result(&ended)),
            ended = &mut self.writer => format!("the writer: {}", task_result(&ended)),
            ended = &mut self.server => task_result(&ended),
        })
    }

    /// Stops the tasks in order: connections, the writer, deliveries, the background tasks. `api` holds the last handle on the writer.
    pub(super) async fn stop(mut self, api: Arc<Api>, pending: Pending) {
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        // Streams and polls end first, because a graceful shutdown of the connections waits for them.
        self.stopping.cancel();
        self.shutdown.graceful.cancel();
        if !ends(&mut self.server, deadline - Duration::from_secs(2), "connections").await {
            self.shutdown.immediate.cancel();
            drop(timeout_at(deadline - Duration::from_secs(1), self.server).await);
        }
        // Without a handle the writer commits its queued commands, and ends.
        drop(api);
        ends(&mut self.writer, deadline, "the writer").await;
        ends(&mut self.webhooks, deadline, "webhook deliveries").await;
        ends(&mut self.push, deadline, "Web Push").await;
        // The other replicas may not have been notified of the last commits yet.
        let Pending { stores, notifiers, records, traces } = pending;
        let flushing = stores.iter().zip(notifiers.iter()).map(|(store, notifier)| notifier.flush(store));
        drop(timeout_at(deadline, join_all(flushing)).await);
        records.flush(&stores, deadline).await;
        self.background.shutdown().await;
        drop(spawn_blocking(move || traces.shutdown()).await);
    }
}

/// Waits for the end of a task, and returns whether it has ended before `deadline`.
async fn ends(task: &mut JoinHandle<()>, deadline: Instant, name: &str) -> bool {
    // A handle must not be polled again after its task's end.
    let has_ended = task.is_finished() || timeout_at(deadline, task).await.is_ok();
    if !has_ended {
        tracing::warn!("shutdown timed out for {name}; the shutdown continues");
    }
    has_ended
}

fn task_result(ended: &Result<(), JoinError>) -> String {
    ended.as_ref().map_or_else(ToString::to_string, |()| "it returned".to_owned())
}
