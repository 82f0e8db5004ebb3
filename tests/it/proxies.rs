//! Behind nginx, as `compose.yaml` puts it there; and that file itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::support::{Database, Nginx, PATIENCE, Server, User, eventually, ridewire};

fn through(nginx: &Nginx, user: &User) -> User {
    let mut user = user.clone();
    user.base.clone_from(&nginx.base);
    user
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_events_come_at_once_and_a_server_that_goes_is_not_missed() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let Some(nginx) = Nginx::before(&database, [&one, &two]).await else { return };
    let (rider, driver) = one.open_ride("ride").await;
    let (rider, driver) = (through(&nginx, &rider), through(&nginx, &driver));
    let mut stream = driver.stream("ride", "heartbeat=5").await.expect(200);
    stream.next_sync().await;
    let sent = rider.send("ride", "through a proxy").await;
    assert_eq!(stream.next_of("message:new").await.data["id"], sent["id"]);
    stream.next_comment(Duration::from_secs(8)).await;
    let polling = tokio::spawn({
        let driver = driver.clone();
        async move { driver.poll("ride", "after=2&wait=30&types=message:new").await }
    });
    let began = Instant::now();
    rider.send("ride", "to a poll").await;
    let polled = timeout(PATIENCE, polling).await.expect("it does not wait for its time-out").unwrap();
    assert_eq!(polled["events"][0]["data"]["content"], "to a poll");
    assert!(began.elapsed() < Duration::from_secs(20));
    // What nginx would refuse in its own words is refused in ours.
    let body = "x".repeat(100_000);
    rider.send_bytes(reqwest::Method::POST, "messages", body).await.problem(413, "body_too_large");
    assert_eq!(reqwest::get(format!("{}/metrics", nginx.base)).await.unwrap().status(), 404);

    let head = database.head("ride").await;
    one.kill().await;
    for number in 0..10 {
        // At most the one that was on its way is told to come again.
        let answer = eventually("it is sent", async || {
            let answer = rider.send_named("ride", "without the first", &number.to_string()).await;
            (answer.status.is_success()).then_some(answer)
        });
        answer.await;
    }
    let mut again = driver.stream("ride", &format!("after={head}&types=message:new")).await.expect(200);
    again.next_sync().await;
    for _ in 0..10 {
        assert_eq!(again.next_of("message:new").await.data["content"], "without the first");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_names_settings_and_services_that_there_are() {
    let compose: Value = serde_norway::from_str(include_str!("../../compose.yaml")).unwrap();
    let help = ridewire().args(["serve", "--help"]).output().await.unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let environment: BTreeMap<String, Value> =
        serde_json::from_value(compose["x-server"]["environment"].clone()).unwrap();
    assert!(environment.len() >= 2);
    for name in environment.keys() {
        assert!(help.contains(&format!("[env: {name}")), "{name} is no setting");
    }
    let services = compose["services"].as_object().unwrap();
    let nginx = include_str!("../../ops/nginx/ridewire.conf");
    let upstreams: Vec<_> =
        nginx.lines().filter_map(|line| line.trim().strip_prefix("server ")?.split(':').next()).collect();
    let upstreams: Vec<_> = upstreams.into_iter().filter(|name| !name.contains('{')).collect();
    assert_eq!(upstreams, ["one", "two"]);
    for name in upstreams {
        assert!(services.contains_key(name), "{name} is no service");
    }
    // What the image is told in its file is what the program knows.
    let dockerfile = include_str!("../../Dockerfile");
    for name in ["RIDEWIRE_LISTEN", "RIDEWIRE_LOG_FORMAT"] {
        assert!(dockerfile.contains(&format!("{name}=")) && help.contains(&format!("[env: {name}")), "{name}");
    }
    let rust = include_str!("../../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{}-", rust.trim_matches('"'))), "{rust}");
}
