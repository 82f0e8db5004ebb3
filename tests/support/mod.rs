//! The test harness: a real Postgres, servers as separate processes, and clients that check everything they receive.
//!
//! | | |
//! |---|---|
//! | [`Cluster`] | a private Postgres: shared by the test process, or dedicated to one test |
//! | [`Database`] | a migrated database per test, because NOTIFY is per database |
//! | [`Standby`] | a standby of a dedicated Postgres, which a test can promote |
//! | [`PatroniCluster`] | a primary and two standbys that Patroni manages |
//! | [`TlsPostgres`] | a Postgres that accepts connections over TLS only |
//! | [`Server`] | a running `ridewire`; several on one database are replicas |
//! | [`User`] | a client with a token, for one server |
//! | [`Receiver`] | a receiver of webhooks |
//! | [`Stream`] | an open event stream with a strict parser |
//!
//! No test sleeps for a fixed time: each test waits for the expected condition and fails after [`TIMEOUT`]. No limit of a test
//! depends on the speed of the machine; `docs/explanation/testing.md` describes the rules.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first unexpected value; no test binary uses the whole harness"
)]

mod balancer;
mod certificate;
mod clock;
mod cluster;
mod frames;
mod guard;
mod locks;
mod patroni;
mod pgbouncer;
mod receiver;
mod response;
mod server;
mod sse;
mod standby;
mod stream;
mod tls_postgres;
mod user;

use std::iter::Cycle;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

pub use balancer::{Balancer, Kind};
pub use certificate::Certificate;
pub use clock::clock_ahead;
pub use cluster::{Cluster, Database};
pub use frames::Frames;
pub use locks::{block_message_insert, lock_ride, lock_topic, until_waiting_for_locks};
pub use patroni::{NodeFault, PatroniCluster};
pub use pgbouncer::PgBouncer;
pub use receiver::{Received, Receiver, Reply, assert_in_order, tls_for_localhost};
pub use response::Response;
pub use server::{SECRET, Server, program, ridewire};
pub use sse::{Item, Parser};
pub use standby::{Standby, postgres_programs};
pub use stream::{Event, Stream};
pub use tls_postgres::TlsPostgres;
pub use user::{Role, User, data_types, raw_token};

/// How long a test waits for a condition before it fails. The timeout costs time only when a test fails. It is therefore much
/// longer than a busy machine needs.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns ports that are free now, and other ones in each call.
///
/// Linux gives none of them to outgoing connections. One of those could take the port before a program binds it, or while the
/// program restarts.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    const PORTS: RangeInclusive<u16> = 10_000..=32_000;
    static NEXT: LazyLock<Mutex<Cycle<RangeInclusive<u16>>>> = LazyLock::new(|| {
        let mut ports = PORTS.cycle();
        // Another test process starts elsewhere.
        ports.nth(fastrand::usize(..PORTS.len()));
        Mutex::new(ports)
    });
    let mut next = NEXT.lock().expect("no panic");
    let mut free = next.by_ref().filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    [(); COUNT].map(|()| free.next().expect("an endless iterator"))
}

/// Polls `check` until it returns `Some`, and returns the value. Panics after [`TIMEOUT`].
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(TIMEOUT, Duration::from_millis(10), what, check).await
}

/// Like [`eventually`], with another timeout and `pause` between polls. A longer pause puts less load on the server.
pub async fn eventually_within<T>(
    timeout: Duration,
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
    tokio::time::timeout(timeout, waiting).await.unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// Runs an attempt that must finish before a time limit of the server has passed, such as a token's expiry. An attempt that
/// was too slow returns `None`; it is repeated with a longer limit.
pub async fn retry_with_longer_limit<T>(what: &str, attempt: impl AsyncFn(Duration) -> Option<T>) -> T {
    for seconds in [2, 4, 8, 16, 32, 64] {
        if let Some(done) = attempt(Duration::from_secs(seconds)).await {
            return done;
        }
    }
    panic!("too slow: {what}")
}
