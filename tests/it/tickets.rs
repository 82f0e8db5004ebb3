//! Stream tickets, for clients that cannot set a header.

use reqwest::Method;
use serde_json::json;

use crate::support::{Database, Server, Stream, User, retry_with_longer_limit};

async fn ticket(user: &User, body: serde_json::Value) -> String {
    let issued = user.post("stream-tickets", body).await.expect(201).json();
    assert!(issued["expiresAt"].is_string());
    issued["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_streams_and_polls_on_every_replica_and_nothing_else() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let ticket = ticket(&rider, json!({})).await;
    let bearer_of_none = rider.on(&two).with_token("");
    let path = format!("messages/rides/ride_1/events?ticket={ticket}");
    let mut stream = Stream::open(bearer_of_none.request(Method::GET, &path)).await.expect(200);
    stream.next_sync().await;
    driver.send("ride_1", "Hello").await;
    stream.next_of_type("message:new").await;
    let polled = bearer_of_none.get(&format!("messages/rides/ride_1/poll?after=1&ticket={ticket}")).await;
    assert_eq!(polled.expect(200).json()["events"][0]["type"], "message:new");

    bearer_of_none.get(&format!("messages/rides/ride_1?ticket={ticket}")).await.problem(403, "forbidden");
    let send = json!({"rideId": "ride_1", "content": "no"});
    bearer_of_none.post(&format!("messages?ticket={ticket}"), send.clone()).await.problem(403, "forbidden");
    rider.clone().with_token(&ticket).post("messages", send).await.problem(403, "forbidden");
    rider.clone().with_token(&ticket).post("stream-tickets", json!({})).await.problem(403, "forbidden");
    let forged = format!("{}x", &ticket[..ticket.len() - 1]);
    bearer_of_none.get(&format!("messages/rides/ride_1/poll?ticket={forged}")).await.problem(401, "signature_invalid");
    // A token is not accepted in the URL.
    let path = format!("messages/rides/ride_1/poll?ticket={}", rider.token);
    bearer_of_none.get(&path).await.problem(401, "signature_invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_for_a_ride_opens_no_other_ride() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    server.open_ride("ride_2").await;
    let ticket = ticket(&rider, json!({"rideId": "ride_1"})).await;
    let nobody = rider.clone().with_token("");
    nobody.get(&format!("messages/rides/ride_1/poll?ticket={ticket}")).await.expect(200);
    nobody.get(&format!("messages/rides/ride_2/poll?ticket={ticket}")).await.problem(404, "ride_not_found");
    rider.post("stream-tickets", json!({"rideId": "ride_3"})).await.problem(404, "ride_not_found");
    rider.post("stream-tickets", json!({"rideId": "a b"})).await.invalid_field("/rideId");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_expires_with_its_token() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let mut stream = retry_with_longer_limit("a stream starts before the ticket expires", async |ttl| {
        let short_lived = rider.clone().with_token_ttl(ttl);
        let issued = short_lived.post("stream-tickets", json!({})).await;
        if issued.status != 201 {
            return None;
        }
        let path = format!("messages/rides/ride_1/events?ticket={}", issued.json()["ticket"].as_str().unwrap());
        let mut stream = Stream::open(short_lived.with_token("").request(Method::GET, &path)).await;
        let is_open = stream.status == 200 && stream.try_next().await.is_some_and(|event| event.kind == "stream:sync");
        is_open.then_some(stream)
    })
    .await;
    let kinds: Vec<_> = stream.until_end().await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["auth:expired"]);
}
