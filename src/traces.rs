//! OpenTelemetry traces: one message from its request through the commit to each reader, on every replica.
//!
//! The span of a request is the parent of all spans that the request causes. Its context is stored with the event, so every
//! replica that reads the event from the log has it. Without a configured collector nothing is recorded or stored.
//!
//! | span | covers | ends when |
//! |---|---|---|
//! | `POST /api/v1/messages` and other requests | the request | the head of its response is ready |
//! | `commit` | the batch of its event | the batch is committed |
//! | `deliver` | the delivery of its event to one reader, from when the replica has the event | the event is written to the socket |

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
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
use tokio::runtime::Handle;

use crate::domain::TraceContext;
use crate::web;

/// The exporter of traces. Without a collector it records nothing.
#[derive(Debug, Default)]
pub struct Traces(Option<Recorder>);

#[derive(Debug)]
struct Recorder {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The span of a request. Dropping it ends the span.
#[derive(Debug)]
pub struct RequestSpan(Context);

impl Traces {
    /// Exports traces by OTLP over HTTP to the collector at `endpoint`, such as `http://collector:4318`.
    ///
    /// `ratio` is the sampled fraction of the traces that begin here. A request with a sampled `traceparent` is always sampled.
    pub fn export_to(endpoint: &str, ratio: f64) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector { runtime: Handle::current(), is_failing: AtomicBool::new(false) })
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

    /// Starts the span of a request, as a child of a sampled `traceparent`, otherwise as the root of a new trace. Returns `None` if
    /// the trace is not sampled.
    pub fn start_request(&self, name: impl FnOnce() -> String, traceparent: Option<&str>) -> Option<RequestSpan> {
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
        context.span().is_recording().then(|| RequestSpan(context))
    }

    /// Records the commit of an event, with the number of commands and the duration of its batch.
    pub fn committed(&self, parent: TraceContext, topic: &str, seq: i64, (commands, duration): (usize, Duration)) {
        let commands = KeyValue::new("ridewire.batch.commands", i64::try_from(commands).unwrap_or(i64::MAX));
        self.record(
            "commit",
            parent,
            duration,
            vec![KeyValue::new("ridewire.topic", topic.to_owned()), KeyValue::new("ridewire.seq", seq), commands],
        );
    }

    /// Records the delivery of an event to a reader. `arrived` is when this replica got the event.
    pub fn delivered(&self, parent: TraceContext, seq: i64, transport: &'static str, arrived: Instant) {
        let attributes = vec![KeyValue::new("ridewire.seq", seq), KeyValue::new("ridewire.transport", transport)];
        self.record("deliver", parent, arrived.elapsed(), attributes);
    }

    fn record(&self, name: &'static str, parent: TraceContext, duration: Duration, attributes: Vec<KeyValue>) {
        let Some(Recorder { tracer, .. }) = &self.0 else { return };
        let parent = Context::new().with_remote_span_context(remote(parent));
        let span = tracer.span_builder(name).with_start_time(SystemTime::now() - duration).with_attributes(attributes);
        // Dropping a span ends it.
        drop(span.start_with_context(tracer, &parent));
    }

    /// Exports the remaining spans. Blocks for a few seconds at most.
    pub fn shutdown(&self) {
        if let Some(Recorder { provider, .. }) = &self.0
            && let Err(error) = provider.shutdown()
        {
            tracing::debug!(%error, "export of the last traces failed");
        }
    }
}

impl RequestSpan {
    /// Returns the context of the span, to be the parent of the spans that the request causes.
    pub fn context(&self) -> TraceContext {
        let context = self.span().span_context().clone();
        TraceContext { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() }
    }

    /// Adds the id of the request and the status of the response to the span.
    pub fn set_response(&self, request: &str, status: u16) {
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

/// The HTTP client of the exporter. The exporter calls it on its own thread.
#[derive(Debug)]
struct Collector {
    runtime: Handle,
    is_failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The exporter's thread has no runtime of its own.
        let sent = self.runtime.spawn(web::send(request.map(Full::new))).await?;
        let failure = match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("the collector responded with {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            // Logged once per outage.
            Some(error) if !was_failing => {
                tracing::warn!(error, "trace export failed; spans are lost until it resumes");
            }
            None if was_failing => tracing::info!("trace export resumed"),
            _ => {}
        }
        Ok(sent?)
    }
}
