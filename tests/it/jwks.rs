//! The issuer's set of keys: read, kept current, and missed.

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

    fn published(self) -> Value {
        let key = match self.algorithm {
            Algorithm::ES256 => DecodingKey::from_ec_pem(self.public).unwrap(),
            _ => DecodingKey::from_rsa_pem(self.public).unwrap(),
        };
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&key, None).unwrap()).unwrap();
        jwk["kid"] = self.id.into();
        jwk
    }

    /// The platform, by a token of this key.
    pub(super) fn service(self, server: &Server) -> User {
        server.service().with_token(self.token(self.id, "platform", "service"))
    }
}

pub(super) fn set(keys: &[Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.published()).collect();
    json!({ "keys": keys }).to_string()
}

/// Who publishes a set at an address, and counts who asks.
pub(super) struct Issuer {
    pub(super) url: String,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Issuer {
    /// With `None`, nobody gets an answer.
    pub(super) async fn publishing(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
            async move {
                loop {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let mut head = [0; 4_096];
                    let _ = socket.read(&mut head).await;
                    if let Some(body) = &*answer.lock().await {
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { url, answer, asked, task }
    }

    pub(super) async fn publish(&self, answer: Option<String>) {
        *self.answer.lock().await = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_counts_at_once_and_made_up_ones_cost_the_issuer_few_looks() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC]))).await;
    let server = Server::with(&database, &[("RIDEWIRE_JWKS", &issuer.url)]).await;
    EC.service(&server).get("rides").await.expect(200);
    // The secret's tokens count as well.
    server.service().get("rides").await.expect(200);
    assert_eq!(issuer.asked(), 1, "at the start");

    issuer.publish(Some(set(&[EC, RSA]))).await;
    RSA.service(&server).get("rides").await.expect(200);
    assert_eq!(issuer.asked(), 2, "for the new key");
    let asked = Instant::now();
    for number in 0..50 {
        let made_up = EC.token(&format!("made-up-{number}"), "platform", "service");
        let answer = server.service().with_token(made_up).get("rides").await;
        match number {
            0..5 => answer.problem(401, "key_unknown"),
            // It may be a new one: nobody can say before the set is looked at again.
            _ if answer.status == 503 => answer.problem(503, "unavailable"),
            _ => answer.problem(401, "key_unknown"),
        };
    }
    let more = usize::try_from(asked.elapsed().as_secs() / 5).unwrap();
    assert!(issuer.asked() <= 2 + 10 + more, "{} looks", issuer.asked());
    // A key is for its own algorithm, whatever the token says.
    let confused = EC.token(RSA.id, "platform", "service");
    server.service().with_token(confused).get("rides").await.problem(401, "signature_invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_that_are_known_stay_while_the_issuer_is_away_and_go_when_it_says_so() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC, RSA]))).await;
    let server = Server::with(&database, &[("RIDEWIRE_JWKS", &issuer.url), ("RIDEWIRE_JWKS_PERIOD", "200ms")]).await;
    for away in [None, Some("<html>".to_owned()), Some(json!({"keys": []}).to_string())] {
        issuer.publish(away).await;
        let asked = issuer.asked();
        eventually("it is asked meanwhile", async || (issuer.asked() > asked + 2).then_some(())).await;
        EC.service(&server).get("rides").await.expect(200);
    }
    issuer.publish(Some(set(&[RSA]))).await;
    eventually("the old key is gone, for a token that was known too", async || {
        (EC.service(&server).get("rides").await.status == 401).then_some(())
    })
    .await;
    RSA.service(&server).get("rides").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_keys_cannot_be_had_streams_are_put_off_and_requests_are_told_to_come_back() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(None).await;
    let settings = [("RIDEWIRE_JWKS", issuer.url.as_str()), ("RIDEWIRE_JWKS_PERIOD", "200ms")];
    let server = Server::with(&database, &settings).await;
    // The secret's tokens count meanwhile.
    server.open_ride("ride").await;
    let service = EC.service(&server);
    let refused = service.get("rides").await;
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    refused.problem(503, "unavailable");
    service.get("messages/rides/ride/poll?after=0&wait=0").await.problem(503, "unavailable");
    for path in ["messages/rides/ride/events", "events"] {
        let put_off = service.get(path).await.expect(200);
        assert_eq!(put_off.header("content-type"), "text/event-stream");
        assert!(put_off.text().starts_with("retry: ") && !put_off.text().contains("stream:sync"), "{}", put_off.text());
    }
    // What makes no sense is refused as ever.
    service.clone().with_token("no.to.ken").get("rides").await.problem(401, "token_malformed");

    issuer.publish(Some(set(&[EC]))).await;
    eventually("it is asked again", async || (service.get("rides").await.status == 200).then_some(())).await;
    service.clone().on(&server).stream("ride", "").await.next_sync().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_in_a_file_is_read_again_when_a_key_is_not_in_it() {
    let database = Database::create().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    let path = file.display().to_string();
    for (text, said) in [(None, "jwks.json"), (Some("{}"), "RIDEWIRE_JWKS")] {
        text.iter().for_each(|text| std::fs::write(&file, text).unwrap());
        let mut command = ridewire();
        command.env("DATABASE_URL", &database.url).env("RIDEWIRE_JWKS", &path).env("RIDEWIRE_JWT_SECRET", SECRET);
        let refused = command.output().await.unwrap();
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains(said), "{error}");
    }
    std::fs::write(&file, set(&[EC])).unwrap();
    let server = Server::with(&database, &[("RIDEWIRE_JWKS", &path)]).await;
    EC.service(&server).get("rides").await.expect(200);
    std::fs::write(&file, set(&[RSA])).unwrap();
    RSA.service(&server).get("rides").await.expect(200);
    EC.service(&server).get("rides").await.problem(401, "key_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_key_delays_no_real_one_and_has_it_not_rejected() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC]))).await;
    let server = Server::with(&database, &[("RIDEWIRE_JWKS", &issuer.url)]).await;
    server.open_ride("ride").await;
    for number in 0..30 {
        let made_up = EC.token(&format!("made-up-{number}"), "platform", "service");
        assert!(server.service().with_token(made_up).get("rides").await.status.as_u16() >= 401);
    }
    issuer.publish(Some(set(&[RSA]))).await;
    let service = RSA.service(&server);
    eventually("the new key counts", async || {
        let answer = service.get("rides").await;
        assert_ne!(answer.status, 401, "{}", answer.text());
        let stream = service.stream("ride", "").await;
        assert_eq!(stream.status, 200, "an `EventSource` would stop");
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_withdrawn_ends_what_its_tokens_and_their_tickets_have_opened() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(Some(set(&[EC, RSA]))).await;
    let server = Server::with(&database, &[("RIDEWIRE_JWKS", &issuer.url), ("RIDEWIRE_JWKS_PERIOD", "200ms")]).await;
    server.open_ride("ride").await;
    let rider = server.rider("rider_1").with_token(EC.token(EC.id, "rider_1", "rider"));
    let kept = server.rider("rider_1").with_token(RSA.token(RSA.id, "rider_1", "rider"));
    let ticket = async |user: &User| {
        let issued = user.post("stream-tickets", json!({})).await.expect(201).json();
        issued["ticket"].as_str().unwrap().to_owned()
    };
    let (of_withdrawn, of_kept) = (ticket(&rider).await, ticket(&kept).await);
    let bare = rider.clone().with_token("");
    let by_ticket = |ticket: &str| Stream::open(bare.request(Method::GET, &format!("events?ticket={ticket}")));
    let mut ending = [server.live(&rider, "ride").await, by_ticket(&of_withdrawn).await];
    ending[1].next_sync().await;
    let mut staying = [server.live(&kept, "ride").await, by_ticket(&of_kept).await];
    staying[1].next_sync().await;
    let polling = tokio::spawn({
        let rider = rider.clone();
        async move { rider.get("messages/rides/ride/poll?after=1&wait=55&types=message:read").await }
    });
    issuer.publish(Some(set(&[RSA]))).await;
    for stream in &mut ending {
        let last = stream.until_end().await.pop().unwrap();
        assert_eq!((last.kind.as_str(), last.data), ("auth:expired", json!({ "reason": "key_unknown" })));
    }
    polling.await.unwrap().problem(401, "key_unknown");
    bare.get(&format!("poll?ticket={of_withdrawn}")).await.problem(401, "key_unknown");
    rider.get("rides").await.problem(401, "key_unknown");
    kept.send("ride", "Hello").await;
    for stream in &mut staying {
        stream.next_of("message:new").await;
    }
    // Another key under the name of one that is withdrawn is not that one.
    let mut renamed = RSA;
    renamed.id = EC.id;
    issuer.publish(Some(set(&[renamed]))).await;
    bare.get(&format!("poll?ticket={of_withdrawn}")).await.problem(401, "key_unknown");
    bare.get(&format!("poll?ticket={of_kept}")).await.expect(200);
}
