//! A moderation hook for tests: an HTTP server with configurable replies.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::tls_for_localhost;

/// A secret of 24 bytes, from the examples of Standard Webhooks.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request that the hook got.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Computes the signature according to Standard Webhooks.
    pub(crate) fn signature(&self) -> String {
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
        let head = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let signed = [head.as_bytes(), &self.body].concat();
        let key = jsonwebtoken::EncodingKey::from_secret(&key);
        let mac = jsonwebtoken::crypto::sign(&signed, &key, jsonwebtoken::Algorithm::HS256).unwrap();
        format!("v1,{}", STANDARD.encode(URL_SAFE_NO_PAD.decode(mac).unwrap()))
    }
}

/// How the hook responds.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// With 200 and this body.
    Json(Value),
    /// The same, with a delay after the hook has received this number of requests.
    After(usize, Duration, Value),
    /// With this status and body.
    Raw(u16, String),
    /// Never responds.
    Never,
}

/// Returns the verdict `allow`.
pub(crate) fn allow() -> Reply {
    Reply::Json(json!({ "action": "allow" }))
}

type Rule = Box<dyn Fn(&Value) -> Reply + Send>;

struct State {
    rule: Mutex<Rule>,
    received: Mutex<Vec<Received>>,
    concurrent: AtomicUsize,
    max_concurrent: AtomicUsize,
    connections: AtomicUsize,
}

/// A hook that runs until the test ends.
pub(crate) struct Hook {
    pub(crate) url: String,
    state: Arc<State>,
}

impl Hook {
    /// Starts a hook. The rule gets the `data` of each request and returns the reply.
    pub(crate) async fn start(rule: impl Fn(&Value) -> Reply + Send + 'static) -> Self {
        Self::serve(rule, None).await
    }

    /// Starts a hook with TLS and a certificate for `localhost`. Writes the authority's PEM file to `authority`.
    pub(crate) async fn start_tls(authority: &Path, rule: impl Fn(&Value) -> Reply + Send + 'static) -> Self {
        Self::serve(rule, Some(tls_for_localhost(authority))).await
    }

    async fn serve(rule: impl Fn(&Value) -> Reply + Send + 'static, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let origin = if tls.is_some() { "https://localhost" } else { "http://127.0.0.1" };
        let url = format!("{origin}:{port}/moderate?version=1");
        let state = Arc::new(State {
            rule: Mutex::new(Box::new(rule)),
            received: Mutex::default(),
            concurrent: AtomicUsize::new(0),
            max_concurrent: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| respond(Arc::clone(&state), request));
                let tls = tls.clone();
                tokio::spawn(async move {
                    let http = http1::Builder::new();
                    match tls {
                        None => http.serve_connection(TokioIo::new(connection), service).await.is_ok(),
                        Some(tls) => match tls.accept(connection).await {
                            Ok(connection) => http.serve_connection(TokioIo::new(connection), service).await.is_ok(),
                            Err(_) => false,
                        },
                    }
                });
            }
        });
        Self { url, state }
    }

    /// Replaces the rule.
    pub(crate) fn set_rule(&self, rule: impl Fn(&Value) -> Reply + Send + 'static) {
        *self.state.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// Returns all requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// Returns the contents of all requests so far.
    pub(crate) fn contents(&self) -> Vec<String> {
        let content = |received: &Received| received.json()["data"]["content"].as_str().unwrap().to_owned();
        self.received().iter().map(content).collect()
    }

    /// Returns the maximum number of concurrent requests.
    pub(crate) fn max_concurrent(&self) -> usize {
        self.state.max_concurrent.load(Ordering::Relaxed)
    }

    /// Returns the number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Returns the settings of a server with this hook and a long timeout.
    pub(crate) fn settings(&self) -> [(&str, &str); 3] {
        [
            ("RIDEWIRE_MODERATION_URL", &self.url),
            ("RIDEWIRE_MODERATION_SECRET", SECRET),
            ("RIDEWIRE_MODERATION_TIMEOUT", "60s"),
        ]
    }

    /// Returns the settings with another timeout and the action on a failure.
    pub(crate) fn failing_to(&self, on_failure: &'static str, timeout: &'static str) -> [(&str, &str); 4] {
        let [url, secret, _] = self.settings();
        [url, secret, ("RIDEWIRE_MODERATION_TIMEOUT", timeout), ("RIDEWIRE_MODERATION_ON_FAILURE", on_failure)]
    }
}

async fn respond(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("POST", "/moderate?version=1"));
    let received = Received { headers: head.headers, body: body.collect().await.unwrap().to_bytes() };
    let data = received.json()["data"].clone();
    state.received.lock().unwrap().push(received);
    let concurrent = state.concurrent.fetch_add(1, Ordering::Relaxed) + 1;
    state.max_concurrent.fetch_max(concurrent, Ordering::Relaxed);
    let reply = (state.rule.lock().unwrap_or_else(PoisonError::into_inner))(&data);
    let (status, text) = match reply {
        Reply::Json(body) => (200, body.to_string()),
        Reply::After(requests, pause, body) => {
            while state.received.lock().unwrap().len() < requests {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(pause).await;
            (200, body.to_string())
        }
        Reply::Raw(status, text) => (status, text),
        Reply::Never => std::future::pending().await,
    };
    state.concurrent.fetch_sub(1, Ordering::Relaxed);
    Ok(Response::builder().status(status).body(Full::from(text)).unwrap())
}
