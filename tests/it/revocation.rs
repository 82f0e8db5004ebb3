//! Revoked tokens on every replica.

use serde_json::json;

use crate::support::{Database, SECRET, Server, eventually, raw_token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_rejected_and_its_open_streams_end_on_every_replica() {
    let database = Database::create().await;
    let (server, other) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let ticket = driver.post_empty("stream-tickets").await.expect(201).json()["ticket"].as_str().unwrap().to_owned();
    let mut streams = [server.live_stream(&driver, "ride_1").await, other.live_stream(&driver, "ride_1").await];
    let mut kept = other.live_stream(&rider, "ride_1").await;
    let waiting = {
        let driver = driver.on(&other);
        tokio::spawn(async move { driver.get("messages/rides/ride_1/poll?after=1&wait=50").await })
    };
    for user in [&rider, &driver, &server.support()] {
        user.post_empty("users/driver_1/revoke").await.problem(403, "forbidden");
    }
    let revoked = server.service().post_empty("users/driver_1/revoke").await.expect(200).json();
    assert_eq!(revoked["userId"], "driver_1");

    for stream in &mut streams {
        let last = stream.until_end().await.pop().unwrap();
        assert_eq!((last.kind.as_str(), last.data), ("auth:expired", json!({ "reason": "token_revoked" })));
    }
    waiting.await.unwrap().problem(401, "token_revoked");
    for server in [&server, &other] {
        let driver = driver.on(server);
        driver.get("rides").await.problem(401, "token_revoked");
        driver.get("messages/rides/ride_1/poll").await.problem(401, "token_revoked");
        let url = format!("{}/api/v1/events?ticket={ticket}", server.base);
        assert_eq!(reqwest::get(&url).await.unwrap().status(), 401);
    }
    // Other users are not affected. A token issued in a later second is valid.
    rider.send("ride_1", "Hello").await;
    kept.next_of_type("message:new").await;
    eventually("a new token is accepted", async || {
        let again = other.driver("driver_1");
        (again.get("rides").await.status == 200).then_some(())
    })
    .await;

    // A replica that starts later loads the revocation.
    let late = Server::start(&database).await;
    driver.on(&late).get("rides").await.problem(401, "token_revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notify_the_fallback_poll_finds_revocations() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let (server, other) =
        (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (_, driver) = server.open_ride("ride_1").await;
    let mut stream = other.live_stream(&driver, "ride_1").await;
    server.service().post_empty("users/driver_1/revoke").await.expect(200);
    assert_eq!(stream.until_end().await.pop().unwrap().kind, "auth:expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_an_issuer_with_a_fast_clock_does_not_escape_its_revocation() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let now = ridewire::domain::Time::now().as_unix_seconds();
    let claims = json!({ "sub": "driver_1", "role": "driver", "iat": now + 25, "exp": now + 600 });
    let ahead = driver.with_token(raw_token(&json!({ "alg": "HS256" }), &claims, Some(SECRET)));
    let mut stream = server.live_stream(&ahead, "ride_1").await;
    server.service().post_empty("users/driver_1/revoke").await.expect(200);
    let last = stream.until_end().await.pop().unwrap();
    assert_eq!((last.kind.as_str(), last.data), ("auth:expired", json!({ "reason": "token_revoked" })));
    ahead.get("rides").await.problem(401, "token_revoked");
    rider.get("rides").await.expect(200);
}
