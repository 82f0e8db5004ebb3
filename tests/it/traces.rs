//! Traces, as a collector gets them.

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

/// How long spans gather before they are sent, in milliseconds: as OpenTelemetry's own setting says.
const GATHERING: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "200");

/// A span as it arrived.
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

/// A collector that speaks OTLP over HTTP.
struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let taken = Arc::clone(&taken);
                tokio::spawn(async move { take(socket, &taken).await });
            }
        });
        Self { endpoint, spans }
    }
}

/// Takes what a replica sends, one request after the other.
async fn take(socket: TcpStream, taken: &Mutex<Vec<Span>>) {
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
            taken.lock().await.extend(spans.map(|span| Span {
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
async fn a_message_is_followed_from_its_request_to_the_reader_on_another_replica() {
    let database = Database::create().await;
    let collector = Collector::start().await;
    let settings = [("RIDEWIRE_OTLP_ENDPOINT", collector.endpoint.as_str()), ("RIDEWIRE_TRACE_RATIO", "0"), GATHERING];
    let (server, other) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = other.live(&driver, "ride").await;
    let polling = tokio::spawn({
        let driver = driver.clone();
        async move { driver.poll("ride", "after=1&wait=55&types=message:new").await }
    });
    eventually("the poll waits", async || (database.replicas_with("driver_1", "ride").await == 2).then_some(())).await;
    let send = async |content: &str, traceparent: String| {
        let body = json!({ "rideId": "ride", "content": content });
        let request = rider.request(Method::POST, "messages").json(&body).header("traceparent", traceparent);
        rider.ask(request).await.expect(201).json()
    };
    // The caller's word counts, in both directions.
    let traced = send("followed", format!("00-{TRACE}-{PARENT}-01")).await;
    send("not followed", format!("00-{}-{PARENT}-00", TRACE.replace('4', "5"))).await;
    for content in ["followed", "not followed"] {
        assert_eq!(stream.next_of("message:new").await.data["content"], content);
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
    assert_ne!(streamed.replica, commit.replica, "it went through the log and NOTIFY");
    assert!(delivered.iter().all(|span| span.parent == request.id));
    // Nobody's words, names or tokens.
    let all = format!("{spans:?}");
    for secret in ["followed", "rider_1", "driver_1", &rider.token] {
        assert!(!all.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_a_line_in_the_log() {
    let database = Database::create().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("http://{gone}");
    let server = Server::with(&database, &[("RIDEWIRE_OTLP_ENDPOINT", &endpoint), GATHERING]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    for number in 0..20 {
        let sent = rider.send("ride", &number.to_string()).await;
        assert_eq!(stream.next_of("message:new").await.data["id"], sent["id"]);
    }
    eventually("it is said", async || server.log().contains("traces cannot be sent").then_some(())).await;
    drop(stream);
    assert!(server.terminate().await.success());
}
