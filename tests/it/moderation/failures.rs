//! Failures of the moderation hook.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::hook::{Hook, Reply, SECRET, allow};
use crate::support::{Database, Server, eventually, ridewire};

/// Returns the counted outcomes that are not zero.
async fn outcomes(server: &Server) -> BTreeMap<String, f64> {
    let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("ridewire_moderation_requests_total{outcome=\""));
    let counted = lines.map(|line| line.split_once("\"} ").unwrap());
    counted
        .map(|(outcome, count)| (outcome.to_owned(), count.parse().unwrap()))
        .filter(|(_, count)| *count > 0.0)
        .collect()
}

/// Returns the state of the circuit breaker.
async fn circuit(server: &Server) -> String {
    let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("ridewire_moderation_circuit_state{state=\""));
    lines.find_map(|line| line.strip_suffix("\"} 1")).unwrap().to_owned()
}

/// Returns a reply of each kind of failure with its counted outcome. They are too few to open the circuit.
fn failures() -> Vec<(Reply, &'static str)> {
    vec![
        (Reply::Never, "timeout"),
        (Reply::Raw(500, json!({ "action": "allow" }).to_string()), "status"),
        (Reply::Raw(302, String::new()), "status"),
        (Reply::Raw(200, "allow".to_owned()), "invalid"),
        (Reply::Json(json!({ "action": "replace", "content": "" })), "invalid"),
        (Reply::Json(json!({ "action": "flag", "labels": "spam" })), "invalid"),
        (Reply::Raw(200, format!("{{\"action\":\"allow\",\"more\":\"{}\"}}", "x".repeat(70_000))), "invalid"),
    ]
}

async fn with_each_failure(on_failure: &'static str, expect: impl AsyncFn(&Server, &str)) {
    let database = Database::create().await;
    let hook = Hook::start(|_| allow()).await;
    let server = Server::start_with(&database, &hook.failing_to(on_failure, "2s")).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let mut counted = BTreeMap::<_, f64>::new();
    for (n, (reply, outcome)) in failures().into_iter().enumerate() {
        hook.set_rule(move |_| reply.clone());
        expect(&server, &format!("failure {n}")).await;
        *counted.entry(outcome.to_owned()).or_default() += 1.0;
        hook.set_rule(|_| allow());
        rider.send("ride_1", "between failures").await;
        *counted.entry("allow".to_owned()).or_default() += 1.0;
    }
    assert_eq!(outcomes(&server).await, counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchecked_message_is_stored_by_default() {
    with_each_failure("allow", async |server, content| {
        let sent = server.rider("rider_1").send("ride_1", content).await;
        assert_eq!((&sent["content"], &sent["labels"]), (&json!(content), &Value::Null));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchecked_message_is_rejected_if_configured() {
    with_each_failure("reject", async |server, content| {
        let body = json!({ "rideId": "ride_1", "content": content });
        let response = server.rider("rider_1").post("messages", body).await;
        assert!(!response.header("retry-after").is_empty());
        response.problem(503, "moderation_unavailable");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_hook_counts_as_a_failure() {
    let database = Database::create().await;
    let settings = [
        ("RIDEWIRE_MODERATION_URL", "http://127.0.0.1:9/"),
        ("RIDEWIRE_MODERATION_SECRET", SECRET),
        ("RIDEWIRE_MODERATION_TIMEOUT", "60s"),
    ];
    let server = Server::start_with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    assert_eq!(outcomes(&server).await, [("unreachable".to_owned(), 1.0)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_tls_hook_is_verified() {
    let database = Database::create().await;
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority.pem");
    let hook = Hook::start_tls(&authority, |_| allow()).await;
    let trusted = ("SSL_CERT_FILE", authority.to_str().unwrap());
    let server = Server::start_with(&database, &[&hook.settings()[..], &[trusted]].concat()).await;
    let (rider, _) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    assert_eq!(outcomes(&server).await, [("allow".to_owned(), 1.0)].into());
    let untrusting = Server::start_with(&database, &hook.failing_to("reject", "60s")).await;
    let body = json!({ "rideId": "ride_1", "content": "Hello" });
    rider.on(&untrusting).post("messages", body).await.problem(503, "moderation_unavailable");
    assert_eq!(outcomes(&untrusting).await, [("unreachable".to_owned(), 1.0)].into());
    assert_eq!(hook.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_failures_open_the_circuit_which_closes_after_a_successful_probe() {
    let database = Database::create().await;
    let hook = Hook::start(|_| Reply::Raw(500, String::new())).await;
    let server = Server::start_with(&database, &hook.failing_to("reject", "60s")).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let send = async || rider.post("messages", json!({ "rideId": "ride_1", "content": "a secret" })).await;
    assert_eq!(circuit(&server).await, "closed");
    // The circuit stays open for seconds. Each failed probe keeps it open for the same time.
    eventually("the circuit opens", async || {
        send().await.problem(503, "moderation_unavailable");
        outcomes(&server).await.contains_key("circuit_open").then_some(())
    })
    .await;
    assert!(outcomes(&server).await["status"] >= 20.0);
    hook.set_rule(|_| allow());
    eventually("the circuit closes", async || (send().await.status == 201).then_some(())).await;
    assert_eq!(circuit(&server).await, "closed");
    let log = server.log();
    assert!(log.contains("moderation circuit opened") && log.contains("moderation circuit closed"), "{log}");
    assert!(!log.contains("a secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_moderation_settings_prevent_the_start() {
    let database = Database::create().await;
    let url = ("RIDEWIRE_MODERATION_URL", "http://127.0.0.1:9/");
    let secret = ("RIDEWIRE_MODERATION_SECRET", SECRET);
    for (settings, named) in [
        (vec![url], "RIDEWIRE_MODERATION_SECRET"),
        (vec![url, ("RIDEWIRE_MODERATION_SECRET", "secret")], "RIDEWIRE_MODERATION_SECRET"),
        (vec![("RIDEWIRE_MODERATION_URL", "ftp://127.0.0.1/"), secret], "RIDEWIRE_MODERATION_URL"),
        (vec![("RIDEWIRE_MODERATION_URL", "/moderate"), secret], "RIDEWIRE_MODERATION_URL"),
        (vec![url, secret, ("RIDEWIRE_MODERATION_TIMEOUT", "0s")], "RIDEWIRE_MODERATION_TIMEOUT"),
        (vec![url, secret, ("RIDEWIRE_MODERATION_ON_FAILURE", "maybe")], "moderation-on-failure"),
    ] {
        let environment = [("DATABASE_URL", &*database.url), ("RIDEWIRE_JWT_SECRET", crate::support::SECRET)];
        let output = ridewire().envs(environment).envs(settings.clone()).output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(named), "{settings:?}: {error}");
        assert!(!error.contains("MfKQ9r8"), "{error}");
    }
}
