//! A hook that does not do its work.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::receiver::{Hook, Reply, SECRET, allow};
use crate::support::{Database, Server, eventually, ridewire};

/// The outcomes that were counted, but for those that were not seen.
async fn outcomes(server: &Server) -> BTreeMap<String, f64> {
    let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("ridewire_moderation_requests_total{outcome=\""));
    let counted = lines.map(|line| line.split_once("\"} ").unwrap());
    counted
        .map(|(outcome, count)| (outcome.to_owned(), count.parse().unwrap()))
        .filter(|(_, count)| *count > 0.0)
        .collect()
}

/// The state of the circuit.
async fn circuit(server: &Server) -> String {
    let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("ridewire_moderation_circuit{state=\""));
    lines.find_map(|line| line.strip_suffix("\"} 1")).unwrap().to_owned()
}

/// Failures of all kinds, fewer than open the circuit: the reply, and the outcome that is counted.
fn failures() -> Vec<(Reply, &'static str)> {
    vec![
        (Reply::Silence, "timeout"),
        (Reply::Raw(500, json!({ "action": "allow" }).to_string()), "status"),
        (Reply::Raw(302, String::new()), "status"),
        (Reply::Raw(200, "allow".to_owned()), "invalid"),
        (Reply::Json(json!({ "action": "replace", "content": "" })), "invalid"),
        (Reply::Json(json!({ "action": "flag", "labels": "spam" })), "invalid"),
        (Reply::Raw(200, format!("{{\"action\":\"allow\",\"more\":\"{}\"}}", "x".repeat(70_000))), "invalid"),
    ]
}

async fn each_failure(on_failure: &'static str, expect: impl AsyncFn(&Server, &str)) {
    let database = Database::create().await;
    let hook = Hook::start(|_| allow()).await;
    let server = Server::with(&database, &hook.failing_to(on_failure, "2s")).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let mut counted = BTreeMap::<_, f64>::new();
    for (n, (reply, outcome)) in failures().into_iter().enumerate() {
        hook.rule(move |_| reply.clone());
        expect(&server, &format!("failure {n}")).await;
        *counted.entry(outcome.to_owned()).or_default() += 1.0;
        hook.rule(|_| allow());
        rider.send("ride_1", "in between").await;
        *counted.entry("allow".to_owned()).or_default() += 1.0;
    }
    assert_eq!(outcomes(&server).await, counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_checked_is_stored_by_default() {
    each_failure("allow", async |server, content| {
        let sent = server.rider("rider_1").send("ride_1", content).await;
        assert_eq!((&sent["content"], &sent["labels"]), (&json!(content), &Value::Null));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_checked_is_rejected_where_the_setting_says_so() {
    each_failure("reject", async |server, content| {
        let body = json!({ "rideId": "ride_1", "content": content });
        let answer = server.rider("rider_1").post("messages", body).await;
        assert!(!answer.header("retry-after").is_empty());
        answer.problem(503, "moderation_unavailable");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_is_away_counts_as_a_failure() {
    let database = Database::create().await;
    let settings = [
        ("RIDEWIRE_MODERATION_URL", "http://127.0.0.1:9/"),
        ("RIDEWIRE_MODERATION_SECRET", SECRET),
        ("RIDEWIRE_MODERATION_TIMEOUT", "60s"),
    ];
    let server = Server::with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    assert_eq!(outcomes(&server).await, [("unreachable".to_owned(), 1.0)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_over_tls_is_believed_by_its_certificate() {
    let database = Database::create().await;
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority.pem");
    let hook = Hook::start_secure(&authority, |_| allow()).await;
    let trusted = ("SSL_CERT_FILE", authority.to_str().unwrap());
    let server = Server::with(&database, &[&hook.settings()[..], &[trusted]].concat()).await;
    let (rider, _) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    assert_eq!(outcomes(&server).await, [("allow".to_owned(), 1.0)].into());
    let stranger = Server::with(&database, &hook.failing_to("reject", "60s")).await;
    let body = json!({ "rideId": "ride_1", "content": "Hello" });
    rider.on(&stranger).post("messages", body).await.problem(503, "moderation_unavailable");
    assert_eq!(outcomes(&stranger).await, [("unreachable".to_owned(), 1.0)].into());
    assert_eq!(hook.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_keeps_failing_is_left_alone_and_asked_again_later() {
    let database = Database::create().await;
    let hook = Hook::start(|_| Reply::Raw(500, String::new())).await;
    let server = Server::with(&database, &hook.failing_to("reject", "60s")).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let say = async || rider.post("messages", json!({ "rideId": "ride_1", "content": "a secret" })).await;
    assert_eq!(circuit(&server).await, "closed");
    // It stays open for seconds, and each probe opens it for as long again.
    eventually("the circuit opens", async || {
        say().await.problem(503, "moderation_unavailable");
        outcomes(&server).await.contains_key("circuit_open").then_some(())
    })
    .await;
    assert!(outcomes(&server).await["status"] >= 20.0);
    hook.rule(|_| allow());
    eventually("the circuit closes", async || (say().await.status == 201).then_some(())).await;
    assert_eq!(circuit(&server).await, "closed");
    let log = server.log();
    assert!(log.contains("moderation circuit opened") && log.contains("moderation circuit closed"), "{log}");
    assert!(!log.contains("a secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_moderation_that_make_no_sense_are_refused_at_the_start() {
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
