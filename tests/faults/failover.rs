//! A primary that dies, and its standby that takes over.

use crate::load::Load;
use crate::support::{Cluster, Server, Standby};
use crate::two_at_a_time;
use crate::world::replicas;

/// Who is put off is told so soon.
const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_DATABASE_TIMEOUT", "2s")];

/// With a synchronous standby and an address of both (`host=a,b target_session_attrs=read-write`), a failover is an outage
/// like any other: nothing that was acknowledged is missing, and streams stay open over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_standby_takes_over() {
    let _turn = two_at_a_time().await;
    let mut primary = Cluster::own().await;
    let standby = Standby::of(&primary.database()).await;
    let database = standby.or(&primary.database());
    let (one, two) = (Server::with(&database, &SETTINGS).await, Server::with(&database, &SETTINGS).await);
    let load = Load::start(replicas(&one, &two)).await;
    let answers = load.answers();
    let outcome = load
        .run(&database, async {
            answers.more(700).await;
            primary.stop_immediate().await;
            // Nobody takes writes, until somebody has been told so.
            answers.another_unavailable().await;
            standby.promote().await;
            answers.more(700).await;
        })
        .await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
}
