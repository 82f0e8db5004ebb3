//! Driver availability.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Database, Server, User, eventually, eventually_within};

/// Expired registrations end at a heartbeat (every five seconds). The limit leaves time for a busy machine.
const HEARTBEATS: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(50);

/// Expires the drivers' registrations that have an expiry time.
async fn expire(client: &tokio_postgres::Client) {
    let expire =
        "update presence set expires_at = clock_timestamp() - interval '1 second' where expires_at is not null";
    assert!(client.execute(expire, &[]).await.unwrap() > 0);
}

async fn until_available(staff: &User, expected: &[&str]) {
    eventually_within(HEARTBEATS, PAUSE, &format!("{expected:?} are available"), async || {
        (available(staff).await == expected).then_some(())
    })
    .await;
}

async fn set_availability(driver: &User, body: Value) -> crate::support::Response {
    driver.put("drivers/me/availability", body).await
}

async fn available(staff: &User) -> Vec<String> {
    let page = staff.get("drivers/available").await.expect(200).json();
    page["drivers"].as_array().unwrap().iter().map(|driver| driver["driverId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatch_gets_driver_availability_with_and_without_notify() {
    for notify in ["on", "off"] {
        let database = Database::create().await;
        let settings =
            [("RIDEWIRE_NOTIFY", notify), ("RIDEWIRE_FALLBACK_POLL", "200ms"), ("RIDEWIRE_PRESENCE_GRACE", "1h")];
        let (one, two) =
            (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
        let (first, second) = (one.driver("driver_1"), one.driver("driver_2"));
        let response =
            set_availability(&first, json!({ "available": true, "lat": 52.5, "lng": 13.4 })).await.expect(200).json();
        let expected =
            json!({ "driverId": "driver_1", "available": true, "lat": 52.5, "lng": 13.4, "at": response["at"] });
        assert_eq!(response, expected);
        let mut stream = two.service().stream_all("", None).await.expect(200);
        assert_eq!(stream.next_sync().await["state"], json!({ "rides": {}, "drivers": [expected] }));
        assert_eq!(two.support().poll_all("").await["state"]["drivers"], json!([expected]));

        set_availability(&second, json!({ "available": true })).await.expect(200);
        let update = stream.next_of_type("driver:availability").await;
        assert!(update.id.is_none());
        assert_eq!((&update.data["driverId"], &update.data["lat"]), (&json!("driver_2"), &Value::Null));
        assert_eq!(available(&two.support()).await, ["driver_1", "driver_2"]);
        let page = two.service().get("drivers/available?limit=1").await.expect(200).json();
        assert_eq!((&page["hasMore"], &page["next"]), (&json!(true), &json!("driver_1")));
        let rest = two.service().get("drivers/available?after=driver_1").await.expect(200).json();
        assert_eq!((&rest["drivers"][0], &rest["next"]), (&update.data, &Value::Null));

        // A repeated value is not an event.
        set_availability(&second, json!({ "available": true })).await.expect(200);
        set_availability(&first, json!({ "available": false })).await.expect(200);
        let update = stream.next_of_type("driver:availability").await.data;
        assert_eq!((&update["driverId"], &update["available"]), (&json!("driver_1"), &json!(false)));
        assert_eq!(available(&two.support()).await, ["driver_2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_without_a_connection_becomes_unavailable() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let mut dispatch = two.service().stream_all("types=driver:*", None).await.expect(200);
    dispatch.next_sync().await;
    let driver = one.driver("driver_1");
    let mut streams = Vec::new();
    for server in [&one, &two] {
        let mut stream = driver.on(server).stream_all("", None).await.expect(200);
        stream.next_sync().await;
        streams.push(stream);
    }
    set_availability(&driver, json!({ "available": true })).await.expect(200);
    assert_eq!(dispatch.next_of_type("driver:availability").await.data["available"], true);
    eventually("the driver is registered on both replicas", async || {
        let client = database.client().await;
        let registered = "select count(*) from presence where topic = 'drivers' and expires_at is null";
        let row = client.query_one(registered, &[]).await.unwrap();
        (row.get::<_, i64>(0) == 2).then_some(())
    })
    .await;
    // A driver with a connection on one replica stays available.
    streams.pop();
    eventually("one registration has ended", async || {
        let client = database.client().await;
        let registered = "select count(*) from presence where topic = 'drivers' and expires_at is null";
        let row = client.query_one(registered, &[]).await.unwrap();
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    assert_eq!(available(&one.support()).await, ["driver_1"]);
    streams.pop();
    let update = dispatch.next_of_type("driver:availability").await.data;
    assert_eq!((&update["driverId"], &update["available"]), (&json!("driver_1"), &json!(false)));
    assert_eq!(available(&one.support()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn availability_set_without_a_connection_ends_after_the_presence_grace() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_PRESENCE_GRACE", "1s")]).await;
    let mut dispatch = server.service().stream_all("types=driver:*", None).await.expect(200);
    dispatch.next_sync().await;
    set_availability(&server.driver("driver_1"), json!({ "available": true })).await.expect(200);
    assert_eq!(dispatch.next_of_type("driver:availability").await.data["available"], true);
    until_available(&server.support(), &[]).await;
    assert_eq!(dispatch.next_of_type("driver:availability").await.data["available"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn availability_set_without_a_connection_ends_even_if_its_replica_is_killed() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    set_availability(&one.driver("driver_1"), json!({ "available": true })).await.expect(200);
    one.kill().await;
    until_available(&two.support(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_keeps_a_driver_available_and_setting_it_again_extends_it() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_PRESENCE_GRACE", "1h")]).await;
    let (support, client) = (server.support(), database.client().await);
    let (one, two, three) = (server.driver("driver_1"), server.driver("driver_2"), server.driver("driver_3"));
    for driver in [&one, &two, &three] {
        set_availability(driver, json!({ "available": true })).await.expect(200);
    }
    let mut stream = one.stream_all("", None).await.expect(200);
    stream.next_sync().await;
    eventually("the stream is registered", async || {
        let query = "select count(*) from presence where topic = 'drivers' and expires_at is null";
        (client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    // A repeated value is not an event, but it extends the availability.
    let ends = async || {
        let query = "select max(expires_at) from presence where user_id = 'driver_2'";
        client.query_one(query, &[]).await.unwrap().get::<_, jiff::Timestamp>(0)
    };
    let before = ends().await;
    set_availability(&two, json!({ "available": true })).await.expect(200);
    assert!(ends().await > before);
    // A driver who becomes unavailable gets no registration.
    set_availability(&three, json!({ "available": false })).await.expect(200);
    assert_eq!(available(&support).await, ["driver_1", "driver_2"]);
    expire(&client).await;
    until_available(&support, &["driver_1"]).await;
    eventually_within(HEARTBEATS, PAUSE, "expired registrations are removed", async || {
        let query = "select count(*) from presence where expires_at is not null";
        (client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    assert_eq!(available(&support).await, ["driver_1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_database_crash_only_connected_drivers_stay_available() {
    let mut cluster = Cluster::dedicated().await;
    let database = cluster.database();
    let server = Server::start_with(&database, &[("RIDEWIRE_PRESENCE_GRACE", "1h")]).await;
    let (one, two) = (server.driver("driver_1"), server.driver("driver_2"));
    let mut stream = one.stream_all("", None).await.expect(200);
    stream.next_sync().await;
    for driver in [&one, &two] {
        set_availability(driver, json!({ "available": true })).await.expect(200);
    }
    // A crash of Postgres empties the presence tables and keeps the availability.
    cluster.restart_immediate().await;
    eventually("the server works again", async || (two.get("messages/unread-count").await.status == 200).then_some(()))
        .await;
    until_available(&server.support(), &["driver_1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_availability_is_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let driver = server.driver("driver_1");
    let before = database.contents().await;
    let cases = [
        (json!({}), "/available"),
        (json!({ "available": "yes" }), "/available"),
        (json!({ "available": true, "lat": 91, "lng": 0 }), "/lat"),
        (json!({ "available": true, "lat": 0, "lng": -181 }), "/lng"),
        (json!({ "available": true, "lat": 0 }), "/lng"),
        (json!({ "available": true, "lng": 0 }), "/lat"),
        (json!({ "available": true, "other": 0 }), "/other"),
    ];
    for (body, pointer) in cases {
        let rejected = set_availability(&driver, body).await.problem(400, "invalid_request");
        assert_eq!(rejected["errors"][0]["pointer"], pointer);
    }
    for user in [server.rider("rider_1"), server.service(), server.support()] {
        set_availability(&user, json!({ "available": true })).await.problem(403, "forbidden");
    }
    for user in [&server.rider("rider_1"), &driver] {
        user.get("drivers/available").await.problem(403, "forbidden");
    }
    server.service().get("drivers/available?limit=1001").await.problem(400, "invalid_request");
    assert_eq!(database.contents().await, before);
}
