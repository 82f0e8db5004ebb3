//! Traces, as a collector receives them.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};
use prost::Message as _;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::support::{Database, Server, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The delay before spans are exported in milliseconds, from OpenTelemetry's own setting.
const EXPORT_DELAY: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "200");

/// A span as received.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    replica: String,
    attributes: Vec<KeyValue>,
    took: u64,
}

impl Span {
    fn text(&self, key: &str) -> String {
        text(&self.attributes, key)
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone());
    match value {
        Some(Any { value: Some(AnyValue::StringValue(text)) }) => text,
        Some(Any { value: Some(AnyValue::IntValue(number)) }) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An OTLP collector over HTTP.
struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let received = Arc::clone(&received);
                tokio::spawn(async move { receive_spans(socket, &received).await });
            }
        });
        Self { endpoint, spans }
    }
}

/// Receives the exports of a replica.
async fn receive_spans(socket: TcpStream, received: &Mutex<Vec<Span>>) {
    let mut socket = BufReader::new(socket);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while socket.read_line(&mut line).await.is_ok_and(|read| read > 2) {
            assert!(!line.starts_with("POST") || line.starts_with("POST /v1/traces "), "{line}");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        if length == 0 {
            return;
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        let sent = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        for resource in sent.resource_spans {
            let replica = text(&resource.resource.unwrap().attributes, "service.instance.id");
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received.lock().await.extend(spans.map(|span| Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                replica: replica.clone(),
                attributes: span.attributes,
                took: span.end_time_unix_nano - span.start_time_unix_nano,
            }));
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_covers_a_message_from_its_request_to_a_reader_on_another_replica() {
    let database = Database::create().await;
    let collector = Collector::start().await;
    let settings =
        [("RIDEWIRE_OTLP_ENDPOINT", collector.endpoint.as_str()), ("RIDEWIRE_TRACE_RATIO", "0"), EXPORT_DELAY];
    let (server, other) =
        (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = other.live_stream(&driver, "ride").await;
    let polling = tokio::spawn({
        let driver = driver.clone();
        async move { driver.poll("ride", "after=1&wait=55&types=message:new").await }
    });
    eventually("the poll waits", async || {
        (database.replicas_with_presence("driver_1", "ride").await == 2).then_some(())
    })
    .await;
    let send = async |content: &str, traceparent: String| {
        let body = json!({ "rideId": "ride", "content": content });
        let request = rider.request(Method::POST, "messages").json(&body).header("traceparent", traceparent);
        rider.execute(request).await.expect(201).json()
    };
    // The caller's sampling decision is respected, in both directions.
    let traced = send("followed", format!("00-{TRACE}-{PARENT}-01")).await;
    send("not followed", format!("00-{}-{PARENT}-00", TRACE.replace('4', "5"))).await;
    for content in ["followed", "not followed"] {
        assert_eq!(stream.next_of_type("message:new").await.data["content"], content);
    }
    polling.await.unwrap();

    let spans = eventually("four spans arrive", async || {
        let spans = collector.spans.lock().await.clone();
        (spans.len() >= 4).then_some(spans)
    })
    .await;
    assert!(spans.len() == 4 && spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [request] = named("POST /api/v1/messages")[..] else { panic!("{spans:#?}") };
    assert_eq!(request.parent, PARENT);
    assert_eq!(request.text("http.response.status_code"), "201");
    let [commit] = named("commit")[..] else { panic!("{spans:#?}") };
    assert_eq!((&commit.parent, &commit.replica), (&request.id, &request.replica));
    assert_eq!(commit.text("ridewire.topic"), "ride/ride");
    assert_eq!(commit.text("ridewire.seq"), traced["seq"].to_string());
    assert!(commit.took > 0 && commit.took <= request.took, "{spans:#?}");
    let mut delivered = named("deliver");
    delivered.sort_by_key(|span| span.text("ridewire.transport"));
    let [polled, streamed] = delivered[..] else { panic!("{spans:#?}") };
    assert_eq!((polled.text("ridewire.transport").as_str(), &polled.replica), ("poll", &commit.replica));
    assert_eq!(streamed.text("ridewire.transport"), "sse");
    assert_ne!(streamed.replica, commit.replica, "the event went through the log and NOTIFY");
    assert!(delivered.iter().all(|span| span.parent == request.id));
    // Spans contain no message content, names or tokens.
    let all = format!("{spans:?}");
    for secret in ["followed", "rider_1", "driver_1", &rider.token] {
        assert!(!all.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_collector_costs_one_log_line() {
    let database = Database::create().await;
    let unused_address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("http://{unused_address}");
    let server = Server::start_with(&database, &[("RIDEWIRE_OTLP_ENDPOINT", &endpoint), EXPORT_DELAY]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    for number in 0..20 {
        let sent = rider.send("ride", &number.to_string()).await;
        assert_eq!(stream.next_of_type("message:new").await.data["id"], sent["id"]);
    }
    eventually("the failure is logged", async || server.log().contains("trace export failed").then_some(())).await;
    drop(stream);
    assert!(server.terminate().await.success());
}
