//! A ride's chat with curl.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{Database, Server, TIMEOUT, User, data_types};

/// The documented call. curl sends the body as `application/x-www-form-urlencoded`.
const SEND: &str = r#"curl -sS --noproxy '*' -X POST $BASE/api/v1/messages \
  -H "Authorization: Bearer $TOKEN" \
  -d '{"rideId": "ride_123", "content": "Hello"}'"#;

const STREAM: &str = r#"exec curl -sS --noproxy '*' -N $BASE/api/v1/messages/rides/ride_123/events \
  -H "Authorization: Bearer $TOKEN""#;

fn shell(user: &User, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("BASE", &user.base).env("TOKEN", &user.token);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(user: &User, script: &str) -> Value {
    let output = timeout(TIMEOUT, shell(user, script).output()).await.expect("curl ends").unwrap();
    assert!(output.status.success(), "{script}: {:?}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The output of `curl -N`.
struct CurlStream {
    lines: Lines<BufReader<ChildStdout>>,
    _curl: Child,
}

impl CurlStream {
    async fn open(user: &User) -> Self {
        let mut curl = shell(user, STREAM).spawn().unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        let mut stream = Self { lines, _curl: curl };
        stream.event("stream:sync").await;
        stream
    }

    /// Returns the data of the next event of this type. Skips other events, such as presence and receipts.
    async fn event(&mut self, kind: &str) -> Value {
        let reading = async {
            let mut is_wanted = false;
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the stream is open");
                is_wanted = line.strip_prefix("event: ").map_or(is_wanted, |printed| printed == kind);
                if let Some(data) = line.strip_prefix("data: ").filter(|_| is_wanted) {
                    return serde_json::from_str(data).unwrap();
                }
            }
        };
        timeout(TIMEOUT, reading).await.unwrap_or_else(|_| panic!("curl does not print {kind}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_works_with_curl() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_123").await;
    let support = server.support();
    let (mut of_rider, mut of_driver) = (CurlStream::open(&rider).await, CurlStream::open(&driver).await);
    let polling = {
        let support = support.clone();
        tokio::spawn(async move {
            let mut cursor = "1".to_owned();
            let mut events = Vec::new();
            while !events.contains(&"message:read".to_owned()) {
                let poll = support.poll("ride_123", &format!("after={cursor}")).await;
                events.extend(data_types(&poll["events"]).into_iter().map(str::to_owned));
                cursor = poll["cursor"].as_str().unwrap().to_owned();
            }
            events
        })
    };

    let sent = run(&rider, SEND).await;
    assert_eq!((&sent["content"], &sent["senderId"]), (&json!("Hello"), &json!("rider_1")));
    assert_eq!(of_driver.event("message:new").await, sent);
    assert_eq!(of_rider.event("message:new").await, sent, "the sender's other devices get the message too");

    let id = sent["id"].as_str().unwrap();
    let read = r#"curl -sS --noproxy '*' -X POST $BASE/api/v1/messages/ID/read -H "Authorization: Bearer $TOKEN""#;
    let receipt = run(&driver, &read.replace("ID", id)).await;
    assert_eq!(receipt["readSeq"], sent["seq"]);
    let seen = of_rider.event("message:read").await;
    assert_eq!((&seen["userId"], &seen["messageId"]), (&json!("driver_1"), &sent["id"]));

    let polled = polling.await.unwrap();
    assert!(polled.contains(&"message:new".to_owned()), "{polled:?}");

    let get = r#"curl -sS --noproxy '*' $BASE/api/v1/messages/rides/ride_123 -H "Authorization: Bearer $TOKEN""#;
    let history = run(&rider, get).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    let message = &history["messages"][0];
    assert_eq!(
        (&message["id"], &message["isRead"], &message["isDelivered"]),
        (&sent["id"], &json!(true), &json!(true))
    );
    let unread = get.replace("ride_123", "ride_123/unread-count");
    assert_eq!(run(&driver, &unread).await["unreadCount"], 0);
    assert_eq!(run(&support, &unread).await["unreadCount"], 1);
}
