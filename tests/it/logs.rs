//! Secrets and content are never logged.

use reqwest::Method;
use serde_json::json;

use crate::support::{Database, Receiver, SECRET, Server, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_and_secrets_are_not_logged_at_any_level() {
    let database = Database::create().await;
    for format in ["text", "json"] {
        let filter = "trace,tokio_postgres=trace,hyper=trace,h2=trace,salvo_core=trace";
        let receiver = Receiver::accepting_all().await;
        let settings =
            [("RIDEWIRE_LOG", filter), ("RIDEWIRE_LOG_FORMAT", format), ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1")];
        let server = Server::start_with(&database, &settings).await;
        let ride = format!("ride_{format}");
        let (rider, driver) = server.open_ride(&ride).await;
        let url = format!("{}/ZEBRA-13?key=ZEBRA-14", receiver.base);
        let webhook = json!({ "url": url, "types": ["message:new"], "description": "ZEBRA-15" });
        let webhook = server.service().post("webhooks", webhook).await.expect(201).json();
        let webhook_secret = webhook["secret"].as_str().unwrap();
        let mut stream = driver.stream(&ride, "types=message:*&after=0").await;
        stream.next_sync().await;
        let body = json!({ "rideId": ride, "content": "ZEBRA-1", "metadata": { "ZEBRA-2": "ZEBRA-3" },
            "clientMessageId": "ZEBRA-16" });
        let sent = rider.post("messages", body).await.expect(201).json();
        rider.send_with_id(&ride, "ZEBRA-17", "ZEBRA-16").await.problem(409, "idempotency_conflict");
        let keyed = rider.request(Method::POST, "messages").header("idempotency-key", "ZEBRA-18");
        rider.execute(keyed.json(&json!({ "rideId": ride, "content": "ZEBRA-19" }))).await.expect(201);
        receiver.until_accepted("/ZEBRA-13", 2).await;
        stream.find("message:new").await;
        rider.edit(&sent, "ZEBRA-4").await.expect(200);
        rider.edit(&sent, &"ZEBRA-5".repeat(1_000)).await.problem(400, "invalid_request");
        rider.send_bytes(Method::POST, "messages", "{\"ZEBRA-6\": ").await.problem(400, "invalid_request");
        server.service().broadcast(&["rider_1"], json!({ "text": "ZEBRA-7" })).await.expect(202);
        let forged = rider.clone().with_token("ZEBRA-8.ZEBRA-8.ZEBRA-8");
        forged.get("rides?status=ZEBRA-9").await.problem(401, "token_malformed");
        let ticket = rider.post("stream-tickets", json!({})).await.expect(201).json()["ticket"].clone();
        let ticket = ticket.as_str().unwrap();
        let anonymous = rider.clone().with_token("");
        anonymous.get(&format!("messages/rides/{ride}/poll?after=0&ticket={ticket}&_=ZEBRA-10")).await.expect(200);
        rider.history(&ride, "?limit=10&_=ZEBRA-11").await;
        rider.post(&format!("rides/{ride}/cancel"), json!({ "reason": "ZEBRA-12" })).await.expect(200);
        // Arbitrary text in place of an id, a path or a method.
        rider.get("messages/ZEBRA-20").await.problem(400, "invalid_request");
        rider.get("messages/rides/ZEBRA-21").await.problem(404, "ride_not_found");
        rider.get("ZEBRA-22/ZEBRA-23?ZEBRA-24=ZEBRA-25").await.problem(404, "not_found");
        rider.execute(rider.request(Method::from_bytes(b"ZEBRA-26").unwrap(), "messages")).await.expect(405);
        rider.delete_message(&sent).await.expect(204);
        server.service().delete("users/rider_1").await.expect(200);
        let last = rider.get("rides").await.expect(200).header("x-request-id").to_owned();
        let log =
            eventually("the last request is in the log", async || Some(server.log()).filter(|log| log.contains(&last)))
                .await;
        assert!(
            log.contains("request completed") && log.contains("stream opened"),
            "the log has entries: {}",
            log.len()
        );
        let (signed, signature) = ticket.rsplit_once('.').unwrap();
        let token = rider.token.rsplit_once('.').unwrap();
        let secrets = ["ZEBRA", SECRET, signed, signature, token.0, token.1, "types=", "after=0", "ticket=", "whsec_"];
        for secret in secrets.into_iter().chain([webhook_secret]) {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is in the log");
        }
        // The access log does not contain user ids and ride ids.
        let is_access = |line: &&str| line.contains(" access: ") || line.contains(r#""target":"access""#);
        let access: Vec<&str> = log.lines().filter(is_access).collect();
        assert!(access.len() > 20, "{}", access.len());
        for line in access {
            assert!(!["rider_1", "driver_1", &ride].iter().any(|id| line.contains(id)), "{line}");
        }
    }
}
