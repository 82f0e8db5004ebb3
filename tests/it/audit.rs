//! The audit log: the actions of support and service users.

use reqwest::Method;
use serde_json::{Value, json};

use crate::batches::send;
use crate::metrics::scrape;
use crate::support::{Database, Server, User, eventually, lock_ride, until_waiting_for_locks};

/// Returns the entries, newest first, without those about reading the audit log.
async fn entries(service: &User) -> Vec<Value> {
    let page = service.get("audit?limit=200").await.expect(200).json();
    let entries = page["entries"].as_array().unwrap().iter();
    entries.filter(|entry| entry["action"] != "listAudit").cloned().collect()
}

/// Returns user, action, ride, message, subject and status of each entry, oldest first.
fn summary(entries: &[Value]) -> Vec<Value> {
    let members = ["userId", "action", "rideId", "messageId", "subjectId", "status"];
    entries.iter().rev().map(|entry| Value::from_iter(members.map(|member| entry[member].clone()))).collect()
}

/// Returns the actions of the entries, oldest first.
async fn actions(service: &User) -> Vec<String> {
    let entries = entries(service).await;
    entries.iter().rev().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_of_support_and_service_are_recorded_and_actions_of_others_are_not() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let (support, service) = (server.support(), server.service());
    let message = rider.send("ride_1", "ZEBRA-1").await;
    driver.history("ride_1", "").await;
    let id = &message["id"];
    let path = format!("messages/{}", id.as_str().unwrap());

    support.history("ride_1", "?limit=10&_=ZEBRA-2").await;
    let stream = server.live_stream(&support, "ride_1").await;
    let body = json!({ "rideId": "ride_1", "content": "ZEBRA-3", "metadata": { "ZEBRA-4": 1 } });
    let request = support.request(Method::POST, "messages").header("x-request-id", "request-7").json(&body);
    let sent = support.execute(request).await.expect(201).json();
    support.get(&format!("{path}/trace")).await.expect(200);
    support.get("rides/ride_9").await.problem(404, "ride_not_found");
    support.get("rides/ZEBRA-5%20").await.problem(400, "invalid_request");
    support.get("rides?userId=rider_1").await.expect(200);
    support.get("audit").await.problem(403, "forbidden");
    support.delete(&path).await.expect(204);
    service.post_empty("users/rider_9/revoke").await.expect(200);
    service.delete("users/rider_9").await.expect(200);
    let created =
        service.post("webhooks", json!({ "url": "https://receiver.invalid/ZEBRA-6" })).await.expect(201).json();
    service.delete(&format!("webhooks/{}", created["id"].as_str().unwrap())).await.expect(204);
    drop(stream);

    let none = Value::Null;
    let entry = |user: &str, action: &str, [ride, message, subject]: [&Value; 3], status: u16| {
        json!([user, action, ride, message, subject, status])
    };
    let (ride, rider_1) = (&json!("ride_1"), &json!("rider_1"));
    let expected = [
        entry("platform", "putRide", [ride, &none, &none], 201),
        entry("support_1", "getHistory", [ride, &none, &none], 200),
        entry("support_1", "streamRide", [ride, &none, &none], 200),
        entry("support_1", "sendMessage", [ride, &sent["id"], &none], 201),
        entry("support_1", "traceMessage", [ride, id, &none], 200),
        entry("support_1", "getRide", [&json!("ride_9"), &none, &none], 404),
        // An invalid id is not stored.
        entry("support_1", "getRide", [&none, &none, &none], 400),
        entry("support_1", "listRides", [&none, &none, rider_1], 200),
        entry("support_1", "deleteMessage", [ride, id, &none], 204),
        entry("platform", "revokeUser", [&none, &none, &none], 200),
        entry("platform", "eraseUser", [&none, &none, &none], 200),
        entry("platform", "createWebhook", [&none, &none, &none], 201),
        entry("platform", "deleteWebhook", [&none, &none, &none], 204),
    ];
    let found =
        eventually("all entries", async || Some(entries(&service).await).filter(|found| found.len() >= expected.len()))
            .await;
    assert_eq!(summary(&found), expected);
    // All members of an entry.
    let of_send = found.iter().find(|entry| entry["action"] == "sendMessage").unwrap();
    let expected = json!({
        "id": of_send["id"], "at": of_send["at"], "userId": "support_1", "role": "support", "action": "sendMessage",
        "rideId": "ride_1", "messageId": sent["id"], "subjectId": null, "webhookId": null, "status": 201,
        "requestId": "request-7",
    });
    assert_eq!(*of_send, expected);
    assert_eq!(found[0]["webhookId"], created["id"]);
    let times: Vec<_> = found.iter().map(|entry| entry["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    let rows = database.client().await.query("select audit::text from audit", &[]).await.unwrap();
    assert!(rows.iter().all(|row| !row.get::<_, String>(0).contains("ZEBRA")), "no content");
    // Reading the audit log is recorded too.
    let page = service.get("audit").await.expect(200).json();
    assert!(page.to_string().contains("listAudit"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_a_user_removes_the_user_from_the_audit_log() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (support, service) = (server.support(), server.service());
    support.get("rides?userId=rider_1").await.expect(200);
    service.post_empty("users/rider_1/revoke").await.expect(200);
    let named = async || {
        let found = entries(&service).await;
        found.iter().filter(|entry| entry["subjectId"] == "rider_1").count()
    };
    eventually("both actions are recorded", async || (named().await == 2).then_some(())).await;
    service.delete("users/rider_1").await.expect(200);
    eventually("the erasure is recorded", async || {
        actions(&service).await.contains(&"eraseUser".to_owned()).then_some(())
    })
    .await;
    assert_eq!(named().await, 0);
    assert_eq!(actions(&service).await, ["listRides", "revokeUser", "eraseUser"], "the actions are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_reads_share_one_entry_and_each_write_has_its_own() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (support, service) = (server.support(), server.service());
    server.open_ride("ride_1").await;
    for _ in 0..5 {
        support.history("ride_1", "").await;
        support.poll("ride_1", "after=0&wait=0").await;
        service.get("feed/poll?after=0&wait=0").await.expect(200);
        let head = support.request(Method::HEAD, "messages/rides/ride_1");
        support.execute(head).await.expect(200);
    }
    for _ in 0..3 {
        service.send("ride_1", "Hello").await;
    }
    let expected = ["putRide", "getHistory", "pollRide", "pollFeed", "sendMessage", "sendMessage", "sendMessage"];
    let found =
        eventually("all entries", async || Some(actions(&service).await).filter(|found| found.len() >= expected.len()))
            .await;
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_service_reads_the_audit_log_in_pages() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    for n in 0..7 {
        server.support().get(&format!("rides/ride_{n}")).await.problem(404, "ride_not_found");
    }
    for user in [server.support(), server.rider("rider_1"), server.driver("driver_1")] {
        user.get("audit").await.problem(403, "forbidden");
    }
    for (query, field) in [("before=7", "before"), ("limit=0", "limit"), ("limit=201", "limit"), ("after=1", "after")] {
        service.get(&format!("audit?{query}")).await.invalid_field(field);
    }
    eventually("all requests are recorded", async || (entries(&service).await.len() == 7).then_some(())).await;
    let all = service.get("audit?limit=200").await.expect(200).json();
    assert_eq!(all["hasMore"], false);
    let (mut pages, mut before) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("audit?limit=3{before}")).await.expect(200).json();
        let entries = page["entries"].as_array().unwrap().clone();
        assert!(entries.len() == 3 || page["hasMore"] == false && entries.len() < 3, "{page}");
        if let Some(last) = entries.last() {
            before = format!("&before={}", last["id"].as_str().unwrap());
        }
        pages.extend(entries);
        if page["hasMore"] == false {
            break;
        }
    }
    // Newer entries may have been added in the meantime.
    assert!(pages.ends_with(all["entries"].as_array().unwrap()), "{pages:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_replica_writes_its_pending_audit_entries() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    server.open_ride("ride_1").await;
    let service = server.service();
    for _ in 0..30 {
        service.send("ride_1", "Hello").await;
    }
    assert!(server.terminate().await.success());
    let count = "select count(*) from audit where action = 'sendMessage' and message_id is not null";
    let count: i64 = database.client().await.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(count, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_audit_write_delays_no_request_and_is_retried_without_duplicates() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DATABASE_TIMEOUT", "4s"), ("RIDEWIRE_LOG", "debug")];
    let server = Server::start_with(&database, &settings).await;
    server.open_ride("ride_1").await;
    let service = server.service();
    let waiting = async || scrape(&server).await["ridewire_audit_pending_entries"];
    eventually("the queue is empty", async || (waiting().await == 0.0).then_some(())).await;
    let mut elsewhere = database.client().await;
    let held = elsewhere.transaction().await.unwrap();
    held.batch_execute("lock table audit in access exclusive mode").await.unwrap();
    // The requests do not wait for their entries.
    let sent: Vec<_> = {
        let mut sent = Vec::new();
        for n in 0..20 {
            sent.push(service.send("ride_1", &n.to_string()).await["id"].clone());
        }
        sent
    };
    eventually("a write fails", async || server.log().contains("write of audit entries failed").then_some(())).await;
    assert!(waiting().await >= 20.0);
    held.rollback().await.unwrap();
    eventually("the queue is empty again", async || (waiting().await == 0.0).then_some(())).await;
    let found = entries(&service).await;
    let found: Vec<_> = found.iter().rev().filter(|entry| entry["action"] == "sendMessage").collect();
    assert_eq!(
        found.iter().map(|entry| entry["messageId"].clone()).collect::<Vec<_>>(),
        sent,
        "each entry once, in order"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_request_is_recorded_without_a_status() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    server.open_ride("ride_1").await;
    let mut elsewhere = database.client().await;
    let held = lock_ride(&mut elsewhere, "ride_1").await;
    let leaving = send(&server.support(), "ride_1", "m-1");
    until_waiting_for_locks(&database.client().await, 1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let service = server.service();
    let found = eventually("the entry", async || {
        entries(&service).await.into_iter().find(|entry| entry["action"] == "sendMessage")
    })
    .await;
    assert_eq!((&found["userId"], &found["status"]), (&json!("support_1"), &Value::Null));
    held.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_entries_are_deleted_after_their_retention() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_AUDIT_RETENTION", "1s"), ("RIDEWIRE_RETENTION_PERIOD", "100ms")];
    let server = Server::start_with(&database, &settings).await;
    server.open_ride("ride_1").await;
    let client = database.client().await;
    let written = "select pg_stat_get_tuples_inserted('audit'::regclass)";
    eventually("an entry is written", async || {
        (client.query_one(written, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    eventually("the entry is deleted", async || {
        client.query("select from audit", &[]).await.unwrap().is_empty().then_some(())
    })
    .await;
}
