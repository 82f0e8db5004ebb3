//! The issuer's set of keys: read, kept current, and missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use ridewire::domain::Time;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::support::{Database, SECRET, Server, User, eventually, ridewire};

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
async fn a_new_key_counts_at_once_and_made_up_ones_cost_the_issuer_one_look() {
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
        server.service().with_token(made_up).get("rides").await.problem(401, "key_unknown");
    }
    let minutes = usize::try_from(asked.elapsed().as_secs() / 60).unwrap();
    assert!(issuer.asked() <= 2 + minutes, "once a minute at most");
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
