//! The issuer's JWKS: how it is loaded and refreshed, and what happens during an outage of the issuer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use reqwest::Method;
use ridewire::domain::Time;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::support::{Database, SECRET, Server, Stream, User, eventually, ridewire};

/// A key of an issuer.
#[derive(Clone, Copy)]
pub(super) struct Key {
    id: &'static str,
    algorithm: Algorithm,
    private: &'static [u8],
    pub(super) public: &'static [u8],
}

pub(super) const EC: Key = Key {
    id: "ec-2026",
    algorithm: Algorithm::ES256,
    private: include_bytes!("../keys/p256.pem"),
    public: include_bytes!("../keys/p256.pub.pem"),
};

pub(super) const RSA: Key = Key {
    id: "rsa-2027",
    algorithm: Algorithm::RS256,
    private: include_bytes!("../keys/rsa.pem"),
    public: include_bytes!("../keys/rsa.pub.pem"),
};

impl Key {
    pub(super) fn token(self, id: &str, user: &str, role: &str) -> String {
        let key = match self.algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(self.private).unwrap(),
            _ => EncodingKey::from_rsa_pem(self.private).unwrap(),
        };
        let header = Header { kid: Some(id.to_owned()), ..Header::new(self.algorithm) };
        let claims = json!({"sub": user, "role": role, "exp": Time::now().as_unix_seconds() + 600});
        encode(&header, &claims, &key).unwrap()
    }

    fn to_jwk(self) -> Value {
        let key = match self.algorithm {
            Algorithm::ES256 => DecodingKey::from_ec_pem(self.public).unwrap(),
            _ => DecodingKey::from_rsa_pem(self.public).unwrap(),
        };
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&key, None).unwrap()).unwrap();
        jwk["kid"] = self.id.into();
        jwk
    }

    /// Returns the platform's client with a token of this key.
    pub(super) fn service(self, server: &Server) -> User {
        server.service().with_token(self.token(self.id, "platform", "service"))
    }
}

pub(super) fn set(keys: &[Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.to_jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// A server that publishes a JWKS and counts the requests.
pub(super) struct Issuer {
    pub(super) url: String,
    response: Arc<Mutex<Option<String>>>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Issuer {
    /// With `None`, requests get no response.
    pub(super) async fn publishing(response: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
        let (response, requests) = (Arc::new(Mutex::new(response)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (response, requests) = (Arc::clone(&response), Arc::clone(&requests));
            async move {
                loop {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let mut head = [0; 4_096];
                    let _ = socket.read(&mut head).await;
                    if let Some(body) = &*response.lock().await {
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
                    }
                    requests.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { url, response, requests, task }
    }

    pub(super) async fn publish(&self, response: Option<String>) {
        *self.response.lock().await = response;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_accepted_immediately_and_unknown_keys_cause_few_requests_to_the_issuer() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC]))).await;
    let server = Server::start_with(&database, &[("RIDEWIRE_JWKS", &issuer.url)]).await;
    EC.service(&server).get("rides").await.expect(200);
    // Tokens signed with the secret are accepted too.
    server.service().get("rides").await.expect(200);
    assert_eq!(issuer.requests(), 1, "at the start");

    issuer.publish(Some(set(&[EC, RSA]))).await;
    RSA.service(&server).get("rides").await.expect(200);
    assert_eq!(issuer.requests(), 2, "for the new key");
    let started = Instant::now();
    for number in 0..50 {
        let unknown = EC.token(&format!("unknown-{number}"), "platform", "service");
        let response = server.service().with_token(unknown).get("rides").await;
        match number {
            0..5 => response.problem(401, "key_unknown"),
            // The key may be new: this is unknown until the next request of the set is allowed.
            _ if response.status == 503 => response.problem(503, "unavailable"),
            _ => response.problem(401, "key_unknown"),
        };
    }
    let more = usize::try_from(started.elapsed().as_secs() / 5).unwrap();
    assert!(issuer.requests() <= 2 + 10 + more, "{} requests", issuer.requests());
    // A key is valid only for its own algorithm, whatever the token's header says.
    let confused = EC.token(RSA.id, "platform", "service");
    server.service().with_token(confused).get("rides").await.problem(401, "signature_invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loaded_keys_stay_valid_during_an_outage_of_the_issuer_until_it_removes_them() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC, RSA]))).await;
    let server =
        Server::start_with(&database, &[("RIDEWIRE_JWKS", &issuer.url), ("RIDEWIRE_JWKS_PERIOD", "200ms")]).await;
    for outage in [None, Some("<html>".to_owned()), Some(json!({"keys": []}).to_string())] {
        issuer.publish(outage).await;
        let requests = issuer.requests();
        eventually("the set is requested again", async || (issuer.requests() > requests + 2).then_some(())).await;
        EC.service(&server).get("rides").await.expect(200);
    }
    issuer.publish(Some(set(&[RSA]))).await;
    eventually("the removed key is rejected, also for a cached token", async || {
        (EC.service(&server).get("rides").await.status == 401).then_some(())
    })
    .await;
    RSA.service(&server).get("rides").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_keys_are_unavailable_streams_and_requests_get_a_retry_time() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(None).await;
    let settings = [("RIDEWIRE_JWKS", issuer.url.as_str()), ("RIDEWIRE_JWKS_PERIOD", "200ms")];
    let server = Server::start_with(&database, &settings).await;
    // Tokens signed with the secret are accepted during the outage.
    server.open_ride("ride").await;
    let service = EC.service(&server);
    let rejected = service.get("rides").await;
    assert!(rejected.header("retry-after").parse::<u32>().unwrap() >= 1);
    rejected.problem(503, "unavailable");
    service.get("messages/rides/ride/poll?after=0&wait=0").await.problem(503, "unavailable");
    for path in ["messages/rides/ride/events", "events"] {
        let throttled = service.get(path).await.expect(200);
        assert_eq!(throttled.header("content-type"), "text/event-stream");
        assert!(
            throttled.text().starts_with("retry: ") && !throttled.text().contains("stream:sync"),
            "{}",
            throttled.text()
        );
    }
    // A malformed token is still rejected.
    service.clone().with_token("no.to.ken").get("rides").await.problem(401, "token_malformed");

    issuer.publish(Some(set(&[EC]))).await;
    eventually("the set is loaded", async || (service.get("rides").await.status == 200).then_some(())).await;
    service.clone().on(&server).stream("ride", "").await.next_sync().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwks_file_is_reloaded_for_an_unknown_key() {
    let database = Database::create().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    let path = file.display().to_string();
    for (text, expected) in [(None, "jwks.json"), (Some("{}"), "RIDEWIRE_JWKS")] {
        text.iter().for_each(|text| std::fs::write(&file, text).unwrap());
        let mut command = ridewire();
        command.env("DATABASE_URL", &database.url).env("RIDEWIRE_JWKS", &path).env("RIDEWIRE_JWT_SECRET", SECRET);
        let rejected = command.output().await.unwrap();
        let error = String::from_utf8_lossy(&rejected.stderr).into_owned();
        assert!(!rejected.status.success() && error.contains(expected), "{error}");
    }
    std::fs::write(&file, set(&[EC])).unwrap();
    let server = Server::start_with(&database, &[("RIDEWIRE_JWKS", &path)]).await;
    EC.service(&server).get("rides").await.expect(200);
    std::fs::write(&file, set(&[RSA])).unwrap();
    RSA.service(&server).get("rides").await.expect(200);
    EC.service(&server).get("rides").await.problem(401, "key_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_keys_do_not_delay_or_reject_a_new_key() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC]))).await;
    let server = Server::start_with(&database, &[("RIDEWIRE_JWKS", &issuer.url)]).await;
    server.open_ride("ride").await;
    for number in 0..30 {
        let unknown = EC.token(&format!("unknown-{number}"), "platform", "service");
        assert!(server.service().with_token(unknown).get("rides").await.status.as_u16() >= 401);
    }
    issuer.publish(Some(set(&[RSA]))).await;
    let service = RSA.service(&server);
    eventually("the new key is accepted", async || {
        let response = service.get("rides").await;
        assert_ne!(response.status, 401, "{}", response.text());
        let stream = service.stream("ride", "").await;
        assert_eq!(stream.status, 200, "an `EventSource` would not reconnect");
        (response.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawing_a_key_ends_the_streams_and_polls_of_its_tokens_and_tickets() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC, RSA]))).await;
    let server =
        Server::start_with(&database, &[("RIDEWIRE_JWKS", &issuer.url), ("RIDEWIRE_JWKS_PERIOD", "200ms")]).await;
    server.open_ride("ride").await;
    let rider = server.rider("rider_1").with_token(EC.token(EC.id, "rider_1", "rider"));
    let kept = server.rider("rider_1").with_token(RSA.token(RSA.id, "rider_1", "rider"));
    let ticket = async |user: &User| {
        let issued = user.post("stream-tickets", json!({})).await.expect(201).json();
        issued["ticket"].as_str().unwrap().to_owned()
    };
    let (of_withdrawn, of_kept) = (ticket(&rider).await, ticket(&kept).await);
    let anonymous = rider.clone().with_token("");
    let by_ticket = |ticket: &str| Stream::open(anonymous.request(Method::GET, &format!("events?ticket={ticket}")));
    let mut ended_streams = [server.live_stream(&rider, "ride").await, by_ticket(&of_withdrawn).await];
    ended_streams[1].next_sync().await;
    let mut open_streams = [server.live_stream(&kept, "ride").await, by_ticket(&of_kept).await];
    open_streams[1].next_sync().await;
    let polling = tokio::spawn({
        let rider = rider.clone();
        async move { rider.get("messages/rides/ride/poll?after=1&wait=55&types=message:read").await }
    });
    issuer.publish(Some(set(&[RSA]))).await;
    for stream in &mut ended_streams {
        let last = stream.until_end().await.pop().unwrap();
        assert_eq!((last.kind.as_str(), last.data), ("auth:expired", json!({ "reason": "key_unknown" })));
    }
    polling.await.unwrap().problem(401, "key_unknown");
    anonymous.get(&format!("poll?ticket={of_withdrawn}")).await.problem(401, "key_unknown");
    rider.get("rides").await.problem(401, "key_unknown");
    kept.send("ride", "Hello").await;
    for stream in &mut open_streams {
        stream.next_of_type("message:new").await;
    }
    // A new key with the id of a withdrawn key does not make its tickets valid again.
    let mut renamed = RSA;
    renamed.id = EC.id;
    issuer.publish(Some(set(&[renamed]))).await;
    anonymous.get(&format!("poll?ticket={of_withdrawn}")).await.problem(401, "key_unknown");
    anonymous.get(&format!("poll?ticket={of_kept}")).await.expect(200);
}
