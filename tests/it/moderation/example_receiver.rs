//! The example receiver of `docs/how-to/moderation.md`.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::hook::SECRET;
use crate::support::{Database, Server, TIMEOUT};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_receiver_checks_messages() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/moderation.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, program) = page.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("\n```").unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", program]).env("PORT", "0").env("RIDEWIRE_MODERATION_SECRET", SECRET);
    let Ok(mut receiver) = command.stdout(Stdio::piped()).kill_on_drop(true).spawn() else {
        eprintln!("skipped: python3 is not installed; the receiver of docs/how-to/moderation.md is not run");
        return;
    };
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
    let line = timeout(TIMEOUT, lines.next_line()).await.unwrap().unwrap().unwrap();
    let url = format!("http://127.0.0.1:{}/moderate", line.strip_prefix("listening on ").unwrap());

    let database = Database::create().await;
    let settings = [
        ("RIDEWIRE_MODERATION_URL", url.as_str()),
        ("RIDEWIRE_MODERATION_SECRET", SECRET),
        ("RIDEWIRE_MODERATION_TIMEOUT", "60s"),
        ("RIDEWIRE_MODERATION_ON_FAILURE", "reject"),
    ];
    let server = Server::start_with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    assert_eq!(rider.send("ride_1", "Hello").await["content"], "Hello");
    assert_eq!(rider.send("ride_1", "Call 030 1234567").await["content"], "Call [number removed]");
    let body = json!({ "rideId": "ride_1", "content": "You idiot" });
    let problem: Value = rider.post("messages", body).await.problem(422, "message_rejected");
    assert_eq!(problem["detail"], "Please stay polite");
    rider.send("ride_1", "Cash?").await;
    let history = server.support().history("ride_1", "").await;
    assert_eq!(history["messages"][2]["labels"], json!(["off_platform_payment"]), "{history}");
    receiver.kill().await.unwrap();
}
