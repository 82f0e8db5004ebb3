//! A Postgres cluster that Patroni manages, set up as `docs/how-to/high-availability.md` describes.

use crate::fixtures::replicas;
use crate::limit_heavy_tests;
use crate::load::{Load, Rate};
use crate::support::{NodeFault, PatroniCluster, Server};

/// The default, so that senders get a 503 soon.
const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_DATABASE_TIMEOUT", "2s")];

/// The primary is moved once on request, and fails three times, each time in another way. Then the synchronous standby fails. No
/// acknowledged message is lost, no event arrives twice, and streams stay open. Each old primary returns as a standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_patroni_fails_over_three_times() {
    let _permit = limit_heavy_tests().await;
    let Some(mut cluster) = PatroniCluster::start().await else { return };
    let database = cluster.database();
    let (one, two) = (Server::start_with(&database, &SETTINGS).await, Server::start_with(&database, &SETTINGS).await);
    // A failover takes up to half a minute. At full rate, the logs would become too large to compare.
    let load = Load::start_at(replicas(&one, &two), Rate::Slow).await;
    let responses = load.responses();
    let outcome = load
        .run(&database, async {
            responses.wait_for_more(200).await;
            let (previous, _) = cluster.until_healthy().await;
            responses.take_longest_gap();
            cluster.switch_over().await;
            cluster.until_failed_over(&previous).await;
            responses.wait_for_more(200).await;
            eprintln!("switchover: no writes for {:.1?}", responses.take_longest_gap());
            for fault in [NodeFault::PostgresKilled, NodeFault::Crashed, NodeFault::Frozen] {
                let (primary, _) = cluster.until_healthy().await;
                responses.wait_for_more(200).await;
                responses.take_longest_gap();
                cluster.inject(fault, &primary);
                responses.wait_for_unavailable().await;
                cluster.until_failed_over(&primary).await;
                responses.wait_for_more(200).await;
                eprintln!("{fault:?} primary: no writes for {:.1?}", responses.take_longest_gap());
                cluster.recover(fault, &primary);
            }
            let (_, standby) = cluster.until_healthy().await;
            responses.take_longest_gap();
            cluster.inject(NodeFault::Frozen, &standby);
            responses.wait_for_unavailable().await;
            responses.wait_for_more(200).await;
            eprintln!("frozen synchronous standby: no writes for {:.1?}", responses.take_longest_gap());
            cluster.recover(NodeFault::Frozen, &standby);
            cluster.until_healthy().await;
        })
        .await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
}
