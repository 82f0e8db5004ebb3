//! The reverse proxies that `ops` has a configuration for, and `compose.yaml`, which uses one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Balancer, Database, Kind, Server, TIMEOUT, User, eventually, eventually_within, ridewire};

/// The idle timeout of the proxy in this test, and the heartbeat interval of a stream that must stay open. The ratio is large,
/// so a slow machine does not miss the timeout.
const IDLE: &str = "5s";
const HEARTBEAT: (&str, &str) = ("RIDEWIRE_HEARTBEAT", "250ms");

fn through(balancer: &Balancer, user: &User) -> User {
    let mut user = user.clone();
    user.base.clone_from(&balancer.base);
    user
}

/// Checks that events arrive immediately, that a disconnect is detected, and that the proxy replaces a stopped server.
async fn check_delivery(kind: Kind) {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s"), HEARTBEAT];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let Some(balancer) = Balancer::start(kind, &database, [&one, &two], None).await else { return };
    let (rider, driver) = one.open_ride("ride").await;
    let (rider, driver) = (through(&balancer, &rider), through(&balancer, &driver));
    let mut stream = driver.stream("ride", "").await.expect(200);
    stream.next_sync().await;
    let sent = rider.send("ride", "through a proxy").await;
    assert_eq!(stream.next_of_type("message:new").await.data["id"], sent["id"]);
    stream.next_comment(TIMEOUT).await;
    drop(stream);

    // The proxy closes its connection. No heartbeat is due before that.
    let idle = driver.stream("ride", "heartbeat=60").await.expect(200);
    drop(idle);
    eventually_within(TIMEOUT, Duration::from_millis(100), "the driver is offline", async || {
        let presence = rider.get("messages/rides/ride/presence").await.expect(200).json();
        let driver = presence["participants"].as_array().unwrap().iter().find(|who| who["userId"] == "driver_1");
        (driver.unwrap()["online"] == false).then_some(())
    })
    .await;

    let polling = tokio::spawn({
        let driver = driver.clone();
        async move { driver.poll("ride", "after=2&wait=55&types=message:new").await }
    });
    rider.send("ride", "to a poll").await;
    // A poll that timed out would return no events.
    let polled = timeout(TIMEOUT, polling).await.expect("a response").unwrap();
    assert_eq!(polled["events"][0]["data"]["content"], "to a poll");
    // Requests that a proxy would reject with its own error are rejected by the server.
    // The body fits into the socket buffers. Otherwise a client that is still sending might get a reset instead of the response.
    let body = "x".repeat(70_000);
    rider.send_bytes(reqwest::Method::POST, "messages", body).await.problem(413, "body_too_large");
    assert_eq!(reqwest::get(format!("{}/metrics", balancer.base)).await.unwrap().status(), 404);

    let head = database.head("ride").await;
    one.kill().await;
    for number in 0..10 {
        // At most one send that was in flight gets a 503.
        let response = eventually("the message is accepted", async || {
            let response = rider.send_with_id("ride", "after the first server stopped", &number.to_string()).await;
            (response.status.is_success()).then_some(response)
        });
        response.await;
    }
    let mut again = driver.stream("ride", &format!("after={head}&types=message:new")).await.expect(200);
    again.next_sync().await;
    for _ in 0..10 {
        assert_eq!(again.next_of_type("message:new").await.data["content"], "after the first server stopped");
    }
}

/// Checks that a stream outlives the proxy's idle timeout only by its heartbeats.
async fn check_heartbeats(kind: Kind) {
    let database = Database::create().await;
    let (one, two) =
        (Server::start_with(&database, &[HEARTBEAT]).await, Server::start_with(&database, &[HEARTBEAT]).await);
    let Some(balancer) = Balancer::start(kind, &database, [&one, &two], Some(IDLE)).await else { return };
    let (rider, driver) = one.open_ride("ride").await;
    let (rider, driver) = (through(&balancer, &rider), through(&balancer, &driver));
    let mut with_heartbeat = driver.stream("ride", "types=message:new").await.expect(200);
    let mut idle = driver.stream("ride", "heartbeat=60&types=message:new").await.expect(200);
    with_heartbeat.next_sync().await;
    idle.next_sync().await;
    assert!(idle.try_next().await.is_none(), "the proxy closes the idle stream");
    // The other stream has been open for longer than the timeout.
    for _ in 0..3 {
        with_heartbeat.next_comment(TIMEOUT).await;
    }
    let sent = rider.send("ride", "still there").await;
    assert_eq!(with_heartbeat.next_of_type("message:new").await.data["id"], sent["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_events_arrive_immediately_and_a_stopped_server_is_replaced() {
    check_delivery(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_caddy_events_arrive_immediately_and_a_stopped_server_is_replaced() {
    check_delivery(Kind::Caddy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_events_arrive_immediately_and_a_stopped_server_is_replaced() {
    check_delivery(Kind::HaProxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_streams_open_behind_every_proxy() {
    let [nginx, caddy, haproxy] = Kind::ALL.map(check_heartbeats);
    tokio::join!(nginx, caddy, haproxy);
}

/// Returns the status of a path that is sent unchanged.
async fn status_of(balancer: &Balancer, path: &str) -> u16 {
    let address = balancer.base.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    socket.read_to_end(&mut response).await.unwrap();
    let text = String::from_utf8_lossy(&response).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{path}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_proxy_passes_metrics_under_any_spelling_or_logs_tickets() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    for kind in Kind::ALL {
        let Some(balancer) = Balancer::start(kind, &database, [&one, &two], None).await else { continue };
        for path in
            ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/./metrics", "/healthz/../metrics", "/metrics?x"]
        {
            let status = status_of(&balancer, path).await;
            assert!(matches!(status, 404 | 400 | 308), "{kind:?}: {path}: {status}");
        }
        assert_eq!(status_of(&balancer, "/api/v1/poll?ticket=ZEBRA.ZEBRA.ZEBRA").await, 401, "{kind:?}");
        eventually("the request is logged", async || balancer.log().contains("/api/v1/poll").then_some(())).await;
        assert!(!balancer.log().contains("ZEBRA"), "{kind:?}: {}", balancer.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_names_only_existing_settings_and_services() {
    let compose: Value = serde_norway::from_str(include_str!("../../compose.yaml")).unwrap();
    let help = ridewire().args(["serve", "--help"]).output().await.unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let environment: BTreeMap<String, Value> =
        serde_json::from_value(compose["x-server"]["environment"].clone()).unwrap();
    assert!(environment.len() >= 2);
    for name in environment.keys() {
        assert!(help.contains(&format!("[env: {name}")), "{name} is not a setting");
    }
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        let server = &compose["x-server"];
        let of = |setting: &str| if service[setting].is_null() { &server[setting] } else { &service[setting] };
        assert_eq!(of("read_only"), true, "{name}");
        assert_eq!(of("cap_drop"), &serde_json::json!(["ALL"]), "{name}");
        assert_eq!(of("security_opt"), &serde_json::json!(["no-new-privileges:true"]), "{name}");
    }
    let nginx = include_str!("../../ops/nginx/ridewire.conf");
    let upstreams: Vec<_> =
        nginx.lines().filter_map(|line| line.trim().strip_prefix("server ")?.split(':').next()).collect();
    let upstreams: Vec<_> = upstreams.into_iter().filter(|name| !name.contains('{')).collect();
    assert_eq!(upstreams, ["one", "two"]);
    for name in upstreams {
        assert!(services.contains_key(name), "{name} is not a service");
    }
    // The settings in the image's file must exist.
    let dockerfile = include_str!("../../Dockerfile");
    for name in ["RIDEWIRE_LISTEN", "RIDEWIRE_LOG_FORMAT"] {
        assert!(dockerfile.contains(&format!("{name}=")) && help.contains(&format!("[env: {name}")), "{name}");
    }
    let rust = include_str!("../../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{}-", rust.trim_matches('"'))), "{rust}");
}

/// Files that are compiled in must be copied into the image build, and must not be excluded by .dockerignore.
#[test]
fn the_image_build_copies_all_sources() {
    let mut sources = String::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let included = sources.split("include_").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let outside = included.filter_map(|path| path.rsplit_once("../").map(|(_, rest)| rest.split('/').next().unwrap()));
    // The keys of unit tests are not compiled in.
    let outside: BTreeSet<_> = outside.filter(|name| *name != "tests").collect();
    assert_eq!(outside, BTreeSet::from(["clients", "docs", "openapi.yaml", "sql", "web"]));
    for name in outside {
        let is_copied = include_str!("../../Dockerfile").lines().any(|line| line.starts_with(&format!("COPY {name} ")));
        let is_included = include_str!("../../.dockerignore").lines().any(|line| line == format!("!{name}"));
        assert!(is_copied && is_included, "{name}");
    }
}
