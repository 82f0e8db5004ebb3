//! The middleware that logs and traces requests.

use std::sync::Arc;

use salvo::http::header::HeaderValue;
use salvo::{Depot, FlowCtrl, Handler, Request, Response, async_trait};

use super::access_log::AccessLogEntry;
use super::context::Api;
use super::metrics::Metrics;
use super::rate_limit::RateLimitStatus;
use super::request_id::{RequestId, X_REQUEST_ID};
use super::security::set_security_headers;
use crate::deferred;
use crate::traces::RequestSpan;

/// Starts the span of an API request, where it is sampled.
fn start_span(req: &Request, depot: &Depot) -> Option<RequestSpan> {
    if !req.uri().path().starts_with("/api/") {
        return None;
    }
    let api = depot.get_typed::<Arc<Api>>().ok()?;
    let parent = req.headers().get("traceparent").and_then(|value| value.to_str().ok());
    // The span's name has the route, not the path, so that there are few names.
    api.traces.start_request(|| format!("{} /{}", req.method(), req.matched_path()), parent)
}

/// The middleware that logs and traces a request. Only the middleware that provides the [`Api`] is outside of it.
pub(super) struct RequestTracing(pub(super) Arc<Metrics>);

#[async_trait]
impl Handler for RequestTracing {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        let id = RequestId::from_request(req);
        // If the client disconnects, this future and the entry are dropped; the entry then logs an abandoned request.
        let entry = AccessLogEntry::begin(req, id.clone(), Arc::clone(&self.0));
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            res.headers_mut().insert(X_REQUEST_ID, value);
        }
        set_security_headers(res.headers_mut());
        depot.insert_typed(id.clone());
        let span = start_span(req, depot).map(Arc::new);
        if let Some(span) = &span {
            depot.insert_typed(Arc::clone(span));
        }
        ctrl.call_next(req, depot, res).await;
        if let Ok(rate_limit) = depot.get_typed::<RateLimitStatus>() {
            rate_limit.write(res.headers_mut());
        }
        let set_response = move |status| {
            if let Some(span) = span {
                span.set_response(id.as_str(), status);
            }
        };
        if deferred::is_deferred(res) {
            deferred::on_status(res, move |status| {
                set_response(status);
                entry.respond_deferred(status);
            });
            return;
        }
        let status = res.status_code.map_or(200, |status| status.as_u16());
        set_response(status);
        entry.respond(status, res);
    }
}
