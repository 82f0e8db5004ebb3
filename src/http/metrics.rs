//! `GET /metrics`: what the server does, for Prometheus.
//!
//! Labels have few values: no ids, no paths, no users. What somebody else counts already (the pool, the listener) is read
//! when it is asked for.

mod lags;
mod process;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};
use salvo::http::StatusCode;
use salvo::http::header::{CONTENT_TYPE, HeaderValue};
use salvo::oapi::endpoint;
use salvo::{Depot, Request, Response};

use self::lags::Lags;
pub use self::lags::Watched;
use self::process::ProcessMetrics;
use self::requests::RequestMetrics;
use super::context::Api;
use super::refusal::Refusal;
use crate::domain::{Error, Verdict};
use crate::moderation::{Checked, CircuitState, Failure, Moderation};
use crate::push::PushOutcome;
use crate::realtime::ListenerState;
use crate::webhooks::Outcome;
use crate::writer::Committed;

/// Clients that were cut off for the memory that they held.
const CUT_OFF: &str = "memory_cut_off";

/// The limits that reject.
const REJECTIONS: [&str; 8] =
    ["memory", CUT_OFF, "send_limit", "streams", "streams_of_user", "body_deadline", "broadcasts", "writes_waiting"];

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) open: IntGaugeVec,
    pub(super) handed_out: Histogram,
    pub(super) answers: IntCounterVec,
    pub(super) refusals: IntCounterVec,
    pub(super) put_off: IntCounterVec,
    rejections: IntCounterVec,
    held: IntGauge,
    checks: IntCounterVec,
    check_seconds: Histogram,
    circuit: IntGaugeVec,
    events: IntCounterVec,
    batches: Histogram,
    commits: Histogram,
    listen: IntGaugeVec,
    listen_lag: prometheus::Gauge,
    queue: prometheus::Gauge,
    webhook_deliveries: IntCounterVec,
    pushes: IntCounterVec,
    oldest_undelivered: prometheus::Gauge,
    pool: IntGaugeVec,
    feed_waiting: IntGauge,
    audit_waiting: IntGauge,
    handovers: IntCounterVec,
    database: IntGauge,
    tasks: IntGauge,
    process: ProcessMetrics,
    pub(super) requests: RequestMetrics,
    lags: Lags,
}

/// How a reader is connected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transport {
    /// An event stream.
    Stream,
    /// A poll.
    Poll,
}

impl Transport {
    /// As the label says it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "sse",
            Self::Poll => "poll",
        }
    }
}

impl Metrics {
    /// All of them, at zero.
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
        // From a quarter of a millisecond to eight seconds.
        let seconds = || exponential_buckets(0.000_25, 2.0, 16);
        let open = gauges("ridewire_open", "Streams and polls that are open, by transport.", &["transport"])?;
        // There from the beginning, at zero: a rate of what is not there yet cannot be told.
        for transport in [Transport::Stream, Transport::Poll] {
            open.with_label_values(&[transport.as_str()]).set(0);
        }
        let put_off = counters(
            "ridewire_streams_put_off_total",
            "Streams that were told to come back later, by why.",
            &["reason"],
        )?;
        for reason in ["shutdown", "full", "too_many_of_user"] {
            put_off.with_label_values(&[reason]).reset();
        }
        let rejections = counters(
            "ridewire_rejections_total",
            "Requests and connections that a limit has rejected or ended, by the limit.",
            &["reason"],
        )?;
        for reason in REJECTIONS {
            rejections.with_label_values(&[reason]).reset();
        }
        let checks = counters(
            "ridewire_moderation_requests_total",
            "Checks by the platform's moderation, by outcome.",
            &["outcome"],
        )?;
        let verdicts = ["allow", "replace", "reject", "flag"];
        for outcome in verdicts.into_iter().chain(Failure::ALL.map(Failure::as_str)) {
            checks.with_label_values(&[outcome]).reset();
        }
        let webhook_deliveries = counters(
            "ridewire_webhook_deliveries_total",
            "Attempts to deliver events to webhooks, by outcome.",
            &["outcome"],
        )?;
        for outcome in Outcome::ALL {
            webhook_deliveries.with_label_values(&[outcome.as_str()]).reset();
        }
        // The value is always 1: the labels are the information.
        let allocator = if cfg!(feature = "jemalloc") { "jemalloc" } else { "system" };
        gauges("ridewire_build_info", "1, with this build as labels.", &["version", "allocator"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION"), allocator])
            .set(1);
        let pushes = counters("ridewire_pushes_total", "Pushes to browsers (Web Push), by outcome.", &["outcome"])?;
        for outcome in PushOutcome::ALL {
            pushes.with_label_values(&[outcome.as_str()]).reset();
        }
        let handovers = counters(
            "ridewire_message_trace_handovers_total",
            "Handovers of messages to connections, for the trace of a message, by outcome.",
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
                "Age of the oldest event that an active webhook has not received.",
            )?,
            open,
            rejections,
            held: gauge("ridewire_held_bytes", "Bytes of requests and responses that are on their way.")?,
            handed_out: histogram(
                "ridewire_commit_to_socket_seconds",
                "From when this replica had an event, by its own commit or from the log, to when a stream handed it to its socket.",
                seconds()?,
            )?,
            answers: counters("ridewire_answers_total", "Answers by status.", &["status"])?,
            refusals: counters("ridewire_refusals_total", "Refusals by their code.", &["code"])?,
            put_off,
            checks,
            check_seconds: histogram(
                "ridewire_moderation_seconds",
                "How long a check by moderation took, whatever its outcome.",
                seconds()?,
            )?,
            circuit: gauges(
                "ridewire_moderation_circuit",
                "1 for the state of moderation's circuit breaker.",
                &["state"],
            )?,
            events: counters("ridewire_events_total", "Events that were committed here, by type.", &["type"])?,
            batches: histogram("ridewire_batch_commands", "Commands in a batch.", exponential_buckets(1.0, 2.0, 9)?)?,
            commits: histogram(
                "ridewire_commit_seconds",
                "How long a batch took, from asking for a connection to the answer to its COMMIT.",
                seconds()?,
            )?,
            listen: gauges("ridewire_listen", "1 for the state that LISTEN is in.", &["state"])?,
            listen_lag: float(
                "ridewire_listen_lag_seconds",
                "How long the last NOTIFY to ourselves took to be heard.",
            )?,
            queue: float(
                "ridewire_notify_queue_usage",
                "How much of Postgres' queue of notifications is full, 0 to 1.",
            )?,
            pool: gauges("ridewire_pool_connections", "Connections to Postgres, by what they do.", &["state"])?,
            feed_waiting: gauge(
                "ridewire_feed_waiting_batches",
                "Batches whose events have no position in the feed yet.",
            )?,
            audit_waiting: gauge(
                "ridewire_audit_waiting_entries",
                "Entries of the audit log that are not written yet.",
            )?,
            handovers,
            database: gauge("ridewire_database_up", "1 if Postgres answers.")?,
            tasks: gauge("ridewire_tasks", "Tasks of the runtime that are alive.")?,
            process: ProcessMetrics::register(&registry)?,
            requests: RequestMetrics::register(&registry)?,
            lags: Lags::register(&registry)?,
            registry,
        })
    }

    /// Watches this from now on, as well as the [`Api`].
    pub fn watch(&self, watched: Watched) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(watched.pool_wait.clone()))?;
        self.lags.watch(watched);
        Ok(())
    }

    /// Counts a commit.
    pub fn committed(&self, committed: &Committed) {
        self.batches.observe(committed.jobs as f64);
        self.commits.observe(committed.took.as_secs_f64());
        for event in &committed.events {
            self.events.with_label_values(&[event.kind.as_str()]).inc();
        }
    }

    /// Counts what a limit has rejected.
    pub(super) fn rejected(&self, reason: &str) {
        self.rejections.with_label_values(&[reason]).inc();
    }

    /// Counts a check by moderation.
    pub(super) fn checked(&self, checked: &Checked) {
        let outcome = checked.outcome.as_ref().map_or_else(|failure| failure.as_str(), Verdict::as_str);
        self.checks.with_label_values(&[outcome]).inc();
        if checked.outcome != Err(Failure::CircuitOpen) {
            self.check_seconds.observe(checked.took.as_secs_f64());
        }
    }

    /// Counts an attempt to deliver an event to a webhook.
    pub fn webhook_attempted(&self, outcome: Outcome) {
        self.webhook_deliveries.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a push.
    pub fn pushed(&self, outcome: PushOutcome) {
        self.pushes.with_label_values(&[outcome.as_str()]).inc();
    }

    /// What is read when it is asked for.
    async fn look(&self, api: &Api) {
        self.held.set(i64::try_from(api.memory.held()).unwrap_or(i64::MAX));
        let cut_off = self.rejections.with_label_values(&[CUT_OFF]);
        cut_off.inc_by(api.memory.cut_off().saturating_sub(cut_off.get()));
        self.audit_waiting.set(i64::try_from(api.audit.waiting()).unwrap_or(i64::MAX));
        let (recorded, dropped) = api.handovers.counts();
        for (outcome, count) in [("recorded", recorded), ("dropped", dropped)] {
            let counter = self.handovers.with_label_values(&[outcome]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.process.update();
        let state = api.listener.state();
        for known in ListenerState::ALL {
            self.listen.with_label_values(&[known.as_str()]).set((known == state).into());
        }
        let circuit = api.moderation.as_ref().map_or(CircuitState::Closed, Moderation::circuit_state);
        for known in CircuitState::ALL {
            self.circuit.with_label_values(&[known.as_str()]).set((known == circuit).into());
        }
        self.listen_lag.set(api.listener.lag().as_secs_f64());
        let pool = api.store.pool_status();
        for (state, connections) in [("idle", pool.idle), ("used", pool.used), ("waited_for", pool.waited_for)] {
            self.pool.with_label_values(&[state]).set(i64::try_from(connections).unwrap_or(i64::MAX));
        }
        self.tasks
            .set(i64::try_from(tokio::runtime::Handle::current().metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        // A scrape does not wait as long as a request may.
        if api.relay.is_some()
            && let Ok(Ok(waiting)) = tokio::time::timeout(Duration::from_secs(1), api.store.batches_to_relay()).await
        {
            self.feed_waiting.set(waiting);
        }
        let usage = tokio::time::timeout(Duration::from_secs(1), api.store.notification_queue_usage()).await;
        let usage = usage.ok().and_then(Result::ok);
        self.database.set(usage.is_some().into());
        self.queue.set(usage.unwrap_or(f64::NAN));
        if api.relay.is_some() && usage.is_some() {
            let oldest = tokio::time::timeout(Duration::from_secs(1), api.store.oldest_undelivered()).await;
            let age = oldest.ok().and_then(Result::ok).map(Option::unwrap_or_default);
            self.oldest_undelivered.set(age.map_or(f64::NAN, |age| age.as_secs_f64()));
        }
        self.lags.read(api, usage.is_some()).await;
    }
}

/// What it does
///
/// For Prometheus, in its text format.
#[endpoint(tags("operations"), operation_id = "getMetrics", responses(
    (status_code = 200, description = "Metrics", content_type = "text/plain", body = String)))]
pub(super) async fn get_metrics(req: &Request, depot: &mut Depot, res: &mut Response) -> Result<(), Refusal> {
    // No other spelling of the path, such as `/metrics/` or `//metrics`: a proxy that hides this one would let it through.
    if req.uri().path() != "/metrics" {
        return Err(Refusal::NotFound);
    }
    let api = depot.get_typed::<Arc<Api>>().map_err(|_| Error::Internal)?;
    api.metrics.look(api).await;
    let mut text = Vec::new();
    TextEncoder::new().encode(&api.metrics.registry.gather(), &mut text).map_err(|_| Error::Internal)?;
    res.status_code(StatusCode::OK);
    res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    res.body(text);
    Ok(())
}
