//! A receiver of webhooks, which answers as a test says.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;

use super::eventually;

/// A request to the receiver.
#[derive(Debug, Clone)]
pub struct Received {
    /// `/…`
    pub path: String,
    pub headers: hyper::HeaderMap,
    pub body: String,
    /// The body as it is, where it is no text.
    pub bytes: Vec<u8>,
    /// What the receiver has answered; `None` where it does not.
    pub status: Option<u16>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The event's topic and its number there.
    pub fn place(&self) -> (String, i64) {
        let data = &self.json()["data"];
        (data["topic"].as_str().unwrap().to_owned(), data["seq"].as_i64().unwrap())
    }

    /// Whether a signature is one with this secret (Standard Webhooks 1.0).
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        mac.update(
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body).as_bytes(),
        );
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

/// What a receiver answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This status.
    Status(u16),
    /// This status with a header.
    With(u16, &'static str, String),
    /// 200 with this body.
    Body(String),
    /// Nothing, for ever.
    Nothing,
}

/// A receiver on this machine.
#[derive(Debug)]
pub struct Receiver {
    /// `http://127.0.0.1:…`
    pub base: String,
    received: Arc<Mutex<Vec<Received>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// One that answers so.
    pub async fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (answer, noted) = (Arc::new(answer), Arc::clone(&received));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                    async move {
                        let (head, body) = request.into_parts();
                        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
                        let body = String::from_utf8_lossy(&bytes).into_owned();
                        let path = head.uri.path().to_owned();
                        let mut request = Received { path, headers: head.headers, body, bytes, status: None };
                        let reply = answer(&request);
                        request.status = match &reply {
                            Reply::Status(status) | Reply::With(status, ..) => Some(*status),
                            Reply::Body(_) => Some(200),
                            Reply::Nothing => None,
                        };
                        noted.lock().unwrap().push(request);
                        let mut body = "thanks".to_owned();
                        let response = match reply {
                            Reply::Status(status) => Response::builder().status(status),
                            Reply::With(status, name, value) => Response::builder().status(status).header(name, value),
                            Reply::Body(text) => {
                                body = text;
                                Response::builder().header("content-type", "application/json")
                            }
                            Reply::Nothing => std::future::pending().await,
                        };
                        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { base, received, serving }
    }

    /// One that takes everything.
    pub async fn taking_all() -> Self {
        Self::start(|_| Reply::Status(204)).await
    }

    /// What has arrived, at this path.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.received.lock().unwrap().iter().filter(|request| request.path == path).cloned().collect()
    }

    /// What has arrived at this path and was taken.
    pub fn taken(&self, path: &str) -> Vec<Received> {
        let is_taken = |request: &Received| request.status.is_some_and(|status| (200..300).contains(&status));
        self.received(path).into_iter().filter(is_taken).collect()
    }

    /// Waits until so many have arrived and were taken.
    pub async fn until_taken(&self, path: &str, count: usize) -> Vec<Received> {
        eventually("deliveries", async || Some(self.taken(path)).filter(|taken| taken.len() >= count)).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
