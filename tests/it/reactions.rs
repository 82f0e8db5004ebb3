//! Reactions to messages.

use serde_json::{Value, json};

use crate::support::{Answer, Database, Server, User};

const THUMB: &str = "%F0%9F%91%8D";

async fn react(user: &User, message: &Value, emoji: &str) -> Answer {
    let path = format!("messages/{}/reactions/{emoji}", message["id"].as_str().unwrap());
    user.ask(user.request(reqwest::Method::PUT, &path)).await
}

async fn take_back(user: &User, message: &Value, emoji: &str) -> Answer {
    user.delete(&format!("messages/{}/reactions/{emoji}", message["id"].as_str().unwrap())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaction_is_told_once_shown_with_its_message_and_taken_back() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let mut stream = server.live(&rider, "ride_1").await;
    react(&driver, &sent, THUMB).await.expect(204);
    let told = stream.next_of("message:reaction").await.data;
    let expected = json!({
        "rideId": "ride_1", "messageId": sent["id"], "userId": "driver_1", "emoji": "👍", "removed": false,
        "at": told["at"],
    });
    assert_eq!(told, expected);
    let head = database.head("ride_1").await;
    react(&driver, &sent, THUMB).await.expect(204);
    assert_eq!(database.head("ride_1").await, head, "again is no event");
    react(&rider, &sent, THUMB).await.expect(204);
    let path = format!("messages/{}", sent["id"].as_str().unwrap());
    let mut message = rider.get(&path).await.expect(200).json();
    message["reactions"][0]["userIds"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
    assert_eq!(message["reactions"], json!([{ "emoji": "👍", "userIds": ["driver_1", "rider_1"] }]));

    take_back(&driver, &sent, THUMB).await.expect(204);
    stream.next_of("message:reaction").await;
    assert_eq!(stream.next_of("message:reaction").await.data["removed"], true);
    let head = database.head("ride_1").await;
    take_back(&driver, &sent, THUMB).await.expect(204);
    assert_eq!(database.head("ride_1").await, head);
    let history = driver.history("ride_1", "").await;
    assert_eq!(history["messages"][0]["reactions"], json!([{ "emoji": "👍", "userIds": ["rider_1"] }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_message_takes_no_reactions_and_what_is_no_emoji_is_none() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    for wrong in ["hello", "%00", "%20", "%F0%9F%91%8D%F0%9F%91%8D%F0%9F%91%8Dx"] {
        react(&driver, &sent, wrong).await.problem(400, "invalid_request");
    }
    // Families, skin tones and flags are one emoji each, however many characters they are.
    for emoji in ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️"] {
        react(&driver, &sent, emoji).await.expect(204);
    }
    rider.erase(&sent).await.expect(204);
    let before = database.contents().await;
    react(&driver, &sent, THUMB).await.problem(409, "message_deleted");
    assert_eq!(database.contents().await, before);
}
