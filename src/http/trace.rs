//! A name for each request, by which it is found in the access log.

use std::fmt;
use std::sync::{Arc, OnceLock};

use salvo::http::StatusCode;
use salvo::http::header::{HeaderName, HeaderValue};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, async_trait};
use uuid::Uuid;

use super::access::Entry;
use super::context::Api;
use super::guard::harden;
use super::metrics::Metrics;
use super::rate::Taken;
use crate::domain::Role;
use crate::traces::Traced;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id: the one it came with in `X-Request-Id`, where that is plain text of at most 64 characters, or
/// a new one. With it, who has made the request, once that is known.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<Named>);

#[derive(Debug)]
struct Named {
    id: String,
    role: OnceLock<Role>,
}

impl RequestId {
    /// The id of the request that `depot` belongs to.
    pub(super) fn of(depot: &Depot) -> Self {
        depot.get_typed::<Self>().cloned().unwrap_or_else(|_| Self::new(String::new()))
    }

    /// Notes the role of the caller of the request that `depot` belongs to, for the access log.
    pub(super) fn note_role(depot: &Depot, role: Role) {
        if let Ok(request) = depot.get_typed::<Self>() {
            // It does not change.
            let _ = request.0.role.set(role);
        }
    }

    /// The id as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0.id
    }

    /// The caller's role, where there is a valid token.
    pub(super) fn role(&self) -> Option<Role> {
        self.0.role.get().copied()
    }

    fn new(id: String) -> Self {
        Self(Arc::new(Named { id, role: OnceLock::new() }))
    }

    fn from_request(req: &Request) -> Self {
        let given = req.headers().get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let is_plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        Self::new(given.filter(is_plain).map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
pub(super) struct Trace(pub(super) Arc<Metrics>);

#[async_trait]
impl Handler for Trace {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        let id = RequestId::from_request(req);
        // Where this future is dropped, because the client has left, the entry is as well, and says so.
        let entry = Entry::begin(req, id.clone(), Arc::clone(&self.0));
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
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
            traced.answered(id.as_str(), status);
        }
        let text = StatusCode::from_u16(status).unwrap_or_default();
        self.0.answers.with_label_values(&[text.as_str()]).inc();
        entry.respond(status, res);
    }
}
