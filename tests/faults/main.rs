//! Fault tests: real server processes and a real Postgres, with faults injected at defined points.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails at the first unexpected result"
)]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod checker;
mod commits;
mod erasure;
mod failover;
mod fixtures;
mod guarantees;
mod high_availability;
mod hostile;
mod in_doubt;
mod load;
mod outages;
mod pooled;
mod proxy;
mod races;
mod scale;
mod senders;
mod shard_move;
mod shards;
mod soak;
mod soak_feed;
mod soak_webhooks;
mod standby;
mod subscribers;
mod unreachable_clients;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Limits the tests with many clients and processes to two at a time.
///
/// More would starve each other of CPU. One alone would leave the cores idle, because such a test often waits.
async fn limit_heavy_tests() -> SemaphorePermit<'static> {
    static PERMITS: Semaphore = Semaphore::const_new(2);
    PERMITS.acquire().await.unwrap()
}

/// Returns the size of a load: `short` in `make test`, `whole` in `make soak`.
fn size(short: usize, whole: usize) -> usize {
    if is_soak() { whole } else { short }
}

/// Returns whether this run is `make soak`.
fn is_soak() -> bool {
    std::env::var_os("RIDEWIRE_SOAK").is_some()
}
