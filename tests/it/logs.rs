//! What is in the log, and what never is.

use reqwest::Method;
use serde_json::json;

use crate::support::{Database, SECRET, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_anybody_says_or_shows_is_in_the_log_at_any_level() {
    let database = Database::create().await;
    for format in ["text", "json"] {
        let filter = "trace,tokio_postgres=trace,hyper=trace,h2=trace,salvo_core=trace";
        let server = Server::with(&database, &[("RIDEWIRE_LOG", filter), ("RIDEWIRE_LOG_FORMAT", format)]).await;
        let ride = format!("ride_{format}");
        let (rider, driver) = server.open_ride(&ride).await;
        let mut stream = driver.stream(&ride, "types=message:*&after=0").await;
        stream.next_sync().await;
        let body = json!({ "rideId": ride, "content": "ZEBRA-1", "metadata": { "ZEBRA-2": "ZEBRA-3" } });
        let sent = rider.post("messages", body).await.expect(201).json();
        stream.find("message:new").await;
        rider.edit(&sent, "ZEBRA-4").await.expect(200);
        rider.edit(&sent, &"ZEBRA-5".repeat(1_000)).await.problem(400, "invalid_request");
        rider.send_bytes(Method::POST, "messages", "{\"ZEBRA-6\": ").await.problem(400, "invalid_request");
        server.service().broadcast(&["rider_1"], json!({ "text": "ZEBRA-7" })).await.expect(202);
        let forged = rider.clone().with_token("ZEBRA-8.ZEBRA-8.ZEBRA-8");
        forged.get("rides?status=ZEBRA-9").await.problem(401, "token_malformed");
        let ticket = rider.post("stream-tickets", json!({})).await.expect(201).json()["ticket"].clone();
        let ticket = ticket.as_str().unwrap();
        let bare = rider.clone().with_token("");
        bare.get(&format!("messages/rides/{ride}/poll?after=0&ticket={ticket}&_=ZEBRA-10")).await.expect(200);
        rider.history(&ride, "?limit=10&_=ZEBRA-11").await;
        rider.post(&format!("rides/{ride}/cancel"), json!({ "reason": "ZEBRA-12" })).await.expect(200);
        rider.erase(&sent).await.expect(204);
        server.service().delete("users/rider_1").await.expect(200);
        let log = server.whole_log();
        assert!(log.contains("answered") && log.contains("DEBUG"), "it has logged at that level: {}", log.len());
        let (signed, signature) = ticket.rsplit_once('.').unwrap();
        let token = rider.token.rsplit_once('.').unwrap();
        for secret in ["ZEBRA", SECRET, signed, signature, token.0, token.1, "types=", "after=0", "ticket="] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is in the log");
        }
    }
}
