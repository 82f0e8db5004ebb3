//! Traces, for OpenTelemetry: one message from its request through the commit to each reader, on every replica.
//!
//! A request's span is the parent of all that comes of it, wherever that is: its context is stored with the event, so a
//! replica that reads the log knows it. Where no collector is configured nothing is recorded, stored or paid.
//!
//! | span | is | ends |
//! |---|---|---|
//! | `POST /api/v1/messages` and the like | a request | with the head of its answer |
//! | `commit` | its event in a batch: one or two flights to Postgres, NOTIFY in the last | committed |
//! | `deliver` | its event on the way to one reader, from when the replica had it | handed to the socket |

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, SpanRef, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use salvo::async_trait;

use crate::domain::TraceContext;
use crate::web;

/// Where traces go, if anywhere.
#[derive(Debug, Default)]
pub struct Traces(Option<Recorder>);

#[derive(Debug)]
struct Recorder {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A request that is traced, until it is dropped.
#[derive(Debug)]
pub struct Traced(Context);

impl Traces {
    /// Traces to a collector that speaks OTLP over HTTP at `endpoint`, such as `http://collector:4318`: this part of those
    /// that begin here, and those that were recorded before they came here.
    pub fn to(endpoint: &str, ratio: f64) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::default())
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()?;
        let replica = KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string());
        let resource = Resource::builder().with_service_name("ridewire").with_attribute(replica).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("ridewire");
        Ok(Self(Some(Recorder { provider, tracer })))
    }

    /// Begins a request's span, below that of `traceparent`. `None` where it is not recorded.
    pub fn begin(&self, name: impl FnOnce() -> String, traceparent: Option<&str>) -> Option<Traced> {
        let recorder = self.0.as_ref()?;
        let parent = match traceparent.map(str::parse) {
            Some(Ok(parent)) => Context::new().with_remote_span_context(remote(parent)),
            _ => Context::new(),
        };
        let span = recorder
            .tracer
            .span_builder(name())
            .with_kind(SpanKind::Server)
            .start_with_context(&recorder.tracer, &parent);
        let context = parent.with_span(span);
        context.span().is_recording().then(|| Traced(context))
    }

    /// An event was committed, in a batch of so many commands that took so long.
    pub fn committed(&self, parent: TraceContext, topic: &str, seq: i64, (commands, took): (usize, Duration)) {
        let commands = KeyValue::new("ridewire.batch.commands", i64::try_from(commands).unwrap_or(i64::MAX));
        self.record(
            "commit",
            parent,
            took,
            vec![KeyValue::new("ridewire.topic", topic.to_owned()), KeyValue::new("ridewire.seq", seq), commands],
        );
    }

    /// An event, which this replica has had since `arrived`, was handed to a reader.
    pub fn delivered(&self, parent: TraceContext, seq: i64, transport: &'static str, arrived: Instant) {
        let attributes = vec![KeyValue::new("ridewire.seq", seq), KeyValue::new("ridewire.transport", transport)];
        self.record("deliver", parent, arrived.elapsed(), attributes);
    }

    fn record(&self, name: &'static str, parent: TraceContext, took: Duration, attributes: Vec<KeyValue>) {
        let Some(Recorder { tracer, .. }) = &self.0 else { return };
        let parent = Context::new().with_remote_span_context(remote(parent));
        let span = tracer.span_builder(name).with_start_time(SystemTime::now() - took).with_attributes(attributes);
        // It ends with its being dropped.
        drop(span.start_with_context(tracer, &parent));
    }

    /// Sends what is left. Blocks, for some seconds at most.
    pub fn finish(&self) {
        if let Some(Recorder { provider, .. }) = &self.0
            && let Err(error) = provider.shutdown()
        {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

impl Traced {
    /// Where what comes of the request belongs.
    pub fn context(&self) -> TraceContext {
        let context = self.span().span_context().clone();
        TraceContext { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() }
    }

    /// What it was answered.
    pub fn answered(&self, request: &str, status: u16) {
        let span = self.span();
        span.set_attribute(KeyValue::new("ridewire.request.id", request.to_owned()));
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
    }

    fn span(&self) -> SpanRef<'_> {
        self.0.span()
    }
}

fn remote(context: TraceContext) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes(context.trace), SpanId::from_bytes(context.span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

/// Who takes the traces, asked from the exporter's own thread.
#[derive(Debug, Default)]
struct Collector {
    is_away: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = web::send(request.map(|body| body.to_vec()));
        let was_away = self.is_away.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            // Once, however long it lasts.
            Err(error) if !was_away => tracing::warn!(%error, "traces cannot be sent"),
            Ok(_) if was_away => tracing::info!("traces are sent again"),
            _ => {}
        }
        Ok(sent?.map(Bytes::from))
    }
}
