//! The client process: runs the ten clients of a group, which read and send until they receive `is_ending`.
//!
//! The process is this test program again, with the ignored test below as its only test. It reads its control messages from
//! standard input, one line of JSON each. The process exits when standard input is closed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::journal::{Acknowledged, Entry, Frame, Journal, SendStarted};
use super::participants::{self, Client};
use super::reader::Reader;
use crate::fixtures;

/// How long a client may take to end after `is_ending`. All faults are repaired by then.
pub(super) const TIMEOUT: Duration = Duration::from_secs(180);

/// The prefix of the content of a client's last message on a ride.
pub(super) const LAST_MESSAGE: &str = "the last";

/// The environment variables of a client process.
pub(super) const GROUP: &str = "RIDEWIRE_CHAOS_GROUP";
pub(super) const GROUPS: &str = "RIDEWIRE_CHAOS_GROUPS";
pub(super) const JOURNAL: &str = "RIDEWIRE_CHAOS_JOURNAL";

/// The state that the test controls. Each line on standard input replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Control {
    pub(super) replicas: [SocketAddr; 2],
    /// All faults are repaired. Each client sends one last message on each of its rides.
    pub(super) is_ending: bool,
}

/// The values that the clients of a process share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) journal: Arc<Journal>,
    pub(super) control: watch::Receiver<Control>,
    pub(super) http: reqwest::Client,
}

impl Context {
    pub(super) fn replica(&self) -> SocketAddr {
        self.control.borrow().replicas[fastrand::usize(..2)]
    }

    /// Resolves [`TIMEOUT`] after `is_ending`.
    pub(super) async fn deadline(&self) {
        self.control.clone().wait_for(|control| control.is_ending).await.unwrap();
        sleep(TIMEOUT).await;
    }

    pub(super) fn violation(&self, client: &str, what: String) {
        self.journal.write(&Entry::Violation { client: client.to_owned(), what });
    }
}

#[tokio::test]
#[ignore = "the chaos test starts this as a separate process"]
async fn a_client_process() {
    // Unset if the ignored tests are run manually.
    let Ok(group) = std::env::var(GROUP) else { return };
    let group: usize = group.parse().unwrap();
    let groups: usize = std::env::var(GROUPS).unwrap().parse().unwrap();
    let journal = Arc::new(Journal::create(&PathBuf::from(std::env::var_os(JOURNAL).unwrap())));
    let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).build().unwrap();
    let context = Context { journal, control: read_control(), http };

    let mut work = JoinSet::new();
    for client in participants::clients(group) {
        context.journal.write(&Entry::ClientStart(client.start.clone()));
        let sender = Sender::new(&context, &client);
        work.spawn(Reader::new(&context, &client, group).run());
        work.spawn(sender.run());
    }
    let outsider = participants::outsider(group);
    context.journal.write(&Entry::ClientStart(outsider.start.clone()));
    let other = participants::rides((group + 1) % groups)[0].0.clone();
    work.spawn(probe(context.clone(), outsider, other));
    work.join_all().await;
}

fn read_control() -> watch::Receiver<Control> {
    let next = || std::io::stdin().lines().next().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    let (sender, control) = watch::channel(next().expect("the addresses of the replicas"));
    std::thread::spawn(move || {
        while let Some(update) = next() {
            sender.send_replace(update);
        }
        std::process::exit(1);
    });
    control
}

/// Sends messages on the rides of a client, one after the other. Each is retried until it is acknowledged.
struct Sender {
    context: Context,
    client: Client,
    token: String,
    count: usize,
}

impl Sender {
    fn new(context: &Context, client: &Client) -> Self {
        let token = fixtures::token(&client.start.user, client.role);
        Self { context: context.clone(), client: client.clone(), token, count: 0 }
    }

    async fn run(mut self) {
        let mut control = self.context.control.clone();
        loop {
            let pause = Duration::from_millis(fastrand::u64(500..3_000));
            if tokio::time::timeout(pause, control.wait_for(|control| control.is_ending)).await.is_ok() {
                break;
            }
            let rides = &self.client.start.rides;
            let ride = rides[fastrand::usize(..rides.len())].clone();
            self.send(&ride, "number").await;
        }
        for ride in self.client.start.rides.clone() {
            self.send(&ride, LAST_MESSAGE).await;
        }
    }

    async fn send(&mut self, ride: &str, what: &str) {
        self.count += 1;
        let user = &self.client.start.user;
        let name = format!("{}-{}", self.client.start.client, self.count);
        let content = format!("{what} {} on {ride} of {name}", self.count);
        let sending = SendStarted { ride: ride.to_owned(), user: user.clone(), name, content };
        self.context.journal.write(&Entry::SendStarted(sending.clone()));
        let until_acknowledged = async {
            let mut attempts = 0;
            self.attempt(&sending, &mut attempts).await;
            // One of eight acknowledged messages is sent again, as after a lost response.
            if fastrand::u8(..) < 32 {
                self.attempt(&sending, &mut attempts).await;
            }
        };
        tokio::select! {
            () = until_acknowledged => {}
            () = self.context.deadline() => {
                self.context.violation(&self.client.start.client, format!("{} was never acknowledged", sending.name));
            }
        }
    }

    async fn attempt(&self, sending: &SendStarted, attempts: &mut usize) {
        let SendStarted { ride, user, name, content } = sending;
        let body = json!({"rideId": ride, "content": content, "clientMessageId": name}).to_string();
        loop {
            let url = format!("http://{}/api/v1/messages", self.context.replica());
            let request = self.context.http.post(url).bearer_auth(&self.token).timeout(Duration::from_secs(5));
            let attempt = *attempts;
            *attempts += 1;
            let response = async {
                let response = request.body(body.clone()).send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.bytes().await?))
            };
            match response.await {
                Ok((status @ (200 | 201), body)) => {
                    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                    return self.context.journal.write(&Entry::Acknowledged(Acknowledged {
                        ride: ride.clone(),
                        user: user.clone(),
                        name: name.clone(),
                        attempt,
                        status,
                        id: message["id"].as_str().unwrap_or_default().to_owned(),
                        seq: message["seq"].as_i64().unwrap_or_default(),
                    }));
                }
                // No response or half of one: the outcome of the send is unknown.
                Err(_) | Ok((503, _)) => {}
                Ok((status, body)) => {
                    let body = String::from_utf8_lossy(&body);
                    self.context.violation(&self.client.start.client, format!("{name} got {status} {body}"));
                }
            }
            sleep(Duration::from_millis(fastrand::u64(50..300))).await;
        }
    }
}

/// Requests a ride of another group by every operation and records each response.
async fn probe(context: Context, outsider: Client, ride: String) {
    let client = &outsider.start.client;
    let token = fixtures::token(&outsider.start.user, outsider.role);
    let mut control = context.control.clone();
    for connection in 1.. {
        let pause = Duration::from_millis(fastrand::u64(500..2_000));
        if tokio::time::timeout(pause, control.wait_for(|control| control.is_ending)).await.is_ok() {
            return;
        }
        let path = ["", "/poll?after=0&wait=0", "/events?after=0"][connection % 3];
        let path = format!("messages/rides/{ride}{path}");
        let url = format!("http://{}/api/v1/{path}", context.replica());
        let until = Instant::now() + Duration::from_secs(2);
        let Ok(Ok(mut response)) = timeout_at(until, context.http.get(url).bearer_auth(&token).send()).await else {
            continue;
        };
        match response.status().as_u16() {
            404 => context.journal.write(&Entry::Denied { client: client.clone(), path }),
            // A stream that may succeed later returns 200 and ends, for every caller.
            200 | 503 => {
                let mut body = Vec::new();
                while let Ok(Ok(Some(chunk))) = timeout_at(until, response.chunk()).await {
                    body.extend_from_slice(&chunk);
                }
                context.journal.write(&Entry::Frame(Frame {
                    client: client.clone(),
                    connection,
                    id: None,
                    event: "probe:response".to_owned(),
                    data: String::from_utf8_lossy(&body).into_owned(),
                }));
            }
            status => context.violation(client, format!("{path} got {status}")),
        }
    }
}
