//! A name for each request, and a line in the log when it is answered.

use std::fmt;
use std::sync::Arc;

use salvo::http::StatusCode;
use salvo::http::header::{HeaderName, HeaderValue};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, async_trait};
use tokio::time::Instant;
use uuid::Uuid;

use super::context::Api;
use super::guard::harden;
use super::rate::Taken;
use crate::traces::Traced;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id: the one it came with in `X-Request-Id`, where that is plain text of at most 64 characters, or
/// a new one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The id of the request that `depot` belongs to.
    pub(super) fn of(depot: &Depot) -> Self {
        depot.get_typed::<Self>().cloned().unwrap_or_else(|_| Self("".into()))
    }

    fn from_request(req: &Request) -> Self {
        let given = req.headers().get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let is_plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        Self(given.filter(is_plain).map_or_else(|| Uuid::now_v7().to_string().into(), Into::into))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Begins to trace a request of the interface, if it is to be.
fn trace(req: &Request, depot: &Depot) -> Option<Traced> {
    if !req.uri().path().starts_with("/api/") {
        return None;
    }
    let api = depot.get_typed::<Arc<Api>>().ok()?;
    let parent = req.headers().get("traceparent").and_then(|value| value.to_str().ok());
    // The route, not the path: names are to be few.
    api.traces.begin(|| format!("{} /{}", req.method(), req.matched_path()), parent)
}

/// The outermost handler but for the one that provides the [`Api`].
pub(super) struct Trace;

#[async_trait]
impl Handler for Trace {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        let started = Instant::now();
        let id = RequestId::from_request(req);
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            res.headers_mut().insert(X_REQUEST_ID, value);
        }
        harden(res.headers_mut());
        depot.insert_typed(id.clone());
        let traced = trace(req, depot).map(Arc::new);
        if let Some(traced) = &traced {
            depot.insert_typed(Arc::clone(traced));
        }
        ctrl.call_next(req, depot, res).await;
        if let Ok(taken) = depot.get_typed::<Taken>() {
            taken.write(res.headers_mut());
        }
        let status = res.status_code.map_or(200, |status| status.as_u16());
        if let Some(traced) = traced {
            traced.answered(&id.0, status);
        }
        if let Ok(api) = depot.get_typed::<Arc<Api>>() {
            let text = StatusCode::from_u16(status).unwrap_or_default();
            api.metrics.answers.with_label_values(&[text.as_str()]).inc();
        }
        // The path without its query: tickets travel there.
        tracing::debug!(
            request.id = %id,
            method = %req.method(),
            path = req.uri().path(),
            status,
            ms = started.elapsed().as_millis(),
            "answered"
        );
    }
}
