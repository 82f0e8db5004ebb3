//! Metrics of HTTP requests. The label `route` is the route's template; a request that matches no route has one fixed label.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, exponential_buckets};
use salvo::http::StatusCode;

/// Upper bounds of a request's duration, in seconds. The last ones are for polls, which wait up to 55 s.
const REQUEST_SECONDS: [f64; 14] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The number of requests, and the durations of requests and event streams.
#[derive(Debug)]
pub(in crate::http) struct RequestMetrics {
    responses: IntCounterVec,
    requests: HistogramVec,
    streams: HistogramVec,
}

impl RequestMetrics {
    /// Adds the metrics to a registry.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histograms = |name: &str, help: &str, labels: &[&str], buckets: Vec<f64>| {
            let histograms = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
            registry.register(Box::new(histograms.clone()))?;
            Ok::<_, prometheus::Error>(histograms)
        };
        let help =
            "HTTP requests that got a response, by method, route and status. An event stream counts when it begins.";
        let responses =
            IntCounterVec::new(Opts::new("ridewire_http_requests_total", help), &["method", "route", "status"])?;
        registry.register(Box::new(responses.clone()))?;
        Ok(Self {
            responses,
            requests: histograms(
                "ridewire_http_request_duration_seconds",
                "Duration of a request until its response is ready. Includes long polls, which wait for events; excludes event streams. Status 499: the client disconnected first.",
                &["method", "route", "status"],
                REQUEST_SECONDS.into(),
            )?,
            // From one second to three days.
            streams: histograms(
                "ridewire_http_stream_duration_seconds",
                "Duration of an event stream, from the request to the end of the stream.",
                &["route"],
                exponential_buckets(1.0, 4.0, 10)?,
            )?,
        })
    }

    /// Counts a request whose response is ready, or whose event stream begins.
    pub(in crate::http) fn responded(&self, method: &str, route: &str, status: u16) {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        self.responses.with_label_values(&[method, route, status.as_str()]).inc();
    }

    /// Records the duration of a request.
    pub(in crate::http) fn completed(&self, method: &str, route: &str, status: u16, duration: Duration) {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        self.requests.with_label_values(&[method, route, status.as_str()]).observe(duration.as_secs_f64());
    }

    /// Records the duration of an event stream that has ended.
    pub(in crate::http) fn stream_closed(&self, route: &str, duration: Duration) {
        self.streams.with_label_values(&[route]).observe(duration.as_secs_f64());
    }
}
