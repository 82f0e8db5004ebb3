//! A receiver of webhooks, which answers as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

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
    /// When it arrived.
    pub at: Instant,
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
    /// This status, after a while.
    Late(Duration, u16),
    /// The end of the connection.
    Reset,
    /// Nothing, for ever.
    Nothing,
}

/// Each topic's events are in order, where each first arrived.
pub fn assert_in_order(received: &[Received]) {
    let (mut last, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for request in received {
        if seen.insert(request.header("webhook-id").to_owned()) {
            let (topic, seq) = request.place();
            let before = last.insert(topic.clone(), seq).unwrap_or(0);
            assert!(before < seq, "{topic}: {seq} after {before}");
        }
    }
}

/// TLS with a certificate for `localhost`; `authority` is where the file is written that says whom to trust.
pub fn tls_for_localhost(authority: &Path) -> TlsAcceptor {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(authority, cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A receiver on this machine.
#[derive(Debug)]
pub struct Receiver {
    /// `http://127.0.0.1:…`, or `https://localhost:…`
    pub base: String,
    received: Arc<Mutex<Vec<Received>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// One that answers so.
    pub async fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(answer, None).await
    }

    /// One that speaks TLS, with a certificate for `localhost`; `authority` is where the file is that says whom to trust.
    pub async fn start_secure(authority: &Path, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(answer, Some(tls_for_localhost(authority))).await
    }

    async fn serve(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let base = if tls.is_some() { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        let received = Arc::new(Mutex::new(Vec::new()));
        let (answer, noted) = (Arc::new(answer), Arc::clone(&received));
        let serving = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (answer, noted, tls) = (Arc::clone(&answer), Arc::clone(&noted), tls.clone());
                let service = service_fn(move |request| respond(request, Arc::clone(&answer), Arc::clone(&noted)));
                tokio::spawn(async move {
                    let http = http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(connection), service).await),
                        Some(tls) => {
                            if let Ok(connection) = tls.accept(connection).await {
                                drop(http.serve_connection(TokioIo::new(connection), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self { base, received, serving }
    }

    /// One that takes everything.
    pub async fn taking_all() -> Self {
        Self::start(|_| Reply::Status(204)).await
    }

    /// How many have arrived, at this path.
    pub fn count(&self, path: &str) -> usize {
        self.received.lock().unwrap().iter().filter(|request| request.path == path).count()
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

/// Notes a request, and answers it. An error ends its connection.
async fn respond(
    request: Request<Incoming>,
    answer: Arc<impl Fn(&Received) -> Reply + Send + Sync + 'static>,
    noted: Arc<Mutex<Vec<Received>>>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    // A replica that is killed ends in the middle of one.
    let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    let body = String::from_utf8_lossy(&bytes).into_owned();
    let path = head.uri.path().to_owned();
    let mut request = Received { path, headers: head.headers, body, bytes, status: None, at: Instant::now() };
    let reply = answer(&request);
    request.status = match &reply {
        Reply::Status(status) | Reply::With(status, ..) | Reply::Late(_, status) => Some(*status),
        Reply::Body(_) => Some(200),
        Reply::Reset | Reply::Nothing => None,
    };
    noted.lock().unwrap().push(request);
    let mut body = "thanks".to_owned();
    let response = match reply {
        Reply::Status(status) => Response::builder().status(status),
        Reply::With(status, name, value) => Response::builder().status(status).header(name, value),
        Reply::Late(after, status) => {
            tokio::time::sleep(after).await;
            Response::builder().status(status)
        }
        Reply::Body(text) => {
            body = text;
            Response::builder().header("content-type", "application/json")
        }
        Reply::Reset => return Err(io::Error::other("reset")),
        Reply::Nothing => std::future::pending().await,
    };
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
