//! The history: pages, `ETag`s, and the transition to a stream.

use serde_json::Value;

use crate::support::{Database, Response, Server, User, eventually};

fn seqs(page: &Value) -> Vec<i64> {
    page["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect()
}

async fn get_if_changed(user: &User, path: &str, etag: &str) -> Response {
    user.execute(user.request(reqwest::Method::GET, path).header("if-none-match", etag)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_can_be_paged_in_both_directions() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for number in 2..=12 {
        rider.send("ride_1", &format!("number {number}")).await;
    }
    let page = async |query: &str| {
        let page = driver.history("ride_1", query).await;
        assert_eq!(page["cursor"], "12");
        (seqs(&page), page["hasMore"].as_bool().unwrap())
    };
    assert_eq!(page("").await, ((2..=12).collect(), false));
    assert_eq!(page("?limit=4").await, (vec![9, 10, 11, 12], true));
    assert_eq!(page("?limit=4&before=9").await, (vec![5, 6, 7, 8], true));
    assert_eq!(page("?limit=4&before=5").await, (vec![2, 3, 4], false));
    assert_eq!(page("?limit=3&before=5").await, (vec![2, 3, 4], false));
    assert_eq!(page("?before=2").await, (vec![], false));
    assert_eq!(page("?limit=4&after=0").await, (vec![2, 3, 4, 5], true));
    assert_eq!(page("?limit=4&after=5").await, (vec![6, 7, 8, 9], true));
    assert_eq!(page("?limit=3&after=9").await, (vec![10, 11, 12], false));
    assert_eq!(page("?after=12").await, (vec![], false));
    assert_eq!(page("?after=9999").await, (vec![], false));
    assert_eq!(page("?limit=200").await.0.len(), 11);
    for wrong in ["limit=0", "limit=-1", "limit=201", "limit=x", "limit=", "before=-1", "after=1e5", "before=1&after=2"]
    {
        driver.get(&format!("messages/rides/ride_1?{wrong}")).await.problem(400, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_page_gets_304_and_a_changed_page_gets_200() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let path = "messages/rides/ride_1";
    let mut etag = String::new();
    let assert_changed = async |etag: &mut String, change: &str| {
        let response = get_if_changed(&driver, path, etag).await.expect(200);
        assert_eq!(response.header("cache-control"), "private, no-cache");
        assert_ne!(response.header("etag"), etag, "{change}");
        etag.replace_range(.., response.header("etag"));
        let unchanged = get_if_changed(&driver.on(&two), path, etag).await.expect(304);
        assert_eq!((unchanged.header("etag"), unchanged.body.len()), (etag.as_str(), 0));
        assert_eq!(unchanged.header("cache-control"), "private, no-cache");
    };
    assert_changed(&mut etag, "the first request").await;
    rider.edit(&sent, "Hello!").await.expect(200);
    assert_changed(&mut etag, "an edit").await;
    driver.mark(&sent, "read").await.expect(200);
    assert_changed(&mut etag, "a receipt").await;
    rider.delete_message(&sent).await.expect(204);
    assert_changed(&mut etag, "a deletion").await;
    rider.send("ride_1", "again").await;
    assert_changed(&mut etag, "a message").await;
    let _watching = two.live_stream(&rider, "ride_1").await;
    eventually("the rider is online", async || {
        let page = driver.history("ride_1", "").await;
        let mut participants = page["participants"].as_array().unwrap().iter();
        participants.any(|entry| entry["userId"] == "rider_1" && entry["online"] == true).then_some(())
    })
    .await;
    assert_changed(&mut etag, "presence").await;
    get_if_changed(&driver, path, &format!("\"other\", W/{etag}")).await.expect(304);
    // The ETag is specific to the reader and the query.
    get_if_changed(&rider, path, &etag).await.expect(200);
    get_if_changed(&driver, &format!("{path}?limit=1"), &etag).await.expect(200);
    get_if_changed(&one.driver("driver_9"), path, &etag).await.problem(404, "ride_not_found");
    one.service().put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    get_if_changed(&driver, path, &etag).await.problem(404, "ride_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_polls_from_the_historys_cursor_have_no_gap_and_no_repeat() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, _) = one.open_ride("ride_1").await;
    // The service creates no receipts, so the log contains only messages.
    let reader = two.service();
    let writer = {
        let rider = rider.clone();
        tokio::spawn(async move {
            for number in 0..150 {
                rider.send("ride_1", &number.to_string()).await;
            }
        })
    };
    for _ in 0..10 {
        let page = reader.history("ride_1", "?limit=200").await;
        let cursor: i64 = page["cursor"].as_str().unwrap().parse().unwrap();
        assert_eq!(seqs(&page), (2..=cursor).collect::<Vec<_>>());
        let mut stream = reader.stream("ride_1", &format!("after={cursor}")).await;
        let sync = stream.next_sync().await;
        assert_eq!((&sync["cursor"], &sync["resumed"]), (&page["cursor"], &Value::Bool(true)));
        if cursor < 145 {
            assert_eq!(stream.next_event().await.seq(), cursor + 1);
            let polled = reader.on(&one).poll("ride_1", &format!("after={cursor}")).await;
            assert_eq!(polled["events"][0]["id"], (cursor + 1).to_string());
        }
    }
    writer.await.unwrap();
}

/// A backup is restored, and the ride's log grows to the same head with other messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_log_with_the_same_head_has_another_etag() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    rider.send("ride_1", "before the backup").await;
    server.terminate().await;
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    eventually("no other session uses the database", async || {
        let count: i64 = database.client().await.query_one(others, &[]).await.unwrap().get(0);
        (count == 0).then_some(())
    })
    .await;
    let restored = database.copy().await;
    let mut pages = Vec::new();
    for (database, content) in [(&database, "lost"), (&restored, "replacement")] {
        let server = Server::start(database).await;
        let rider = rider.on(&server);
        rider.send("ride_1", content).await;
        let page = rider.get("messages/rides/ride_1").await.expect(200);
        pages.push((server, page));
    }
    let [(_, lost), (server, current)] = &pages[..] else { panic!("two databases") };
    assert_eq!(lost.json()["cursor"], current.json()["cursor"], "both logs have the same head");
    assert_ne!(lost.header("etag"), current.header("etag"));
    let rider = rider.on(server);
    let changed = get_if_changed(&rider, "messages/rides/ride_1", lost.header("etag")).await.expect(200);
    assert_eq!(changed.json()["messages"][1]["content"], "replacement");
    get_if_changed(&rider, "messages/rides/ride_1", current.header("etag")).await.expect(304);
}
