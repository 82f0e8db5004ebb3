//! The trace of a message: its handovers to connections, its delivery and read receipts, and its webhook deliveries.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Database, Receiver, Reply, Server, User, eventually};

/// Settings that allow webhooks to this machine.
const SETTINGS: [(&str, &str); 3] = [
    ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1"),
    ("RIDEWIRE_WEBHOOK_RETRIES", "1h"),
    ("RIDEWIRE_FALLBACK_POLL", "500ms"),
];

async fn server(database: &Database, push_after: &str) -> Server {
    Server::start_with(database, &[&SETTINGS[..], &[("RIDEWIRE_PUSH_AFTER", push_after)]].concat()).await
}

fn path(message: &Value) -> String {
    format!("messages/{}/trace", message["id"].as_str().unwrap())
}

async fn trace(staff: &User, message: &Value) -> Value {
    staff.get(&path(message)).await.expect(200).json()
}

/// Returns the participants of a trace.
fn users(trace: &Value) -> Vec<&str> {
    trace["participants"].as_array().unwrap().iter().map(|entry| entry["userId"].as_str().unwrap()).collect()
}

/// Returns a participant's entry of a trace.
fn entry_of<'a>(trace: &'a Value, user: &str) -> &'a Value {
    let found = trace["participants"].as_array().unwrap().iter().find(|entry| entry["userId"] == user);
    found.unwrap_or_else(|| panic!("{user} in {trace}"))
}

/// Returns the handovers to a participant as (transport, replica).
fn handed<'a>(trace: &'a Value, user: &str) -> Vec<(&'a str, &'a str)> {
    let handed = entry_of(trace, user)["handed"].as_array().unwrap().iter();
    handed.map(|entry| (entry["transport"].as_str().unwrap(), entry["replica"].as_str().unwrap())).collect()
}

fn members(value: &Value) -> Vec<&str> {
    let mut members: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

async fn webhook(service: &User, receiver: &Receiver, path: &str, types: &[&str]) -> Value {
    let url = format!("{}{path}", receiver.base);
    service.post("webhooks", json!({ "url": url, "types": types })).await.expect(201).json()["id"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_shows_the_connections_and_replicas_that_a_message_was_handed_to() {
    let database = Database::create().await;
    let (one, two) = (server(&database, "0s").await, server(&database, "0s").await);
    let receiver = Receiver::start(|request| Reply::Status(if request.path == "/bad" { 500 } else { 200 })).await;
    let good = webhook(&one.service(), &receiver, "/good", &["message:new"]).await;
    let bad = webhook(&one.service(), &receiver, "/bad", &["message.*"]).await;
    webhook(&one.service(), &receiver, "/other", &["ride:status"]).await;
    let (rider, driver) = one.open_ride("ride_1").await;
    let driver = driver.on(&two);
    let support = one.support();
    let mut stream = one.live_stream(&rider, "ride_1").await;
    // Support on the ride's stream is not a participant.
    let mut watching = two.live_stream(&support, "ride_1").await;
    let after = database.head("ride_1").await;
    let polling = tokio::spawn({
        let driver = driver.clone();
        async move { driver.poll("ride_1", &format!("after={after}&wait=50")).await }
    });
    let message = support.send("ride_1", "We are looking into it").await;
    assert_eq!(stream.next_of_type("message:new").await.data["id"], message["id"]);
    assert_eq!(watching.next_of_type("message:new").await.data["id"], message["id"]);
    let polled = polling.await.unwrap();
    assert_eq!(polled["events"][0]["data"]["id"], message["id"], "{polled}");
    rider.mark(&message, "read").await.expect(200);
    // The poll acknowledges delivery with its cursor.
    driver.poll("ride_1", &format!("after={}&wait=0", message["seq"])).await;

    let traced = eventually("the complete trace", async || {
        let traced = trace(&support.on(&two), &message).await;
        let webhooks = traced["webhooks"].as_array().unwrap();
        let are_tried = webhooks.len() == 2 && webhooks.iter().all(|webhook| webhook["attempts"] != 0);
        let is_delivered = webhooks.iter().any(|webhook| webhook["state"] == "delivered");
        let is_handed = ["rider_1", "driver_1"].iter().all(|user| !handed(&traced, user).is_empty());
        (are_tried && is_delivered && is_handed && entry_of(&traced, "driver_1")["deliveredAt"].is_string())
            .then_some(traced)
    })
    .await;
    assert_eq!(members(&traced), ["committedAt", "feedAt", "messageId", "participants", "seq", "webhooks"]);
    assert_eq!((&traced["messageId"], &traced["seq"]), (&message["id"], &message["seq"]));
    assert_eq!(traced["committedAt"], message["createdAt"]);
    assert_eq!(users(&traced), ["driver_1", "rider_1"]);
    let (on_stream, by_poll) = (entry_of(&traced, "rider_1"), entry_of(&traced, "driver_1"));
    for participant in [on_stream, by_poll] {
        assert_eq!(members(participant), ["deliveredAt", "handed", "readAt", "undeliveredAt", "userId"]);
        assert_eq!(members(&participant["handed"][0]), ["at", "replica", "transport"]);
        assert_eq!(participant["undeliveredAt"], Value::Null);
    }
    let [(sse, first)] = handed(&traced, "rider_1")[..] else { panic!("one connection: {on_stream}") };
    // The acknowledging poll begins after the message, so it is not a handover.
    let [(poll, second)] = handed(&traced, "driver_1")[..] else { panic!("one connection: {by_poll}") };
    assert_eq!((sse, poll), ("sse", "poll"));
    assert!(one.log().contains(first) && two.log().contains(second) && first != second, "{traced}");
    assert_eq!(on_stream["readAt"], on_stream["deliveredAt"], "a read message is delivered");
    assert!(on_stream["readAt"].is_string() && by_poll["readAt"].is_null(), "{traced}");
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let at = [&traced["committedAt"], &traced["feedAt"], &on_stream["handed"][0]["at"], &on_stream["readAt"]].map(time);
    assert!(at[0] <= at[1] && at[0] <= at[2] && at[2] <= at[3], "{traced}");
    let expected = json!([{ "webhookId": good, "state": "delivered", "attempts": 1 }, { "webhookId": bad, "state": "pending", "attempts": 1 }]);
    assert_eq!(traced["webhooks"], expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_shows_that_an_offline_user_got_no_handover_and_a_push_was_sent() {
    let database = Database::create().await;
    let server = server(&database, "1s").await;
    let (service, receiver) = (server.service(), Receiver::accepting_all().await);
    webhook(&service, &receiver, "/push", &["message.undelivered"]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = rider.stream_all("", None).await;
    stream.next_sync().await;
    let message = rider.send("ride_1", "Where are you?").await;
    assert_eq!(stream.find("message:new").await.data["id"], message["id"]);
    let traced = eventually("the push", async || {
        let traced = trace(&service, &message).await;
        let is_whole =
            entry_of(&traced, "driver_1")["undeliveredAt"].is_string() && !handed(&traced, "rider_1").is_empty();
        is_whole.then_some(traced)
    })
    .await;
    let offline = entry_of(&traced, "driver_1");
    assert_eq!(
        (&offline["handed"], &offline["deliveredAt"], &offline["readAt"]),
        (&json!([]), &Value::Null, &Value::Null)
    );
    // The webhook for push notifications has the necessary members.
    let pushed = receiver.until_accepted("/push", 1).await[0].json();
    assert_eq!((&pushed["type"], &pushed["data"]["topic"]), (&json!("message.undelivered"), &json!("ride/ride_1")));
    let expected = json!({
        "rideId": "ride_1", "userId": "driver_1", "messageId": message["id"], "seq": message["seq"], "unreadCount": 1,
        "at": offline["undeliveredAt"],
    });
    assert_eq!(pushed["data"]["data"], expected);

    // The sender has got the message on a merged stream, and acknowledges a later message.
    let reply = driver.send("ride_1", "At the gate").await;
    rider.mark(&reply, "read").await.expect(200);
    driver.mark(&message, "delivered").await.expect(200);
    let traced = trace(&service, &message).await;
    let sender = entry_of(&traced, "rider_1");
    assert_eq!((&sender["deliveredAt"], &sender["readAt"]), (&Value::Null, &Value::Null));
    assert_eq!(handed(&traced, "rider_1").len(), 1, "{traced}");
    assert!(entry_of(&traced, "driver_1")["deliveredAt"].is_string(), "{traced}");
    assert!(entry_of(&trace(&service, &reply).await, "rider_1")["deliveredAt"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_staff_read_traces_which_list_the_users_with_access_to_the_message() {
    let database = Database::create().await;
    let server = server(&database, "0s").await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let (support, service) = (server.support(), server.service());
    let before = rider.send("ride_1", "Hello").await;
    for user in [&rider, &driver] {
        user.get(&path(&before)).await.problem(403, "forbidden");
    }
    for staff in [&support, &service] {
        staff.get(&path(&before)).await.expect(200);
        staff.get("messages/0198c0de-0000-7000-8000-000000000000/trace").await.problem(404, "message_not_found");
        staff.get("messages/nonsense/trace").await.problem(400, "invalid_request");
    }
    service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    let after = rider.send("ride_1", "Are you the new one?").await;
    assert_eq!(users(&trace(&support, &before).await), ["driver_1", "rider_1"]);
    assert_eq!(users(&trace(&support, &after).await), ["driver_2", "rider_1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_outlives_the_content_and_omits_erased_and_expired_data() {
    let database = Database::create().await;
    let server = server(&database, "0s").await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let service = server.service();
    let mut stream = server.live_stream(&driver, "ride_1").await;
    let message = rider.send("ride_1", "ZEBRA").await;
    stream.next_of_type("message:new").await;
    driver.mark(&message, "delivered").await.expect(200);
    rider.delete_message(&message).await.expect(204);
    let traced = eventually("the trace of a tombstone", async || {
        let traced = trace(&service, &message).await;
        (!handed(&traced, "driver_1").is_empty() && traced["feedAt"].is_string()).then_some(traced)
    })
    .await;
    assert!(
        entry_of(&traced, "driver_1")["deliveredAt"].is_string() && !traced.to_string().contains("ZEBRA"),
        "{traced}"
    );

    // An erased user is in no row.
    service.delete("users/driver_1").await.expect(200);
    assert!(handed(&trace(&service, &message).await, "driver_1").is_empty());
    let client = database.client().await;
    let left = client.query("select from handovers where user_id = 'driver_1'", &[]).await.unwrap();
    assert!(left.is_empty(), "{} rows", left.len());

    // After the retention of the log, the time of delivery is unknown.
    let trim = "delete from events where topic = 'ride/ride_1' and seq <= $1";
    client.execute(trim, &[&message["seq"].as_i64()]).await.unwrap();
    let traced = trace(&service, &message).await;
    assert_eq!(entry_of(&traced, "driver_1")["deliveredAt"], Value::Null);
    assert_eq!(traced["committedAt"], message["createdAt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_found_on_a_long_feed_by_its_time() {
    let database = Database::create().await;
    let server = server(&database, "0s").await;
    let (rider, _) = server.open_ride("ride_1").await;
    let (service, client) = (server.service(), database.client().await);
    let mut messages = Vec::new();
    for n in 0..40 {
        messages.push(rider.send("ride_1", &n.to_string()).await);
    }
    eventually("all messages are on the feed", async || {
        let row = client
            .query_one("select count(*) from feed_entries(0, 1000) where topic = 'ride/ride_1'", &[])
            .await
            .unwrap();
        (row.get::<_, i64>(0) > 40).then_some(())
    })
    .await;
    let on_feed =
        "select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from feed_entries(0, 1000)
                   where topic = 'ride/ride_1' and seq = $1";
    for message in &messages {
        let at: String = client.query_one(on_feed, &[&message["seq"].as_i64()]).await.unwrap().get(0);
        assert_eq!(trace(&service, message).await["feedAt"], at);
    }
    // After the retention of the feed, the time is unknown.
    let last_deleted = messages[20]["seq"].as_i64();
    let position = "select position from feed_entries(0, 1000) where topic = 'ride/ride_1' and seq = $1";
    database.expire_feed(client.query_one(position, &[&last_deleted]).await.unwrap().get(0)).await;
    assert_eq!(trace(&service, &messages[20]).await["feedAt"], Value::Null);
    assert!(trace(&service, &messages[21]).await["feedAt"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handovers_are_deleted_after_their_retention_and_not_recorded_when_disabled() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_MESSAGE_TRACE_RETENTION", "1s"), ("RIDEWIRE_RETENTION_PERIOD", "100ms")];
    let short = Server::start_with(&database, &settings).await;
    let off = Server::start_with(&database, &[("RIDEWIRE_MESSAGE_TRACE_RETENTION", "0s")]).await;
    let (rider, driver) = short.open_ride("ride_1").await;
    let (mut here, mut there) = (short.live_stream(&driver, "ride_1").await, off.live_stream(&rider, "ride_1").await);
    rider.send("ride_1", "Hello").await;
    here.next_of_type("message:new").await;
    there.next_of_type("message:new").await;
    let recorded = async |server: &Server| {
        let samples = crate::metrics::scrape(server).await;
        samples[r#"ridewire_message_trace_handovers_total{outcome="recorded"}"#]
    };
    assert_eq!((recorded(&short).await, recorded(&off).await), (1.0, 0.0));
    let client = database.client().await;
    // The handover is written once, then deleted.
    let count = async || client.query_one("select count(*) from handovers", &[]).await.unwrap().get::<_, i64>(0);
    assert!(off.terminate().await.success());
    drop(here);
    eventually("the handover is written, and perhaps deleted already", async || {
        let written = client.query_one("select pg_stat_get_tuples_inserted('handovers'::regclass)", &[]).await.unwrap();
        (count().await == 1 || written.get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    eventually("the handover is deleted", async || (count().await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_replica_writes_its_pending_handovers() {
    let database = Database::create().await;
    let (server, other) = (server(&database, "0s").await, server(&database, "0s").await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let polls = driver.request(Method::GET, "poll?after=0&wait=0");
    let message = rider.send("ride_1", "Hello").await;
    driver.execute(polls).await.expect(200);
    assert!(server.terminate().await.success());
    let traced = trace(&other.service(), &message).await;
    assert_eq!(handed(&traced, "driver_1").iter().map(|(transport, _)| *transport).collect::<Vec<_>>(), ["poll"]);
}
