//! Sending, editing and deleting.

use serde_json::{Value, json};

use crate::support::{Database, Server};

/// Right-to-left scripts, combining marks, emoji sequences, tags, line separators, and significant
/// white space.
const CONTENTS: &[&str] = &[
    "Hello",
    "  kept, with its spaces \t",
    "two\nlines\r\nand\ra third",
    "data: x\n\nevent: stream:closing\nid: 9999\n\n",
    "\u{2028}\u{2029}\u{85}\u{7f}\u{1}\u{1b}[31m",
    "مرحبا، أين أنت؟ \u{202e}abc\u{202c}",
    "שלום 🇮🇱 נהג",
    "こんにちは、どこですか？ 你好 안녕하세요",
    "नमस्ते क्षत्रिय ਸਤਿ ਸ੍ਰੀ ਅਕਾਲ",
    "e\u{301} is not é; Z\u{351}\u{36b}\u{343}a\u{34a}l\u{301}g\u{327}o",
    "👩‍👩‍👧‍👦 👍🏽 🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f} 🚕",
    "\u{feff}bom \u{fffd} \u{10ffff} \u{fffe}",
    r#"quotes " and \ and \u0041 and </script> and {"a": 1}"#,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sent_message_is_returned_as_stored() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let metadata = json!({ "place": { "lat": 1.5, "lng": -2 }, "tags": ["a", null, true], "": 0 });
    let body = json!({ "rideId": "ride_1", "content": "Hello", "metadata": metadata, "clientMessageId": "m-1" });
    let response = rider.post("messages", body).await.expect(201);
    let sent = response.json();
    let id = sent["id"].as_str().unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    assert_eq!(response.header("location"), format!("/api/v1/messages/{id}"));
    assert_eq!(
        sent,
        json!({
            "id": id, "rideId": "ride_1", "seq": 2, "senderId": "rider_1", "senderRole": "rider", "content": "Hello",
            "metadata": metadata, "clientMessageId": "m-1", "createdAt": sent["createdAt"], "editedAt": null,
            "deletedAt": null, "labels": null, "reactions": [], "isDelivered": false, "isRead": false,
        })
    );
    let at = sent["createdAt"].as_str().unwrap();
    assert!(at.len() == "2026-01-22T22:45:00.123Z".len() && at.ends_with('Z'), "{at}");
    at.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(driver.get(&format!("messages/{id}")).await.expect(200).json(), sent);
    assert_eq!(driver.history("ride_1", "").await["messages"], json!([sent]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_of_any_script_is_returned_byte_for_byte_on_each_path() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = server.live_stream(&driver, "ride_1").await;
    for content in CONTENTS {
        let body = json!({ "rideId": "ride_1", "content": content, "metadata": { *content: [content] } });
        let sent = rider.post("messages", body).await.expect(201).json();
        assert_eq!(sent["content"], *content);
        assert_eq!(sent["metadata"][content][0], *content);
        assert_eq!(stream.next_of_type("message:new").await.data, sent);
        let found = driver.get(&format!("messages/{}", sent["id"].as_str().unwrap())).await.expect(200).json();
        assert_eq!(found, sent);
    }
    let history = server.service().history("ride_1", "").await;
    let polled = server.service().poll("ride_1", "after=1").await;
    for (index, content) in CONTENTS.iter().enumerate() {
        assert_eq!(history["messages"][index]["content"], *content);
        assert_eq!(polled["events"][index]["data"]["content"], *content);
    }
    let mut replay = server.service().stream("ride_1", "after=1").await;
    replay.next_sync().await;
    for content in CONTENTS {
        assert_eq!(replay.next_of_type("message:new").await.data["content"], *content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_changes_only_the_given_fields_and_an_unchanged_edit_creates_no_event() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let body = json!({ "rideId": "ride_1", "content": "Helo", "metadata": { "a": 1 } });
    let sent = rider.post("messages", body).await.expect(201).json();
    let path = format!("messages/{}", sent["id"].as_str().unwrap());
    let mut stream = server.live_stream(&driver, "ride_1").await;

    let edited = rider.edit(&sent, "Hello").await.expect(200).json();
    assert_eq!(edited["content"], "Hello");
    assert_eq!(edited["metadata"], json!({ "a": 1 }));
    assert!(edited["editedAt"].is_string());
    assert_eq!((&edited["seq"], &edited["createdAt"]), (&sent["seq"], &sent["createdAt"]));
    let event = stream.next_of_type("message:edited").await;
    assert_eq!((event.seq(), event.data), (3, edited.clone()));

    assert_eq!(rider.edit(&sent, "Hello").await.expect(200).json(), edited);
    assert_eq!(rider.patch(&path, json!({})).await.expect(200).json(), edited);
    assert_eq!(rider.patch(&path, json!({ "metadata": { "a": 1 } })).await.expect(200).json(), edited);
    assert_eq!(database.head("ride_1").await, 3);

    let other = rider.patch(&path, json!({ "metadata": { "b": 2 } })).await.expect(200).json();
    assert_eq!((&other["content"], &other["metadata"]), (&json!("Hello"), &json!({ "b": 2 })));
    assert_eq!(stream.next_of_type("message:edited").await.data["metadata"], json!({ "b": 2 }));

    driver.edit(&sent, "changed").await.problem(403, "forbidden");
    server.support().edit(&sent, "changed").await.problem(403, "forbidden");
    server.driver("user_9").edit(&sent, "changed").await.problem(404, "message_not_found");
    rider.patch(&path, json!({ "content": " " })).await.invalid_field("/content");
    rider.patch(&path, json!({ "contents": "x" })).await.invalid_field("/contents");
    assert_eq!(database.head("ride_1").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_message_leaves_a_tombstone_without_content() {
    let database = Database::create().await;
    let (server, other) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut streams = [server.live_stream(&driver, "ride_1").await, other.live_stream(&driver, "ride_1").await];
    let body = json!({ "rideId": "ride_1", "content": "secret one", "metadata": { "key": "secret two" } });
    let sent = rider.post("messages", body).await.expect(201).json();
    rider.edit(&sent, "secret three").await.expect(200);
    rider.send("ride_1", "another").await;
    driver.mark(&sent, "read").await.expect(200);
    assert_eq!(rider.delete_message(&sent).await.expect(204).text(), "");
    let head = database.head("ride_1").await;
    rider.delete_message(&sent).await.expect(204);
    assert_eq!(database.head("ride_1").await, head, "a repeated deletion is not an event");

    for stream in &mut streams {
        let deleted = stream.find("message:deleted").await;
        assert_eq!(deleted.seq(), head);
        let expected = json!({
            "rideId": "ride_1", "messageId": sent["id"], "seq": sent["seq"], "by": "rider_1", "at": deleted.data["at"],
        });
        assert_eq!(deleted.data, expected);
    }
    let tombstone = driver.get(&format!("messages/{}", sent["id"].as_str().unwrap())).await.expect(200).json();
    assert_eq!((&tombstone["content"], &tombstone["metadata"]), (&Value::Null, &Value::Null));
    assert!(tombstone["deletedAt"].is_string());
    assert_eq!((&tombstone["id"], &tombstone["seq"]), (&sent["id"], &sent["seq"]));

    // The content is erased from the log, from the replicas' memory and from the database.
    assert!(!database.contents().await.contains("secret"));
    for server in [&server, &other] {
        let service = server.service();
        assert!(!service.history("ride_1", "").await.to_string().contains("secret"));
        let polled = service.poll("ride_1", "after=0").await;
        assert_eq!(polled["events"].as_array().unwrap().len() as i64, head, "the events of the message are kept");
        assert!(!polled.to_string().contains("secret"), "{polled}");
        let mut replay = service.stream("ride_1", "after=0").await;
        replay.next_sync().await;
        for seq in 1..=head {
            let event = replay.next_event().await;
            assert_eq!(event.seq(), seq);
            assert!(!event.text.contains("secret"), "{event:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_sender_and_support_can_delete_a_message() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let support = server.support();
    let (one, two) = (rider.send("ride_1", "one").await, rider.send("ride_1", "two").await);
    driver.delete_message(&one).await.problem(403, "forbidden");
    server.rider("user_9").delete_message(&one).await.problem(404, "message_not_found");
    support.delete_message(&one).await.expect(204);
    rider.delete_message(&two).await.expect(204);
    rider.edit(&one, "again").await.problem(409, "message_deleted");
    let sent = support.send("ride_1", "Support here").await;
    assert_eq!(sent["senderRole"], "support");
    rider.delete_message(&sent).await.problem(403, "forbidden");
    let system = server.service().send("ride_1", "Your driver is near").await;
    assert_eq!(system["senderRole"], "system");
}
