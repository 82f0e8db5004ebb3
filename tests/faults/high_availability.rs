//! A Postgres cluster that Patroni manages, set up as `docs/how-to/high-availability.md` describes.

use std::time::Duration;

use tokio::time::Instant;

use crate::fixtures::replicas;
use crate::load::{Load, Rate};
use crate::senders::ResponseCounts;
use crate::support::{PatroniCluster, PrimaryFault, Server};

/// Senders get a 503 soon.
const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_DATABASE_TIMEOUT", "2s")];

/// Returns the time from now until a message is acknowledged, after at least one got a 503.
async fn time_without_writes(responses: &ResponseCounts) -> Duration {
    let began = Instant::now();
    responses.wait_for_unavailable().await;
    responses.wait_for_more(0).await;
    began.elapsed()
}

/// The primary is killed three times, in two ways, and moved once on request. No acknowledged message is lost, no event arrives twice,
/// and streams stay open. Each old primary returns as a standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_patroni_fails_over_three_times() {
    let Some(mut cluster) = PatroniCluster::start().await else { return };
    let database = cluster.database();
    let (one, two) = (Server::start_with(&database, &SETTINGS).await, Server::start_with(&database, &SETTINGS).await);
    // A failover takes up to half a minute. At full rate, the logs would become too large to compare.
    let load = Load::start_at(replicas(&one, &two), Rate::Slow).await;
    let responses = load.responses();
    let outcome = load
        .run(&database, async {
            responses.wait_for_more(200).await;
            let previous = cluster.until_healthy().await;
            let began = Instant::now();
            cluster.switch_over().await;
            cluster.until_failed_over(&previous).await;
            responses.wait_for_more(0).await;
            eprintln!("a switchover took {:.1?}", began.elapsed());
            for fault in [PrimaryFault::PostgresKilled, PrimaryFault::MachineCrashed, PrimaryFault::PostgresKilled] {
                responses.wait_for_more(200).await;
                let previous = cluster.until_healthy().await;
                cluster.inject(fault, &previous);
                eprintln!("{fault:?}: no writes for {:.1?}", time_without_writes(&responses).await);
                cluster.until_failed_over(&previous).await;
                if let PrimaryFault::MachineCrashed = fault {
                    cluster.start_again(&previous);
                }
            }
            cluster.until_healthy().await;
            responses.wait_for_more(200).await;
        })
        .await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
}
