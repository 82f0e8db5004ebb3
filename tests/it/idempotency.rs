//! Idempotency: a retried send creates one message.

use ridewire::domain::{Content, ContentHash};
use serde_json::{Value, json};

use crate::support::{Database, Server, User};

async fn send_keyed(user: &User, body: Value, key: &str) -> crate::support::Response {
    let request = user.request(reqwest::Method::POST, "messages").header("idempotency-key", key);
    user.execute(request.json(&body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_returns_the_same_message_on_any_replica_at_any_time() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let sent = rider.send_with_id("ride_1", "Hello", "m-1").await.expect(201).json();
    let again = rider.on(&two).send_with_id("ride_1", "Hello", "m-1").await.expect(200);
    assert_eq!(again.header("location"), format!("/api/v1/messages/{}", sent["id"].as_str().unwrap()));
    assert_eq!(again.json(), sent);
    rider.send_with_id("ride_1", "Hello!", "m-1").await.problem(409, "idempotency_conflict");

    // The `clientMessageId` is scoped to one sender and one ride.
    assert_ne!(driver.send_with_id("ride_1", "Hello", "m-1").await.expect(201).json()["id"], sent["id"]);
    two.service().put_ride("ride_2", "rider_1", Some("driver_1")).await.expect(201);
    assert_ne!(rider.send_with_id("ride_2", "Hello", "m-1").await.expect(201).json()["id"], sent["id"]);

    // The original content is compared, also after an edit.
    rider.edit(&sent, "Good morning").await.expect(200);
    let again = rider.send_with_id("ride_1", "Hello", "m-1").await.expect(200).json();
    assert_eq!((&again["id"], &again["content"]), (&sent["id"], &json!("Good morning")));
    rider.send_with_id("ride_1", "Good morning", "m-1").await.problem(409, "idempotency_conflict");

    // A repeat after the deletion does not create the message again.
    rider.delete_message(&sent).await.expect(204);
    let head = database.head("ride_1").await;
    let again = rider.on(&two).send_with_id("ride_1", "Hello", "m-1").await.expect(200).json();
    assert_eq!((&again["id"], &again["content"]), (&sent["id"], &Value::Null));
    assert!(again["deletedAt"].is_string());
    // The hash was erased with the content, so only the `clientMessageId` is compared.
    let other = rider.send_with_id("ride_1", "Other", "m-1").await.expect(200).json();
    assert_eq!((&other["id"], &other["content"]), (&sent["id"], &Value::Null));
    assert_eq!(database.head("ride_1").await, head);
    let hash = database
        .client()
        .await
        .query_one("select content_hash from messages where deleted_at is not null", &[])
        .await
        .unwrap();
    assert_eq!(hash.get::<_, Vec<u8>>(0), [0; 16]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_comparison_includes_metadata() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let body = |metadata: Value| json!({ "rideId": "ride_1", "content": "Hello", "metadata": metadata, "clientMessageId": "m-1" });
    rider.post("messages", body(json!({ "a": 1, "b": 2 }))).await.expect(201);
    rider.post("messages", body(json!({ "b": 2, "a": 1 }))).await.expect(200);
    rider.post("messages", body(json!({ "a": 1 }))).await.problem(409, "idempotency_conflict");
    rider.send_with_id("ride_1", "Hello", "m-1").await.problem(409, "idempotency_conflict");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_idempotency_key_header_and_the_field_are_equivalent() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let plain = json!({ "rideId": "ride_1", "content": "Hello" });
    let with_id = |id: &str| json!({ "rideId": "ride_1", "content": "Hello", "clientMessageId": id });
    let sent = send_keyed(&rider, plain.clone(), "k-1").await.expect(201).json();
    assert_eq!(sent["clientMessageId"], "k-1");
    assert_eq!(send_keyed(&rider, plain, "k-1").await.expect(200).json(), sent);
    assert_eq!(send_keyed(&rider, with_id("k-1"), "k-1").await.expect(200).json(), sent);
    assert_eq!(rider.send_with_id("ride_1", "Hello", "k-1").await.expect(200).json(), sent);
    send_keyed(&rider, with_id("k-2"), "k-1").await.problem(400, "invalid_request");
    assert_eq!(database.head("ride_1").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_retries_on_two_replicas_create_one_message() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, _) = one.open_ride("ride_1").await;
    let users = [rider.on(&one), rider.on(&two)];
    let sends = (0..40).map(|index| {
        let user = users[index % 2].clone();
        tokio::spawn(async move { user.send_with_id("ride_1", "Hello", "m-1").await })
    });
    let mut created = 0;
    let mut ids = std::collections::BTreeSet::new();
    for send in sends.collect::<Vec<_>>() {
        let response = send.await.unwrap();
        created += i32::from(response.status == 201);
        ids.insert(response.json()["id"].to_string());
    }
    assert_eq!((created, ids.len()), (1, 1));
    assert_eq!(database.head("ride_1").await, 2);
}

/// Returns the block of the migration that adds the key to the stored hashes.
fn add_the_key() -> String {
    let migration = include_str!("../../sql/migrations/V21__erasure.sql");
    let (_, block) = migration.split_once("do $$").unwrap();
    let (block, _) = block.split_once("end $$;").unwrap();
    format!("do $${block}end $$;")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stored_hash_is_keyed_and_a_retry_across_the_upgrade_creates_one_message() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, _) = one.open_ride("ride_1").await;
    let sent = rider.send_with_id("ride_1", "Hi", "m-1").await.expect(201).json();
    let client = database.client().await;
    let stored =
        async || -> Vec<u8> { client.query_one("select content_hash from messages", &[]).await.unwrap().get(0) };
    let keyed = stored().await;
    let without_key = ContentHash::without_key(&Content::parse("Hi".to_owned()).unwrap(), None);
    assert_ne!(keyed, without_key.as_bytes(), "the hash cannot confirm a guess of the content");

    // A previous version stored the hash without the key.
    let store = "update messages set content_hash = $1";
    client.execute(store, &[&without_key.as_bytes()]).await.unwrap();
    for server in [&one, &two] {
        let again = rider.on(server).send_with_id("ride_1", "Hi", "m-1").await.expect(200).json();
        assert_eq!(again["id"], sent["id"]);
        rider.on(server).send_with_id("ride_1", "Ho", "m-1").await.problem(409, "idempotency_conflict");
    }
    // The migration adds the key.
    client.batch_execute(&add_the_key()).await.unwrap();
    assert_eq!(stored().await, keyed);
    rider.send_with_id("ride_1", "Hi", "m-1").await.expect(200);
    rider.send_with_id("ride_1", "Ho", "m-1").await.problem(409, "idempotency_conflict");
}
