//! A primary that dies, and its standby that takes over.

use std::sync::atomic::Ordering;

use tokio::time::sleep;

use crate::load::{Load, SENDING};
use crate::one_at_a_time;
use crate::support::{Cluster, Server, Standby, eventually};
use crate::world::replicas;

/// With a synchronous standby and an address of both (`host=a,b target_session_attrs=read-write`), a failover is an outage
/// like any other: nothing that was acknowledged is missing, and streams stay open over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_standby_takes_over() {
    let _turn = one_at_a_time().await;
    let mut primary = Cluster::own().await;
    let standby = Standby::of(&primary.database()).await;
    let database = standby.or(&primary.database());
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let load = Load::start(replicas(&one, &two)).await;
    let answers = load.answers();
    let outcome = load
        .run(&database, async {
            sleep(SENDING / 4).await;
            primary.stop_immediate().await;
            // Nobody takes writes, until somebody has been told so.
            eventually("a send is put off", async || (answers.unavailable.load(Ordering::Relaxed) > 0).then_some(()))
                .await;
            standby.promote().await;
        })
        .await;
    assert_eq!(outcome.reopened, 0, "streams stay open");
}
