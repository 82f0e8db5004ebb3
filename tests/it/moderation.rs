//! The moderation hook: the server sends each new or edited message to the platform's moderation before it stores it.

mod example_receiver;
mod failures;
mod flagged;
pub(crate) mod hook;

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use self::hook::{Hook, Reply, allow};
use crate::support::{Database, Server, eventually};

/// Rejects content with `bad`, replaces `number`, flags content with `odd`, and allows all other content.
fn verdict(data: &Value) -> Reply {
    let content = data["content"].as_str().unwrap();
    Reply::Json(if content.contains("bad") {
        json!({ "action": "reject", "reason": "Please stay polite" })
    } else if content.contains("number") {
        json!({ "action": "replace", "content": content.replace("number", "***") })
    } else if content.contains("odd") {
        json!({ "action": "flag", "labels": ["odd_word", "spam"] })
    } else {
        json!({ "action": "allow" })
    })
}

/// Returns all rows of all tables as text.
async fn dump(database: &Database) -> String {
    let client = database.client().await;
    let tables = client.query("select tablename::text from pg_tables where schemaname = 'public'", &[]).await.unwrap();
    let mut text = String::new();
    for table in tables {
        let rows = format!("select t::text from {} t", table.get::<_, &str>(0));
        for row in client.query(&rows, &[]).await.unwrap() {
            text.push_str(row.get(0));
            text.push('\n');
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_checked_before_it_is_stored_and_the_verdict_is_applied() {
    let database = Database::create().await;
    let hook = Hook::start(verdict).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut live = server.live_stream(&driver, "ride_1").await;

    let allowed = rider.send("ride_1", "Hello").await;
    assert_eq!((&allowed["content"], &allowed["labels"]), (&json!("Hello"), &Value::Null));
    let replaced = rider.send("ride_1", "My number").await;
    assert_eq!(replaced["content"], "My ***");
    let body = json!({ "rideId": "ride_1", "content": "very bad words", "metadata": { "secret": "attached" } });
    let problem = rider.post("messages", body).await.problem(422, "message_rejected");
    assert_eq!(problem["detail"], "Please stay polite");
    let after = rider.send("ride_1", "Bye").await;
    assert_eq!(after["seq"], 4, "a rejected message takes no seq");

    for content in ["Hello", "My ***", "Bye"] {
        assert_eq!(live.find("message:new").await.data["content"], content);
    }
    let stored = dump(&database).await;
    for secret in ["very bad words", "attached", "My number"] {
        assert!(stored.contains("ride_1") && !stored.contains(secret), "{secret} is stored");
    }
    assert!(!server.log().contains("very bad"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_contains_the_message_and_is_signed() {
    let database = Database::create().await;
    let hook = Hook::start(|_| allow()).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let body = json!({ "rideId": "ride_1", "content": " Hi ☎ ", "metadata": { "b": 1.50, "a": null } });
    let sent = rider.post("messages", body).await.expect(201).json();
    rider.edit(&sent, "Edited").await.expect(200);
    let nothing = json!({ "metadata": null });
    rider.patch(&format!("messages/{}", sent["id"].as_str().unwrap()), nothing).await.expect(200);
    server.support().send("ride_1", "Support here").await;
    server.service().send("ride_1", "The platform here").await;

    let received = hook.received();
    let checks: Vec<_> = received.iter().map(hook::Received::json).collect();
    let check = |content: &str, metadata: Value, sender: &str, role: &str| json!({ "rideId": "ride_1", "senderId": sender, "senderRole": role, "content": content, "metadata": metadata });
    let edited = |mut check: Value| {
        check["messageId"] = sent["id"].clone();
        check
    };
    let metadata = json!({ "a": null, "b": 1.50 });
    let expected = [
        check(" Hi ☎ ", metadata.clone(), "rider_1", "rider"),
        edited(check("Edited", metadata, "rider_1", "rider")),
        edited(check("Edited", Value::Null, "rider_1", "rider")),
        check("Support here", Value::Null, "support_1", "support"),
        check("The platform here", Value::Null, "platform", "system"),
    ];
    for (check, expected) in checks.iter().zip(&expected) {
        assert_eq!((&check["type"], &check["data"]), (&json!("message.check"), expected));
        assert!(check["timestamp"].as_str().unwrap().ends_with('Z'), "{check}");
    }
    assert_eq!(checks.len(), expected.len());
    for request in &received {
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("webhook-signature"), request.signature());
    }
    assert_ne!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert!(hook.connections() <= 2, "connections are used again: {}", hook.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_of_a_stored_send_gets_200_regardless_of_moderation() {
    let database = Database::create().await;
    let hook = Hook::start(verdict).await;
    let server = Server::start_with(&database, &hook.failing_to("reject", "60s")).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let first = rider.send_with_id("ride_1", "My number", "name_1").await.expect(201).json();
    assert_eq!(first["content"], "My ***");
    hook.set_rule(|_| Reply::Json(json!({ "action": "reject" })));
    let count = hook.received().len();
    let again = rider.send_with_id("ride_1", "My number", "name_1").await.expect(200).json();
    assert_eq!(again, first, "the original content is compared, not the stored one");
    rider.send_with_id("ride_1", "My ***", "name_1").await.problem(409, "idempotency_conflict");
    assert_eq!(hook.received().len(), count, "a repeat is not checked");
    // A rejected `clientMessageId` can be used again once the message is allowed.
    rider.send_with_id("ride_1", "Hello", "name_2").await.problem(422, "message_rejected");
    hook.set_rule(|_| allow());
    rider.send_with_id("ride_1", "Hello", "name_2").await.expect(201);
    server.service().set_status("ride_1", "cancelled").await.expect(200);
    rider.send_with_id("ride_1", "Hello", "name_2").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_200_if_the_message_is_stored_during_its_check() {
    let database = Database::create().await;
    let hook = Hook::start(|_| Reply::Never).await;
    let settings = hook.failing_to("reject", "2s");
    // The hook does not respond before the timeout. Meanwhile a replica without the hook stores the first attempt.
    let (server, other) = (Server::start_with(&database, &settings).await, Server::start(&database).await);
    let (rider, _) = server.open_ride("ride_1").await;
    let retry = rider.send_with_id("ride_1", "Hello", "name_1");
    let first = async {
        eventually("the hook has the request", async || (!hook.received().is_empty()).then_some(())).await;
        rider.on(&other).send_with_id("ride_1", "Hello", "name_1").await.expect(201)
    };
    let (retry, first) = tokio::join!(retry, first);
    assert_eq!(retry.expect(200).json()["id"], first.json()["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_are_checked_unless_they_change_nothing() {
    let database = Database::create().await;
    let hook = Hook::start(verdict).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let path = format!("messages/{}", sent["id"].as_str().unwrap());

    rider.edit(&sent, "a bad edit").await.problem(422, "message_rejected");
    assert_eq!(rider.get(&path).await.expect(200).json()["content"], "Hello");
    assert_eq!(rider.edit(&sent, "My number").await.expect(200).json()["content"], "My ***");
    let count = hook.received().len();
    rider.edit(&sent, "My ***").await.expect(200);
    rider.patch(&path, json!({ "metadata": null })).await.expect(200);
    rider.patch(&path, json!({})).await.expect(200);
    assert_eq!(hook.received().len(), count, "unchanged edits are not checked");

    hook.set_rule(|data| match data["metadata"]["card"].is_null() {
        true => allow(),
        false => Reply::Json(json!({ "action": "reject", "reason": "No cards" })),
    });
    let head = database.head("ride_1").await;
    rider.patch(&path, json!({ "metadata": { "card": "of mine" } })).await.problem(422, "message_rejected");
    rider.patch(&path, json!({ "metadata": { "mood": "fine" } })).await.expect(200);
    assert_eq!(database.head("ride_1").await, head + 1);
    // A replacement equal to the current content changes nothing.
    hook.set_rule(|_| Reply::Json(json!({ "action": "replace", "content": "My ***" })));
    assert_eq!(rider.edit(&sent, "Something else").await.expect(200).json()["content"], "My ***");
    assert_eq!(database.head("ride_1").await, head + 1);

    let count = hook.received().len();
    driver.edit(&sent, "Not mine").await.problem(403, "forbidden");
    rider.delete_message(&sent).await.expect(204);
    rider.edit(&sent, "Too late").await.problem(409, "message_deleted");
    assert_eq!(hook.received().len(), count, "rejected requests are not checked");
    let stored = dump(&database).await;
    for secret in ["a bad edit", "of mine", "Something else", "Not mine"] {
        assert!(stored.contains("ride_1") && !stored.contains(secret), "{secret} is stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_checked_again_after_a_concurrent_edit() {
    let database = Database::create().await;
    let hook = Hook::start(|_| allow()).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let other = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let path = format!("messages/{}", sent["id"].as_str().unwrap());
    // The hook responds after the other edit is stored. The result of this edit is then another message.
    let (release, released) = tokio::sync::watch::channel(false);
    hook.set_rule(move |data| {
        if data["metadata"]["hidden"] == "bad" {
            return Reply::Json(json!({ "action": "reject" }));
        }
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current()
                .block_on(released.clone().wait_for(|released| *released))
                .map(drop)
                .unwrap();
        });
        allow()
    });
    let edited = rider.patch(&path, json!({ "content": "see attachment" }));
    let between = async {
        eventually("the hook has the request", async || (hook.received().len() > 1).then_some(())).await;
        let metadata = json!({ "metadata": { "hidden": "bad" } });
        rider.on(&other).patch(&path, metadata).await.expect(200);
        release.send_replace(true);
    };
    let (edited, ()) = tokio::join!(edited, between);
    edited.problem(422, "message_rejected");
    let last = hook.received().last().unwrap().json();
    assert_eq!(last["data"]["content"], "see attachment");
    assert_eq!(last["data"]["metadata"], json!({ "hidden": "bad" }));
    assert_eq!(rider.get(&path).await.expect(200).json()["content"], "Hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unauthorized_sends_are_rejected_without_a_check() {
    let database = Database::create().await;
    let hook = Hook::start(|_| allow()).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let other = server.rider("rider_2");
    let body = |ride: &str| json!({ "rideId": ride, "content": "Let me in" });
    other.post("messages", body("ride_1")).await.problem(404, "ride_not_found");
    other.post("messages", body("nowhere")).await.problem(404, "ride_not_found");
    other.send_with_id("ride_1", "Let me in", "name_1").await.problem(404, "ride_not_found");
    rider.post("messages", json!({ "rideId": "ride_1", "content": "" })).await.problem(400, "invalid_request");
    server.service().put_ride("ride_2", "rider_1", None).await.expect(201);
    rider.post("messages", body("ride_2")).await.expect(409);
    let sent = rider.send("ride_1", "Hello").await;
    other.edit(&sent, "Changed").await.problem(404, "message_not_found");
    assert_eq!(hook.contents(), ["Hello"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_sends_through_a_hook_of_50_ms_are_checked_and_stored() {
    let database = Database::create().await;
    // The hook responds 50 ms after the maximum of concurrent requests has arrived. Further requests would arrive in that time.
    let hook = Hook::start(|_| Reply::After(256, Duration::from_millis(50), json!({ "action": "allow" }))).await;
    let settings = [&hook.settings()[..], &[("RIDEWIRE_SENDS_PER_SECOND", "0")]].concat();
    let server = Server::start_with(&database, &settings).await;
    let mut riders = Vec::new();
    for ride in 0..10 {
        riders.push(server.open_ride(&format!("ride_{ride}")).await.0);
    }
    let sends = (0..1_000).map(|n| {
        let rider = &riders[n % 10];
        async move {
            let body = json!({ "rideId": format!("ride_{}", n % 10), "content": format!("Message {n}") });
            rider.execute(rider.request(Method::POST, "messages").json(&body)).await.expect(201);
        }
    });
    join_all(sends).await;
    let mut checked = hook.contents();
    checked.sort();
    checked.dedup();
    assert_eq!((checked.len(), hook.received().len()), (1_000, 1_000));
    assert_eq!(hook.max_concurrent(), 256, "concurrent requests");
}
