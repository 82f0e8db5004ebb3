//! PgBouncer in transaction mode: no prepared statements and no LISTEN.

use serde_json::json;

use crate::support::{Database, PgBouncer, Server, eventually};

/// Starts a server whose connections all go through the pooler.
async fn through(database: &Database, bouncer: &PgBouncer, settings: &[(&str, &str)]) -> Server {
    let pooled = [("DATABASE_URL", bouncer.url.as_str()), ("RIDEWIRE_PREPARED_STATEMENTS", "off")];
    Server::start_with(database, &[&pooled, settings].concat()).await
}

async fn listen_state(server: &Server) -> String {
    let ready =
        reqwest::get(format!("{}/readyz", server.base)).await.unwrap().json::<serde_json::Value>().await.unwrap();
    ready["listen"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_reads_work_through_the_pooler_with_a_direct_listener() {
    let database = Database::create().await;
    let Some(bouncer) = PgBouncer::start(&database).await else { return };
    let direct = [("RIDEWIRE_LISTEN_DATABASE_URL", database.url.as_str())];
    let (server, other) = (through(&database, &bouncer, &direct).await, through(&database, &bouncer, &direct).await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = other.live_stream(&driver, "ride_1").await;
    let sends = (0..200).map(|number| {
        let rider = if number % 2 == 0 { rider.clone() } else { rider.on(&other) };
        tokio::spawn(async move {
            rider.send_with_id("ride_1", "Hello", &format!("name-{}", number / 2)).await.status.as_u16()
        })
    });
    let mut responses = Vec::new();
    for send in sends.collect::<Vec<_>>() {
        responses.push(send.await.unwrap());
    }
    // Each id was sent on both replicas concurrently. One of the two sends is the first.
    let of = |status: u16| responses.iter().filter(|response| **response == status).count();
    assert_eq!((of(201), of(200)), (100, 100), "{responses:?}");
    for seq in 2..102 {
        assert_eq!(stream.next_of_type("message:new").await.seq(), seq);
    }
    // Every kind of write once.
    let sent = rider.send("ride_1", "mine").await;
    rider.edit(&sent, "changed").await.expect(200);
    driver.mark(&sent, "read").await.expect(200);
    assert_eq!(driver.get("messages/unread-count").await.expect(200).json()["total"], 0);
    driver.post("rides/ride_1/location", json!({ "lat": 1, "lng": 2 })).await.expect(202);
    driver.put("drivers/me/availability", json!({ "available": true })).await.expect(200);
    server.service().get("drivers/available").await.expect(200);
    assert_eq!(rider.history("ride_1", "?limit=1").await["messages"][0]["content"], "changed");
    rider.get("rides").await.expect(200);
    assert!(rider.poll_all("after=0").await["events"].as_array().unwrap().len() > 1);
    rider.delete_message(&sent).await.expect(204);
    server.service().delete("users/rider_1").await.expect(200);
    server.service().post_empty("users/rider_1/revoke").await.expect(200);
    rider.on(&server).get("rides").await.problem(401, "token_revoked");
    eventually("the listener is connected", async || (listen_state(&other).await == "listening").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_through_the_pooler_is_detected_and_the_fallback_poll_delivers() {
    let database = Database::create().await;
    let Some(bouncer) = PgBouncer::start(&database).await else { return };
    let settings = [("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let (server, other) =
        (through(&database, &bouncer, &settings).await, through(&database, &bouncer, &settings).await);
    eventually("the pooler is detected", async || (listen_state(&server).await == "deaf").then_some(())).await;
    let warnings = server.log().lines().filter(|line| line.contains("RIDEWIRE_LISTEN_DATABASE_URL")).count();
    assert_eq!(warnings, 1, "{}", server.log());
    let metrics = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("ridewire_listener_state{state=\"deaf\"} 1"), "{metrics}");
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = other.live_stream(&driver, "ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    assert_eq!(stream.next_of_type("message:new").await.data, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_pooler_costs_a_retry_and_loses_nothing() {
    let database = Database::create().await;
    let Some(mut bouncer) = PgBouncer::start(&database).await else { return };
    let direct = [("RIDEWIRE_LISTEN_DATABASE_URL", database.url.as_str())];
    let server = through(&database, &bouncer, &direct).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = server.live_stream(&driver, "ride_1").await;
    for round in 0..3 {
        bouncer.restart().await;
        let name = format!("name-{round}");
        eventually("the message is stored", async || {
            let response = rider.send_with_id("ride_1", "Hello", &name).await;
            assert!([200, 201, 503].contains(&response.status.as_u16()), "{}", response.text());
            response.status.is_success().then_some(())
        })
        .await;
        assert_eq!(stream.next_of_type("message:new").await.data["clientMessageId"], name.as_str());
    }
    assert_eq!(database.head("ride_1").await, 4);
}
