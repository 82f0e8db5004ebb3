//! The access log, under the target `access`, and the metrics of requests.
//!
//! | line | when | `duration_ms` |
//! |---|---|---|
//! | `request completed` | the response is ready | from the request until then |
//! | `stream opened` | the head of an event stream is ready | from the request until then |
//! | `stream closed` | the stream has ended, or its client has disconnected | from the request until then |
//! | `request abandoned` | the connection ended before the response; the status is 499, as in nginx | from the request until then |
//! | `request panicked` | the handler panicked | from the request until then |
//!
//! The route is the template, never the path: paths contain ids and other text of clients. The query string is not logged, because
//! it may contain a ticket. `serving` logs requests that are not valid HTTP.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use salvo::http::{Method, ResBody};
use salvo::{Request, Response};
use tokio::time::Instant;

use super::metrics::Metrics;
use super::request_id::RequestId;

/// The route of a request that matches no template.
const UNMATCHED: &str = "unmatched";

/// The logged status of a request whose client disconnected before the response.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The log entry of a request in progress. It is logged when the response is ready, or when it is dropped without a response.
pub(super) struct AccessLogEntry {
    id: RequestId,
    method: &'static str,
    route: String,
    started: Instant,
    metrics: Arc<Metrics>,
    state: EntryState,
}

/// The state of an [`AccessLogEntry`].
enum EntryState {
    /// The request has no response yet.
    Pending,
    /// The response is an open event stream with this status.
    Streaming(u16),
    /// The last line is logged.
    Logged,
}

impl AccessLogEntry {
    /// Creates the entry of a request.
    pub(super) fn begin(req: &Request, id: RequestId, metrics: Arc<Metrics>) -> Self {
        let (method, route) = (method(req.method()), route(req));
        Self { id, method, route, started: Instant::now(), metrics, state: EntryState::Pending }
    }

    /// Logs the response. If it is an event stream, the entry lives until the stream is dropped.
    pub(super) fn respond(mut self, status: u16, res: &mut Response) {
        let elapsed = self.started.elapsed();
        self.metrics.requests.responded(self.method, &self.route, status);
        match res.take_body() {
            ResBody::Stream(frames) => {
                self.log(status, elapsed, "stream opened");
                self.state = EntryState::Streaming(status);
                let frames = frames.into_inner().inspect(move |_| {
                    let _entry = &self;
                });
                res.body(ResBody::stream(frames));
            }
            body => {
                self.complete(status, elapsed);
                res.body(body);
            }
        }
    }

    /// Logs a deferred response, which is not an event stream.
    pub(super) fn respond_deferred(mut self, status: u16) {
        let elapsed = self.started.elapsed();
        self.metrics.requests.responded(self.method, &self.route, status);
        self.complete(status, elapsed);
    }

    fn complete(&mut self, status: u16, elapsed: Duration) {
        self.state = EntryState::Logged;
        self.log(status, elapsed, "request completed");
        self.metrics.requests.completed(self.method, &self.route, status, elapsed);
    }

    fn log(&self, status: u16, elapsed: Duration, event: &'static str) {
        let role = self.id.role().map(|role| role.as_str());
        // Rounded to microseconds, which keeps the line short.
        let duration_ms = elapsed.as_micros() as f64 / 1e3;
        tracing::info!(
            target: "access",
            { request.id = self.id.as_str(), method = self.method, route = self.route, status, duration_ms, role },
            "{event}"
        );
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        match self.state {
            EntryState::Logged => {}
            EntryState::Streaming(status) => {
                self.log(status, elapsed, "stream closed");
                self.metrics.requests.stream_closed(&self.route, elapsed);
            }
            EntryState::Pending => {
                let (status, event) = match std::thread::panicking() {
                    true => (500, "request panicked"),
                    false => (CLIENT_CLOSED_REQUEST, "request abandoned"),
                };
                self.log(status, elapsed, event);
                self.metrics.requests.completed(self.method, &self.route, status, elapsed);
            }
        }
    }
}

/// Returns a request's method where it is a standard one. A client may send any token, so others are `OTHER`.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Returns the route template that a request's path matches.
fn route(req: &Request) -> String {
    match req.matched_path().trim_start_matches('/') {
        "" if req.uri().path() != "/" => UNMATCHED.to_owned(),
        matched => ["/", matched].concat(),
    }
}
