//! What must hold when things break: with real processes, a real Postgres, and faults that strike on cue.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails where it can"
)]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod checker;
mod commits;
mod crowds;
mod erasure;
mod failover;
mod hostile;
mod in_doubt;
mod load;
mod outages;
mod pooled;
mod promises;
mod proxy;
mod races;
mod senders;
mod soak;
mod soak_feed;
mod soak_webhooks;
mod standby;
mod subscribers;
mod vanished;
mod world;

use tokio::sync::{Semaphore, SemaphorePermit};

/// The tests with many clients and processes take turns, so that they do not starve each other: two at a time, since much of
/// each is waiting.
async fn two_at_a_time() -> SemaphorePermit<'static> {
    static TURNS: Semaphore = Semaphore::const_new(2);
    TURNS.acquire().await.unwrap()
}

/// How much of something there is to be: little in `make test`, all of it in `make soak`.
fn size(short: usize, whole: usize) -> usize {
    if is_soak() { whole } else { short }
}

/// Whether this is `make soak`.
fn is_soak() -> bool {
    std::env::var_os("RIDEWIRE_SOAK").is_some()
}
