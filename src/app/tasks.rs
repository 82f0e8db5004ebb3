//! Spawning of tasks that end with the server.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Spawns a task that holds a handle on the writer. It ends when `stopping` is cancelled, because the writer must end before the
/// tasks that it uses.
pub(super) fn spawn_until(
    stopping: &CancellationToken,
    tasks: &mut JoinSet<()>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let stopping = stopping.clone();
    tasks.spawn(async move { stopping.run_until_cancelled(task).await.unwrap_or(()) });
}
