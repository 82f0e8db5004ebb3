//! What the tests stand on: a real Postgres, real servers as processes of their own, and clients that believe
//! nothing.
//!
//! | | |
//! |---|---|
//! | [`Cluster`] | a private Postgres: one for the whole test process, or one for a single test |
//! | [`Database`] | a migrated database of one's own, since NOTIFY is per database |
//! | [`Standby`] | a standby of it, to be promoted |
//! | [`SecurePostgres`] | one that is reached over TLS alone |
//! | [`Server`] | a running `ridewire`; several on one database are replicas |
//! | [`User`] | somebody with a token, at one server |
//! | [`Receiver`] | a receiver of webhooks |
//! | [`Stream`] | an open event stream, parsed strictly |
//!
//! Nothing sleeps for a while and hopes: everything waits for what it expects, and gives up loudly. No limit of a test
//! depends on how fast the machine is; `docs/testing.md` says how.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "for tests, which end at the first surprise; no test binary uses all of it"
)]

mod answer;
mod balancer;
mod bouncer;
mod certificate;
mod clock;
mod cluster;
mod frames;
mod guard;
mod locks;
mod receiver;
mod secure;
mod server;
mod sse;
mod standby;
mod stream;
mod user;

use std::time::Duration;

pub use answer::Answer;
pub use balancer::{Balancer, Kind};
pub use bouncer::Bouncer;
pub use certificate::Certificate;
pub use clock::clock_ahead;
pub use cluster::{Cluster, Database};
pub use frames::Frames;
pub use locks::{hold, lock, lock_topic, until_waiting};
pub use receiver::{Received, Receiver, Reply, assert_in_order, tls_for_localhost};
pub use secure::SecurePostgres;
pub use server::{SECRET, Server, ridewire};
pub use sse::{Item, Parser};
pub use standby::Standby;
pub use stream::{Event, Stream};
pub use user::{Role, User, data_types, raw_token};

/// How long a test waits for anything before it gives up. It costs time only where a test fails, so it is far longer than
/// the busiest machine takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `check` says `Some`, asking again and again.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, Duration::from_millis(10), what, check).await
}

/// The same for what may take its time, asking after each `pause`: asking is work for the server, too.
pub async fn eventually_within<T>(
    patience: Duration,
    pause: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let waiting = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::time::timeout(patience, waiting).await.unwrap_or_else(|_| panic!("gave up waiting: {what}"))
}

/// Does something that must be done before a limit of the product's own clock has passed, such as the end of a token's life:
/// where the machine was too slow (`None`), once more with a longer limit.
pub async fn within_a_limit<T>(what: &str, attempt: impl AsyncFn(Duration) -> Option<T>) -> T {
    for seconds in [2, 4, 8, 16, 32, 64] {
        if let Some(done) = attempt(Duration::from_secs(seconds)).await {
            return done;
        }
    }
    panic!("too slow: {what}")
}
