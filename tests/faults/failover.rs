//! Failover from a primary to its synchronous standby.

use crate::fixtures::replicas;
use crate::limit_heavy_tests;
use crate::load::Load;
use crate::support::{Cluster, Server, Standby};

/// Senders get a 503 soon.
const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_DATABASE_TIMEOUT", "2s")];

/// A synchronous standby and a `DATABASE_URL` with both hosts (`host=a,b target_session_attrs=read-write`).
///
/// The failover is then an outage like any other. No acknowledged message is lost, and streams stay open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_a_failover_to_a_synchronous_standby() {
    let _permit = limit_heavy_tests().await;
    let mut primary = Cluster::dedicated().await;
    let standby = Standby::of(&primary.database()).await;
    let database = standby.with_primary(&primary.database());
    let (one, two) = (Server::start_with(&database, &SETTINGS).await, Server::start_with(&database, &SETTINGS).await);
    let load = Load::start(replicas(&one, &two)).await;
    let responses = load.responses();
    let outcome = load
        .run(&database, async {
            responses.wait_for_more(700).await;
            primary.stop_immediate().await;
            // The standby stays read-only until at least one send gets a 503.
            responses.wait_for_unavailable().await;
            standby.promote().await;
            responses.wait_for_more(700).await;
        })
        .await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
}
