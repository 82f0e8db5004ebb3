//! How long requests take. Labels have few values: routes are templates, and what matches none has one label.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, Registry, exponential_buckets};
use salvo::http::StatusCode;

/// Upper bounds of a request's duration, in seconds. The last ones are for polls, which wait up to 55 s.
const REQUEST_SECONDS: [f64; 14] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Durations of requests and of event streams.
#[derive(Debug)]
pub(in crate::http) struct RequestMetrics {
    requests: HistogramVec,
    streams: HistogramVec,
}

impl RequestMetrics {
    /// Adds them to a registry.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histograms = |name: &str, help: &str, labels: &[&str], buckets: Vec<f64>| {
            let histograms = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
            registry.register(Box::new(histograms.clone()))?;
            Ok::<_, prometheus::Error>(histograms)
        };
        Ok(Self {
            requests: histograms(
                "ridewire_http_request_duration_seconds",
                "Duration of requests until their response is ready, without event streams. Status 499: the client left before.",
                &["method", "route", "status"],
                REQUEST_SECONDS.into(),
            )?,
            // From a second to three days.
            streams: histograms(
                "ridewire_http_stream_duration_seconds",
                "Duration of event streams, from the request to their end.",
                &["route"],
                exponential_buckets(1.0, 4.0, 10)?,
            )?,
        })
    }

    /// Counts a request.
    pub(in crate::http) fn completed(&self, method: &str, route: &str, status: u16, took: Duration) {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        self.requests.with_label_values(&[method, route, status.as_str()]).observe(took.as_secs_f64());
    }

    /// Counts an event stream that has ended.
    pub(in crate::http) fn stream_closed(&self, route: &str, took: Duration) {
        self.streams.with_label_values(&[route]).observe(took.as_secs_f64());
    }
}
