//! The access log: lines for each request, under the target `access`; and the metrics of requests.
//!
//! | line | when | `duration_ms` |
//! |---|---|---|
//! | `request completed` | its response is ready | until then |
//! | `stream opened` | an event stream's head is ready | until then |
//! | `stream closed` | the stream has ended, or its client has left | since the request |
//! | `request abandoned` | its connection has ended before there was a response; its status is 499, as nginx calls it | until then |
//! | `request panicked` | it was cut off by a fault of ours | until then |
//!
//! The route is the template, never the path: paths hold ids, and whatever else a client puts there. There is no query string,
//! since tickets are in it. Requests that never come here, because they are not valid HTTP, are logged by `serving`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use salvo::http::{Method, ResBody};
use salvo::{Request, Response};
use tokio::time::Instant;

use super::metrics::Metrics;
use super::trace::RequestId;

/// The route of what matches none.
const UNMATCHED: &str = "unmatched";

/// The status of a request whose client has left, which gets none.
const CLIENT_LEFT: u16 = 499;

/// A request that is under way. What has become of it is logged when it has a response, and when it is dropped without one.
pub(super) struct Entry {
    id: RequestId,
    method: &'static str,
    route: String,
    started: Instant,
    metrics: Arc<Metrics>,
    stage: Stage,
}

/// How far a request is.
enum Stage {
    /// It has no response.
    Pending,
    /// Its response is an event stream that is open.
    Streaming(u16),
    /// Its last line is logged.
    Logged,
}

impl Entry {
    /// A request that has come.
    pub(super) fn begin(req: &Request, id: RequestId, metrics: Arc<Metrics>) -> Self {
        let (method, route) = (method(req.method()), route(req));
        Self { id, method, route, started: Instant::now(), metrics, stage: Stage::Pending }
    }

    /// Its response is ready. If that is an event stream, the entry goes on until the stream is dropped.
    pub(super) fn respond(mut self, status: u16, res: &mut Response) {
        let took = self.started.elapsed();
        match res.take_body() {
            ResBody::Stream(frames) => {
                self.log(status, took, "stream opened");
                self.stage = Stage::Streaming(status);
                let frames = frames.into_inner().inspect(move |_| {
                    let _held = &self;
                });
                res.body(ResBody::stream(frames));
            }
            body => {
                self.stage = Stage::Logged;
                self.log(status, took, "request completed");
                self.metrics.requests.completed(self.method, &self.route, status, took);
                res.body(body);
            }
        }
    }

    fn log(&self, status: u16, took: Duration, event: &'static str) {
        let role = self.id.role().map(|role| role.as_str());
        // Thousandths are enough, and shorter than all that a float has.
        let duration_ms = took.as_micros() as f64 / 1e3;
        tracing::info!(
            target: "access",
            { request.id = self.id.as_str(), method = self.method, route = self.route, status, duration_ms, role },
            "{event}"
        );
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        match self.stage {
            Stage::Logged => {}
            Stage::Streaming(status) => {
                self.log(status, took, "stream closed");
                self.metrics.requests.stream_closed(&self.route, took);
            }
            Stage::Pending => {
                let (status, event) = match std::thread::panicking() {
                    true => (500, "request panicked"),
                    false => (CLIENT_LEFT, "request abandoned"),
                };
                self.log(status, took, event);
                self.metrics.requests.completed(self.method, &self.route, status, took);
            }
        }
    }
}

/// A request's method, where it is one of the usual ones: a client may send any word.
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

/// The template that a request's path matches.
fn route(req: &Request) -> String {
    match req.matched_path().trim_start_matches('/') {
        "" if req.uri().path() != "/" => UNMATCHED.to_owned(),
        matched => ["/", matched].concat(),
    }
}
