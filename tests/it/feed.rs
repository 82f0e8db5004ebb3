//! The feed: all durable events of all rides and users in one order.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User, eventually};

/// Disables `message:undelivered` events, which these tests do not expect.
const NO_PUSH: (&str, &str) = ("RIDEWIRE_PUSH_AFTER", "0s");

async fn start(database: &Database) -> Server {
    Server::start_with(database, &[NO_PUSH]).await
}

/// Polls the feed.
async fn poll(service: &User, query: &str) -> Value {
    service.get(&format!("feed/poll?{query}")).await.expect(200).json()
}

async fn stream(service: &User, query: &str, last_id: Option<&str>) -> Stream {
    let mut request = service.request(Method::GET, &format!("feed?{query}"));
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    Stream::open(request).await.expect(200)
}

/// Polls from a cursor until `count` events have arrived. Returns the events and the last cursor.
async fn read(service: &User, after: &str, count: usize, limit: usize) -> (Vec<Value>, String) {
    let (mut events, mut cursor) = (Vec::new(), after.to_owned());
    while events.len() < count {
        let page = poll(service, &format!("after={cursor}&wait=5&limit={limit}")).await;
        assert_eq!((&page["resumed"], &page["gap"]), (&json!(true), &Value::Null), "{page}");
        let found = page["events"].as_array().unwrap();
        assert!(found.len() <= limit, "{page}");
        events.extend(found.iter().cloned());
        cursor = page["cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!(events.len(), count);
    (events, cursor)
}

/// Returns the seqs of each topic in the order of the feed.
fn by_topic(events: &[Value]) -> BTreeMap<String, Vec<i64>> {
    let mut topics = BTreeMap::<_, Vec<_>>::new();
    for event in events {
        let topic = event["data"]["topic"].as_str().unwrap().to_owned();
        topics.entry(topic).or_default().push(event["data"]["seq"].as_i64().unwrap());
    }
    topics
}

/// Returns the seqs of each topic's log.
async fn logs(database: &Database) -> BTreeMap<String, Vec<i64>> {
    let query = "select topic, array_agg(seq order by seq) from events group by topic";
    let rows = database.client().await.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_has_every_event_of_rides_and_users() {
    let database = Database::create().await;
    let server = start(&database).await;
    let service = server.service();
    let begin = poll(&service, "").await;
    assert_eq!(begin["events"], json!([]), "{begin}");
    let mut live = stream(&service, "", None).await;
    let sync = live.next_sync().await;
    assert_eq!(sync, json!({ "cursor": begin["cursor"], "resumed": false, "gap": null }));

    let (rider, driver) = server.open_ride("ride_1").await;
    let hello = rider.send("ride_1", "Hello").await;
    driver.mark(&hello, "read").await.expect(200);
    service.broadcast(&["rider_1"], json!({ "text": "Rain" })).await.expect(202);

    let count = logs(&database).await.values().map(Vec::len).sum();
    let (events, cursor) = read(&service, begin["cursor"].as_str().unwrap(), count, 500).await;
    assert_eq!(by_topic(&events), logs(&database).await);
    let sent = events.iter().find(|event| event["type"] == "message:new").unwrap();
    let data = &sent["data"];
    assert_eq!((&data["topic"], &data["seq"], &data["data"]), (&json!("ride/ride_1"), &hello["seq"], &hello));
    assert_eq!(data["at"], hello["createdAt"]);
    for event in &events {
        let streamed = live.next_event().await;
        assert_eq!((json!(streamed.id), json!(streamed.kind), &streamed.data), {
            (json!(event["id"].as_str()), event["type"].clone(), &event["data"])
        });
    }
    // A poll at the end waits, and the next event wakes it.
    let query = format!("after={cursor}&wait=20");
    let (page, _) = tokio::join!(poll(&service, &query), rider.send("ride_1", "More"));
    assert_eq!(page["events"][0]["data"]["data"]["content"], "More", "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_filtering_and_limits_work_as_on_a_ride() {
    let database = Database::create().await;
    let server = start(&database).await;
    let service = server.service();
    let (rider, driver) = server.open_ride("ride_1").await;
    for n in 0..6 {
        rider.send("ride_1", &format!("{n}")).await;
    }
    driver.post_empty("rides/ride_1/cancel").await.expect(200);
    let count: usize = logs(&database).await.values().map(Vec::len).sum();
    let (all, end) = read(&service, "0", count, 500).await;
    let (in_twos, _) = read(&service, "0", count, 2).await;
    assert_eq!(all, in_twos);

    let third = all[2]["id"].as_str().unwrap();
    let mut resumed = stream(&service, "after=0", Some(third)).await;
    assert_eq!(resumed.next_sync().await, json!({ "cursor": third, "resumed": true, "gap": null }));
    for event in &all[3..] {
        assert_eq!(resumed.next_event().await.data, event["data"]);
    }
    let page = poll(&service, "after=0&wait=0&types=ride:cancel").await;
    let found: Vec<_> = page["events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!((found, &page["cursor"]), (vec![&json!("ride:cancel")], &json!(end)));
    // A cursor past the end belongs to another database.
    let page = poll(&service, "after=1000000&wait=0").await;
    assert_eq!((&page["resumed"], &page["cursor"], &page["events"]), (&json!(false), &json!(end), &json!([])));

    for wrong in ["after=x", "after=", "after=-1", "limit=0", "limit=501", "wait=56", "before=1"] {
        service.get(&format!("feed/poll?{wrong}")).await.problem(400, "invalid_request");
    }
    for other in [rider, driver, server.support()] {
        other.get("feed").await.problem(403, "forbidden");
        other.get("feed/poll").await.problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_deleted_before_it_is_read_is_erased_on_the_feed() {
    let database = Database::create().await;
    let (one, two) = (start(&database).await, start(&database).await);
    let (rider, _) = one.open_ride("ride_1").await;
    let service = one.service();
    // A stream keeps the feed in the memory of both replicas.
    let mut streams = Vec::new();
    for server in [&one, &two] {
        streams.push(stream(&service.on(server), "after=0", None).await);
    }
    let secret = rider.send("ride_1", "a secret").await;
    rider.delete_message(&secret).await.expect(204);
    for stream in &mut streams {
        stream.next_sync().await;
        stream.find("message:deleted").await;
    }
    for server in [&one, &two] {
        let page = poll(&service.on(server), "after=0&wait=0").await;
        assert!(!page.to_string().contains("a secret"), "{page}");
        let count: usize = logs(&database).await.values().map(Vec::len).sum();
        assert_eq!(page["events"].as_array().unwrap().len(), count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_is_complete_and_in_order_although_replicas_are_killed() {
    let database = Database::create().await;
    let running = Server::start_with(&database, &[NO_PUSH, ("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    let service = running.service();
    for round in 0..4 {
        let killed = start(&database).await;
        let mut senders = Vec::new();
        for n in 0..3 {
            let ride = format!("ride_{round}_{n}");
            let rider = running.open_ride(&ride).await.0;
            senders.push((rider.on(&killed), ride.clone()));
            senders.push((rider, ride));
        }
        let sends = senders.iter().map(async |(rider, ride)| {
            for n in 0..20 {
                // The last sends to the killed replica fail.
                let body = json!({ "rideId": ride, "content": n.to_string() });
                let request = rider.request(Method::POST, "messages").json(&body);
                if request.send().await.is_err() {
                    break;
                }
            }
        });
        tokio::join!(futures_util::future::join_all(sends), async {
            let is_under_way = async || (database.head(&format!("ride_{round}_0")).await > 8).then_some(());
            eventually("sends", is_under_way).await;
            killed.kill().await;
        });
    }
    let logs = logs(&database).await;
    let count = logs.values().map(Vec::len).sum();
    let (events, _) = read(&service, "0", count, 500).await;
    assert_eq!(by_topic(&events), logs, "each ride's events in order, each once");
    let query = "select position from feed_entries(0, 1000000) order by position";
    let rows = database.client().await.query(query, &[]).await.unwrap();
    let positions: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(positions, (1..=i64::try_from(count).unwrap()).collect::<Vec<_>>(), "the positions have no gaps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_feed_events_are_reported_as_a_gap() {
    let database = Database::create().await;
    let settings = [NO_PUSH, ("RIDEWIRE_FEED_RETENTION", "2s"), ("RIDEWIRE_RETENTION_PERIOD", "100ms")];
    let server = Server::start_with(&database, &settings).await;
    let service = server.service();
    server.open_ride("ride_1").await;
    let count: i64 = logs(&database).await.values().map(|log| i64::try_from(log.len()).unwrap()).sum();
    let client = database.client().await;
    eventually("the feed is trimmed", async || {
        // In this order: entries that are relayed between the two statements are not trimmed yet.
        let head = client.query_one("select last_seq from topics where name = 'feed'", &[]).await.unwrap();
        let rows = client.query("select from feed_entries(0, 1000)", &[]).await.unwrap();
        (rows.is_empty() && head.get::<_, i64>(0) == count).then_some(())
    })
    .await;
    let gap = json!({ "from": 1, "to": count });
    let page = poll(&service, "after=0&wait=0").await;
    assert_eq!((&page["gap"], &page["resumed"], &page["cursor"]), (&gap, &json!(false), &json!(count.to_string())));
    let sync = stream(&service, "after=0", None).await.next_sync().await;
    assert_eq!(sync, json!({ "cursor": count.to_string(), "resumed": false, "gap": gap }));
    // The feed continues after the gap, with the right position.
    server.open_ride("ride_2").await;
    let page = poll(&service, &format!("after={count}&wait=20")).await;
    assert_eq!(page["events"][0]["id"], (count + 1).to_string(), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_feed_returns_404_and_records_no_batches() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_FEED", "off")]).await;
    server.open_ride("ride_1").await;
    server.service().get("feed").await.problem(404, "not_found");
    server.service().get("feed/poll").await.problem(404, "not_found");
    let rows = database.client().await.query("select from feed_batches", &[]).await.unwrap();
    assert!(rows.is_empty(), "no batch is recorded for the feed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_message_is_in_the_next_feed_poll() {
    let database = Database::create().await;
    let server = start(&database).await;
    let service = server.service();
    let (rider, _) = server.open_ride("ride_1").await;
    let mut cursor = poll(&service, "").await["cursor"].as_str().unwrap().to_owned();
    for n in 0..20 {
        let sent = rider.send("ride_1", &n.to_string()).await;
        let page = poll(&service, &format!("after={cursor}&wait=0")).await;
        assert_eq!(page["events"][0]["data"]["data"], sent, "{page}");
        cursor = page["cursor"].as_str().unwrap().to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feed_pages_limited_by_bytes_are_complete() {
    let database = Database::create().await;
    let server = start(&database).await;
    let service = server.service();
    let (rider, _) = server.open_ride("ride_1").await;
    let begin = poll(&service, "").await["cursor"].as_str().unwrap().to_owned();
    let long = "\u{1f600}".repeat(3_900);
    for n in 0..60 {
        rider.send("ride_1", &format!("{n} {long}")).await;
    }
    for query in ["wait=0", "wait=0&types=message:new"] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), begin.clone(), 0);
        loop {
            let page = poll(&service, &format!("after={cursor}&{query}")).await;
            let contents = page["events"].as_array().unwrap().iter().map(|event| &event["data"]["data"]["content"]);
            found.extend(contents.map(|content| content.as_str().unwrap().split(' ').next().unwrap().to_owned()));
            cursor = page["cursor"].as_str().unwrap().to_owned();
            pages += 1;
            if page["hasMore"] == json!(false) {
                break;
            }
        }
        assert!(pages > 2, "{pages}");
        assert_eq!(found, (0..60).map(|n| n.to_string()).collect::<Vec<_>>(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_behind_many_expired_ones_are_not_skipped() {
    let database = Database::create().await;
    let server = start(&database).await;
    let service = server.service();
    let (rider, _) = server.open_ride("ride_1").await;
    for n in 0..110 {
        rider.send("ride_1", &n.to_string()).await;
    }
    let (_, end) = read(&service, "0", logs(&database).await.values().map(Vec::len).sum(), 500).await;
    // The retention of logs deletes the events before the retention of the feed deletes their entries.
    database.client().await.execute("delete from events", &[]).await.unwrap();
    let last = rider.send("ride_1", "the last one").await;
    let other = start(&database).await;
    for server in [&server, &other] {
        let service = service.on(server);
        // A page has at most 100 events.
        let page = poll(&service, "after=0&wait=5&limit=10").await;
        assert_eq!(page["gap"], json!({ "from": 1, "to": end.parse::<i64>().unwrap() }), "{page}");
        assert_eq!(page["events"][0]["data"]["data"], last, "{page}");
    }
}
