//! A receiver of webhooks with configurable responses.

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

/// A request that the receiver got.
#[derive(Debug, Clone)]
pub struct Received {
    /// The path, with its slash.
    pub path: String,
    pub headers: hyper::HeaderMap,
    pub body: String,
    /// The body as bytes, where it is not text.
    pub bytes: Vec<u8>,
    /// The status of the response; `None` where there is no response.
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

    /// Returns the event's topic and its seq there.
    pub fn log_position(&self) -> (String, i64) {
        let data = &self.json()["data"];
        (data["topic"].as_str().unwrap().to_owned(), data["seq"].as_i64().unwrap())
    }

    /// Returns whether one of the signatures was made with this secret (Standard Webhooks 1.0).
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

/// How the receiver responds.
#[derive(Debug, Clone)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With this status and a header.
    Header(u16, &'static str, String),
    /// With 200 and this body.
    Body(String),
    /// With this status, after a delay.
    Late(Duration, u16),
    /// Closes the connection.
    Reset,
    /// Never responds.
    Never,
}

/// Asserts that the first deliveries of each topic's events are in seq order.
pub fn assert_in_order(received: &[Received]) {
    let (mut last, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for request in received {
        if seen.insert(request.header("webhook-id").to_owned()) {
            let (topic, seq) = request.log_position();
            let before = last.insert(topic.clone(), seq).unwrap_or(0);
            assert!(before < seq, "{topic}: {seq} after {before}");
        }
    }
}

/// Returns a TLS acceptor with a certificate for `localhost`. Writes the certificate authority's PEM file to `authority`.
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

/// A receiver on the loopback interface.
#[derive(Debug)]
pub struct Receiver {
    /// `http://127.0.0.1:…`, or `https://localhost:…`
    pub base: String,
    received: Arc<Mutex<Vec<Received>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Starts a receiver; `reply` returns the response to each request.
    pub async fn start(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(reply, None).await
    }

    /// Starts a receiver with TLS and a certificate for `localhost`. Writes the authority's PEM file to `authority`.
    pub async fn start_tls(authority: &Path, reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(reply, Some(tls_for_localhost(authority))).await
    }

    async fn serve(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let base = if tls.is_some() { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        let received = Arc::new(Mutex::new(Vec::new()));
        let (reply, log) = (Arc::new(reply), Arc::clone(&received));
        let serving = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (reply, log, tls) = (Arc::clone(&reply), Arc::clone(&log), tls.clone());
                let service = service_fn(move |request| respond(request, Arc::clone(&reply), Arc::clone(&log)));
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

    /// Starts a receiver that accepts every request.
    pub async fn accepting_all() -> Self {
        Self::start(|_| Reply::Status(204)).await
    }

    /// Returns the number of requests at this path.
    pub fn count(&self, path: &str) -> usize {
        self.received.lock().unwrap().iter().filter(|request| request.path == path).count()
    }

    /// Returns the requests at this path.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.received.lock().unwrap().iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Returns the requests at this path that got a 2xx response.
    pub fn accepted(&self, path: &str) -> Vec<Received> {
        let is_accepted = |request: &Received| request.status.is_some_and(|status| (200..300).contains(&status));
        self.received(path).into_iter().filter(is_accepted).collect()
    }

    /// Waits until at least `count` requests at this path got a 2xx response, and returns them.
    pub async fn until_accepted(&self, path: &str, count: usize) -> Vec<Received> {
        eventually("deliveries", async || Some(self.accepted(path)).filter(|accepted| accepted.len() >= count)).await
    }
}

/// Records a request and responds to it. An error closes its connection.
async fn respond(
    request: Request<Incoming>,
    reply: Arc<impl Fn(&Received) -> Reply + Send + Sync + 'static>,
    log: Arc<Mutex<Vec<Received>>>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    // A killed replica closes its connection in the middle of a request.
    let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    let body = String::from_utf8_lossy(&bytes).into_owned();
    let path = head.uri.path().to_owned();
    let mut request = Received { path, headers: head.headers, body, bytes, status: None, at: Instant::now() };
    let reply = reply(&request);
    request.status = match &reply {
        Reply::Status(status) | Reply::Header(status, ..) | Reply::Late(_, status) => Some(*status),
        Reply::Body(_) => Some(200),
        Reply::Reset | Reply::Never => None,
    };
    log.lock().unwrap().push(request);
    let mut body = "thanks".to_owned();
    let response = match reply {
        Reply::Status(status) => Response::builder().status(status),
        Reply::Header(status, name, value) => Response::builder().status(status).header(name, value),
        Reply::Late(after, status) => {
            tokio::time::sleep(after).await;
            Response::builder().status(status)
        }
        Reply::Body(text) => {
            body = text;
            Response::builder().header("content-type", "application/json")
        }
        Reply::Reset => return Err(io::Error::other("reset")),
        Reply::Never => std::future::pending().await,
    };
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
