//! Reactions to messages.

use serde_json::json;

use crate::support::{Database, Server, User};

async fn react(user: &User, message: &serde_json::Value, emoji: &str) -> crate::support::Response {
    user.put(&format!("messages/{}/reactions/{emoji}", message["id"].as_str().unwrap()), json!({})).await
}

async fn remove_reaction(user: &User, message: &serde_json::Value, emoji: &str) -> crate::support::Response {
    user.delete(&format!("messages/{}/reactions/{emoji}", message["id"].as_str().unwrap())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaction_creates_one_event_and_is_stored_with_its_message() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = two.live_stream(&rider, "ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    stream.next_of_type("message:new").await;
    react(&driver, &sent, "👍").await.expect(204);
    react(&driver, &sent, "👍").await.expect(204);
    react(&rider.on(&two), &sent, "👍").await.expect(204);
    react(&rider, &sent, "❤").await.expect(204);
    for (user, emoji) in [("driver_1", "👍"), ("rider_1", "👍"), ("rider_1", "❤️")] {
        let data = stream.next_of_type("message:reaction").await.data;
        assert_eq!((&data["userId"], &data["emoji"], &data["removed"]), (&json!(user), &json!(emoji), &json!(false)));
        assert_eq!((&data["rideId"], &data["messageId"]), (&json!("ride_1"), &sent["id"]));
    }
    let history = driver.history("ride_1", "").await;
    let expected =
        json!([{"emoji": "👍", "userIds": ["driver_1", "rider_1"]}, {"emoji": "❤️", "userIds": ["rider_1"]}]);
    assert_eq!(history["messages"][0]["reactions"], expected);

    remove_reaction(&rider, &sent, "👍").await.expect(204);
    remove_reaction(&rider, &sent, "👍").await.expect(204);
    let data = stream.next_of_type("message:reaction").await.data;
    assert_eq!((&data["emoji"], &data["removed"]), (&json!("👍"), &json!(true)));
    rider.send("ride_1", "next").await;
    stream.next_of_type("message:new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_emoji_and_deleted_messages_are_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    for wrong in ["a", "%F0%9F%91%8D%F0%9F%91%8D", "1", ":+1:"] {
        react(&driver, &sent, wrong).await.invalid_field("emoji");
    }
    react(&server.rider("stranger"), &sent, "👍").await.problem(404, "message_not_found");
    react(&server.service(), &sent, "👍").await.problem(403, "forbidden");
    let kinds = "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗😙😚🙂🤗🤩";
    for (number, kind) in kinds.chars().enumerate() {
        let response = react(&driver, &sent, &kind.to_string()).await;
        match number {
            0..20 => drop(response.expect(204)),
            _ => drop(response.problem(409, "too_many_reactions")),
        }
    }
    rider.delete_message(&sent).await.expect(204);
    react(&driver, &sent, "👍").await.problem(409, "message_deleted");
    let tombstone = driver.get(&format!("messages/{}", sent["id"].as_str().unwrap())).await.expect(200).json();
    assert_eq!(tombstone["reactions"], json!([]));
}
