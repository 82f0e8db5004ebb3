//! The metrics of this server, for Prometheus.
//!
//! Labels have a small, bounded set of values. No label holds an id, a raw path or a user. Values that another component
//! already counts (the pool, the listener) are read on each scrape.

mod lags;
mod process;
mod requests;
mod scraped;
mod shard_values;

use std::sync::OnceLock;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};

use self::lags::Lags;
use self::process::ProcessMetrics;
use self::requests::RequestMetrics;
pub use self::scraped::MetricSources;
pub(super) use self::scraped::ScrapedValues;
pub(super) use self::shard_values::ShardValues;
use crate::domain::Verdict;
use crate::moderation::{CheckResult, Failure};
use crate::push::PushOutcome;
use crate::webhooks::Outcome;
use crate::writer::CommittedBatch;

/// The limit that closes the connections of slow clients when memory is short.
const MEMORY_EVICTION: &str = "memory_eviction";

/// All values of the label `limit`. Limits that a setting defines have its name.
const LIMITS: [&str; 8] = [
    "memory",
    MEMORY_EVICTION,
    "sends_per_second",
    "max_streams",
    "streams_per_user",
    "body_deadline",
    "broadcast_queue",
    "write_queue",
];

/// The metrics of this server and their registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) connections: IntGaugeVec,
    pub(super) event_delivery: Histogram,
    pub(super) api_errors: IntCounterVec,
    pub(super) streams_rejected: IntCounterVec,
    limit_rejections: IntCounterVec,
    buffered: IntGauge,
    moderation_requests: IntCounterVec,
    moderation_duration: Histogram,
    moderation_circuit: IntGaugeVec,
    events: IntCounterVec,
    batch_commands: Histogram,
    batch_duration: Histogram,
    listener_state: IntGaugeVec,
    listener_lag: prometheus::Gauge,
    listener_notifications: IntCounterVec,
    listener_bytes: IntCounterVec,
    notify_queue: prometheus::Gauge,
    webhook_deliveries: IntCounterVec,
    pushes: IntCounterVec,
    oldest_undelivered: prometheus::Gauge,
    pool: IntGaugeVec,
    feed_pending: IntGauge,
    audit_pending: IntGauge,
    handovers: IntCounterVec,
    database: IntGauge,
    tasks: IntGauge,
    process: ProcessMetrics,
    pub(super) requests: RequestMetrics,
    lags: Lags,
    sources: OnceLock<MetricSources>,
}

/// The transport of a reader's connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transport {
    /// Server-Sent Events.
    Stream,
    /// A long poll.
    Poll,
}

impl Transport {
    /// The value of the label `transport`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "sse",
            Self::Poll => "poll",
        }
    }
}

impl Metrics {
    /// Registers all metrics, with their counters at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let float = |name: &str, help: &str| {
            let gauge = prometheus::Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        // From 0.25 ms to 8 s.
        let seconds = || exponential_buckets(0.000_25, 2.0, 16);
        let connections = gauges("ridewire_connections", "Open streams and polls, by transport.", &["transport"])?;
        // Each series exists from the start, at zero. Without a first sample, `rate` and `increase` miss the first increment.
        for transport in [Transport::Stream, Transport::Poll] {
            connections.with_label_values(&[transport.as_str()]).set(0);
        }
        let streams_rejected = counters(
            "ridewire_streams_rejected_total",
            "Streams that were rejected with a retry delay, by reason.",
            &["reason"],
        )?;
        for reason in ["shutdown", "max_streams", "streams_per_user"] {
            streams_rejected.with_label_values(&[reason]).reset();
        }
        let limit_rejections = counters(
            "ridewire_limit_rejections_total",
            "Requests and connections that a limit rejected or ended, by limit.",
            &["limit"],
        )?;
        for limit in LIMITS {
            limit_rejections.with_label_values(&[limit]).reset();
        }
        let moderation_requests = counters(
            "ridewire_moderation_requests_total",
            "Checks by the platform's moderation hook, by outcome.",
            &["outcome"],
        )?;
        let verdicts = ["allow", "replace", "reject", "flag"];
        for outcome in verdicts.into_iter().chain(Failure::ALL.map(Failure::as_str)) {
            moderation_requests.with_label_values(&[outcome]).reset();
        }
        let webhook_deliveries = counters(
            "ridewire_webhook_deliveries_total",
            "Attempts to deliver an event to a webhook endpoint, by outcome.",
            &["outcome"],
        )?;
        for outcome in Outcome::ALL {
            webhook_deliveries.with_label_values(&[outcome.as_str()]).reset();
        }
        // The value is always 1: the labels are the information.
        let allocator = if cfg!(feature = "jemalloc") { "jemalloc" } else { "system" };
        gauges("ridewire_build_info", "Always 1. The labels describe this build.", &["version", "allocator"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION"), allocator])
            .set(1);
        let pushes = counters("ridewire_pushes_total", "Web Push messages to browsers, by outcome.", &["outcome"])?;
        for outcome in PushOutcome::ALL {
            pushes.with_label_values(&[outcome.as_str()]).reset();
        }
        let handovers = counters(
            "ridewire_message_trace_handovers_total",
            "Handovers of messages to client connections, as recorded for message traces, by outcome.",
            &["outcome"],
        )?;
        for outcome in ["recorded", "dropped"] {
            handovers.with_label_values(&[outcome]).reset();
        }
        Ok(Self {
            webhook_deliveries,
            pushes,
            oldest_undelivered: float(
                "ridewire_webhook_oldest_undelivered_seconds",
                "Age of the oldest event that any active webhook endpoint has not received yet, in seconds.",
            )?,
            connections,
            limit_rejections,
            buffered: gauge("ridewire_http_buffered_bytes", "Bytes of requests and responses in memory.")?,
            event_delivery: histogram(
                "ridewire_event_delivery_duration_seconds",
                "Time from when this replica has an event, by its own commit or from the log, until a stream writes it to the socket.",
                seconds()?,
            )?,
            api_errors: counters("ridewire_api_errors_total", "Error responses, by error code.", &["code"])?,
            streams_rejected,
            moderation_requests,
            moderation_duration: histogram(
                "ridewire_moderation_request_duration_seconds",
                "Duration of a moderation check, whatever its outcome.",
                seconds()?,
            )?,
            moderation_circuit: gauges(
                "ridewire_moderation_circuit_state",
                "State of the moderation circuit breaker: 1 for the current state, 0 for the others.",
                &["state"],
            )?,
            events: counters("ridewire_events_total", "Events that this replica committed, by type.", &["type"])?,
            batch_commands: histogram(
                "ridewire_batch_commands",
                "Commands in one write batch, that is, in one transaction.",
                exponential_buckets(1.0, 2.0, 9)?,
            )?,
            batch_duration: histogram(
                "ridewire_batch_duration_seconds",
                "Duration of one write batch (one transaction with the commands of several requests), from requesting a connection until the response to COMMIT.",
                seconds()?,
            )?,
            listener_state: gauges(
                "ridewire_listener_state",
                "State of the LISTEN connection: 1 for the current state, 0 for the others.",
                &["state"],
            )?,
            listener_lag: float(
                "ridewire_listener_lag_seconds",
                "Time that the last probe of the listener, a NOTIFY to itself, took to arrive.",
            )?,
            listener_notifications: counters(
                "ridewire_listener_notifications_total",
                "Notifications that the listener has received.",
                &[],
            )?,
            listener_bytes: counters(
                "ridewire_listener_received_bytes_total",
                "Bytes of the notifications that the listener has received.",
                &[],
            )?,
            notify_queue: float(
                "ridewire_notify_queue_usage_ratio",
                "Fraction of the Postgres notification queue that is in use, from 0 to 1.",
            )?,
            pool: gauges(
                "ridewire_pool_connections",
                "Connections to Postgres: idle, used, or pending (requests that wait for one).",
                &["state"],
            )?,
            feed_pending: gauge(
                "ridewire_feed_pending_batches",
                "Committed batches whose events have no position in the feed yet.",
            )?,
            audit_pending: gauge("ridewire_audit_pending_entries", "Audit log entries that are not written yet.")?,
            handovers,
            database: gauge("ridewire_database_up", "1 if Postgres responds, otherwise 0.")?,
            tasks: gauge("ridewire_tokio_tasks", "Live tasks of the Tokio runtime.")?,
            process: ProcessMetrics::register(&registry)?,
            requests: RequestMetrics::register(&registry)?,
            lags: Lags::register(&registry)?,
            sources: OnceLock::new(),
            registry,
        })
    }

    /// Sets the sources, besides the [`Api`](super::Api), that each scrape reads. Called once, at the start.
    pub fn set_sources(&self, sources: MetricSources) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(sources.pool_wait.clone()))?;
        drop(self.sources.set(sources));
        Ok(())
    }

    /// Returns the sources, once they are set.
    pub(super) fn sources(&self) -> Option<&MetricSources> {
        self.sources.get()
    }

    /// Returns all metrics in the Prometheus text format.
    pub(super) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Counts a committed batch and its events.
    pub fn committed(&self, committed: &CommittedBatch) {
        self.batch_commands.observe(committed.commands as f64);
        self.batch_duration.observe(committed.duration.as_secs_f64());
        for event in &committed.events {
            self.events.with_label_values(&[event.kind.as_str()]).inc();
        }
    }

    /// Counts a request or connection that `limit`, one of `LIMITS`, rejected.
    pub(super) fn rejected(&self, limit: &str) {
        self.limit_rejections.with_label_values(&[limit]).inc();
    }

    /// Counts a moderation check. The open circuit sends no request, so it adds nothing to the duration.
    pub(super) fn checked(&self, checked: &CheckResult) {
        let outcome = checked.outcome.as_ref().map_or_else(|failure| failure.as_str(), Verdict::as_str);
        self.moderation_requests.with_label_values(&[outcome]).inc();
        if checked.outcome != Err(Failure::CircuitOpen) {
            self.moderation_duration.observe(checked.duration.as_secs_f64());
        }
    }

    /// Counts an attempt to deliver an event to a webhook endpoint.
    pub fn webhook_attempted(&self, outcome: Outcome) {
        self.webhook_deliveries.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a Web Push message.
    pub fn pushed(&self, outcome: PushOutcome) {
        self.pushes.with_label_values(&[outcome.as_str()]).inc();
    }
}
