//! What a client process does: it carries the ten clients of a group, who follow and send until they are told to end.
//!
//! It is this test program once more, running the one ignored test below. What it is told comes in through its
//! standard input, a line of JSON for each change; the end of that is the end of the test, and of the process with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::follower::Follower;
use super::journal::{Entry, Frame, Journal, Sending, Sent};
use super::people::{self, Client};
use crate::world;

/// How long a client may take to end once it is told to: everything is well by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// How the content of a client's last message on a ride begins.
pub(super) const LAST: &str = "the last";

/// What a client process is told: the names of its environment.
pub(super) const GROUP: &str = "RIDEWIRE_CHAOS_GROUP";
pub(super) const GROUPS: &str = "RIDEWIRE_CHAOS_GROUPS";
pub(super) const JOURNAL: &str = "RIDEWIRE_CHAOS_JOURNAL";

/// What holds until the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) replicas: [SocketAddr; 2],
    /// All is well, and everybody sends one last message on each ride.
    pub(super) is_ending: bool,
}

/// What the clients of a process share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) journal: Arc<Journal>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) http: reqwest::Client,
}

impl Context {
    pub(super) fn replica(&self) -> SocketAddr {
        self.orders.borrow().replicas[fastrand::usize(..2)]
    }

    /// Resolves when a client that has been told to end has had its time.
    pub(super) async fn deadline(&self) {
        self.orders.clone().wait_for(|orders| orders.is_ending).await.unwrap();
        sleep(PATIENCE).await;
    }

    pub(super) fn wrong(&self, client: &str, what: String) {
        self.journal.write(&Entry::Wrong { client: client.to_owned(), what });
    }
}

#[tokio::test]
#[ignore = "the chaos run starts it, as a process of its own"]
async fn a_client_process() {
    // Nobody has, where somebody runs the ignored tests by hand.
    let Ok(group) = std::env::var(GROUP) else { return };
    let group: usize = group.parse().unwrap();
    let groups: usize = std::env::var(GROUPS).unwrap().parse().unwrap();
    let journal = Arc::new(Journal::create(&PathBuf::from(std::env::var_os(JOURNAL).unwrap())));
    let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).build().unwrap();
    let context = Context { journal, orders: take_orders(), http };

    let mut work = JoinSet::new();
    for client in people::clients(group) {
        context.journal.write(&Entry::Begun(client.begun.clone()));
        let sender = Sender::new(&context, &client);
        work.spawn(Follower::new(&context, &client, group).run());
        work.spawn(sender.run());
    }
    let stranger = people::stranger(group);
    context.journal.write(&Entry::Begun(stranger.begun.clone()));
    let other = people::rides((group + 1) % groups)[0].0.clone();
    work.spawn(pry(context.clone(), stranger, other));
    work.join_all().await;
}

fn take_orders() -> watch::Receiver<Orders> {
    let next = || std::io::stdin().lines().next().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    let (sender, orders) = watch::channel(next().expect("where the replicas are"));
    std::thread::spawn(move || {
        while let Some(order) = next() {
            sender.send_replace(order);
        }
        std::process::exit(1);
    });
    orders
}

/// Sends on the rides of a client, one message after the other, each until it is acknowledged.
struct Sender {
    context: Context,
    client: Client,
    token: String,
    count: usize,
}

impl Sender {
    fn new(context: &Context, client: &Client) -> Self {
        let token = world::token(&client.begun.user, client.role);
        Self { context: context.clone(), client: client.clone(), token, count: 0 }
    }

    async fn run(mut self) {
        let mut orders = self.context.orders.clone();
        loop {
            let pause = Duration::from_millis(fastrand::u64(500..3_000));
            if tokio::time::timeout(pause, orders.wait_for(|orders| orders.is_ending)).await.is_ok() {
                break;
            }
            let rides = &self.client.begun.rides;
            let ride = rides[fastrand::usize(..rides.len())].clone();
            self.send(&ride, "number").await;
        }
        for ride in self.client.begun.rides.clone() {
            self.send(&ride, LAST).await;
        }
    }

    async fn send(&mut self, ride: &str, what: &str) {
        self.count += 1;
        let user = &self.client.begun.user;
        let name = format!("{}-{}", self.client.begun.client, self.count);
        let content = format!("{what} {} on {ride} of {name}", self.count);
        let sending = Sending { ride: ride.to_owned(), user: user.clone(), name, content };
        self.context.journal.write(&Entry::Sending(sending.clone()));
        let until_acknowledged = async {
            let mut attempts = 0;
            self.attempt(&sending, &mut attempts).await;
            // Now and then the answer is believed to be lost.
            if fastrand::u8(..) < 32 {
                self.attempt(&sending, &mut attempts).await;
            }
        };
        tokio::select! {
            () = until_acknowledged => {}
            () = self.context.deadline() => {
                self.context.wrong(&self.client.begun.client, format!("{} is never acknowledged", sending.name));
            }
        }
    }

    async fn attempt(&self, sending: &Sending, attempts: &mut usize) {
        let Sending { ride, user, name, content } = sending;
        let body = json!({"rideId": ride, "content": content, "clientMessageId": name}).to_string();
        loop {
            let url = format!("http://{}/api/v1/messages", self.context.replica());
            let request = self.context.http.post(url).bearer_auth(&self.token).timeout(Duration::from_secs(5));
            let attempt = *attempts;
            *attempts += 1;
            let answer = async {
                let answer = request.body(body.clone()).send().await?;
                Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.bytes().await?))
            };
            match answer.await {
                Ok((status @ (200 | 201), body)) => {
                    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                    return self.context.journal.write(&Entry::Sent(Sent {
                        ride: ride.clone(),
                        user: user.clone(),
                        name: name.clone(),
                        attempt,
                        status,
                        id: message["id"].as_str().unwrap_or_default().to_owned(),
                        seq: message["seq"].as_i64().unwrap_or_default(),
                    }));
                }
                // Nothing, or half an answer: whether it was sent is not known.
                Err(_) | Ok((503, _)) => {}
                Ok((status, body)) => {
                    let body = String::from_utf8_lossy(&body);
                    self.context.wrong(&self.client.begun.client, format!("{name} was answered {status} {body}"));
                }
            }
            sleep(Duration::from_millis(fastrand::u64(50..300))).await;
        }
    }
}

/// Asks for a ride of strangers in every way, and writes down whatever comes.
async fn pry(context: Context, stranger: Client, ride: String) {
    let client = &stranger.begun.client;
    let token = world::token(&stranger.begun.user, stranger.role);
    let mut orders = context.orders.clone();
    for connection in 1.. {
        let pause = Duration::from_millis(fastrand::u64(500..2_000));
        if tokio::time::timeout(pause, orders.wait_for(|orders| orders.is_ending)).await.is_ok() {
            return;
        }
        let path = ["", "/poll?after=0&wait=0", "/events?after=0"][connection % 3];
        let path = format!("messages/rides/{ride}{path}");
        let url = format!("http://{}/api/v1/{path}", context.replica());
        let until = Instant::now() + Duration::from_secs(2);
        let Ok(Ok(mut answer)) = timeout_at(until, context.http.get(url).bearer_auth(&token).send()).await else {
            continue;
        };
        match answer.status().as_u16() {
            404 => context.journal.write(&Entry::Denied { client: client.clone(), path }),
            // A stream that may succeed later is 200 and ends, whoever asks.
            200 | 503 => {
                let mut body = Vec::new();
                while let Ok(Ok(Some(chunk))) = timeout_at(until, answer.chunk()).await {
                    body.extend_from_slice(&chunk);
                }
                context.journal.write(&Entry::Frame(Frame {
                    client: client.clone(),
                    connection,
                    id: None,
                    event: "pried".to_owned(),
                    data: String::from_utf8_lossy(&body).into_owned(),
                }));
            }
            status => context.wrong(client, format!("{path} was answered {status}")),
        }
    }
}
