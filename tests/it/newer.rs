//! Replicas of a newer version on the same database, as while a deployment rolls.

use serde_json::json;

use crate::support::{Database, Server, data_types};

/// What a newer replica would have committed: an event of a type that is not known here.
async fn commit_unknown(database: &Database, ride: &str) {
    let commit = "with head as (update topics set last_seq = last_seq + 1 where name = $1 returning last_seq)
        insert into events (topic, seq, type, data, created_at)
        select $1, last_seq, 'ride:shared', '{\"with\":\"somebody\"}', now() from head";
    database.client().await.execute(commit, &[&format!("ride/{ride}")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_only_a_newer_version_knows_is_handed_out_as_it_is() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut live = server.live(&driver, "ride").await;
    let mut all = driver.stream_all("types=ride:shared,message:new", None).await;
    all.next_sync().await;

    rider.send("ride", "before").await;
    commit_unknown(&database, "ride").await;
    let shared = live.find("ride:shared").await;
    assert_eq!(shared.data, json!({"with": "somebody"}));
    rider.send("ride", "after").await;
    assert_eq!(live.find("message:new").await.seq(), shared.seq() + 1);
    for kind in ["message:new", "ride:shared", "message:new"] {
        assert_eq!(all.next_event().await.kind, kind);
    }

    let replayed = rider.poll("ride", "after=0&wait=0").await;
    let types = ["ride:participants", "message:new", "ride:shared", "message:new"];
    assert_eq!(data_types(&replayed["events"])[..4], types);
    let shared = rider.poll("ride", "after=0&wait=0&types=ride:sh*").await;
    assert_eq!(data_types(&shared["events"]), ["ride:shared"]);
    assert_eq!(rider.history("ride", "").await["messages"].as_array().unwrap().len(), 2);
}
