//! Those who send, each with a journal: a message is retried under its name, here and there, until an answer comes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::checker::Entry;
use crate::subscribers::Replicas;
use crate::support::{eventually, eventually_within};

/// What senders were answered, besides what is in their journals.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) created: AtomicUsize,
    /// 200: an attempt before had been committed.
    pub(crate) repeated: AtomicUsize,
    pub(crate) unavailable: AtomicUsize,
    /// Connections refused, cut, or silent.
    pub(crate) broken: AtomicUsize,
    /// The most attempts that a message took.
    pub(crate) most_attempts: AtomicUsize,
    /// How many messages each sender is done with, by their number.
    done: Mutex<HashMap<usize, usize>>,
}

impl Answers {
    /// Waits until this many messages have been sent and acknowledged.
    pub(crate) async fn more_than(&self, messages: usize) {
        let (patience, pause) = (4 * PATIENCE, Duration::from_millis(5));
        eventually_within(patience, pause, &format!("{messages} messages are sent"), async || {
            (self.created.load(Ordering::Relaxed) > messages).then_some(())
        })
        .await;
    }

    /// Waits until this many more have been.
    pub(crate) async fn more(&self, messages: usize) {
        self.more_than(self.created.load(Ordering::Relaxed) + messages).await;
    }

    /// Waits until each sender is done with the message that it is sending now: no address is used any more that holds no
    /// longer.
    pub(crate) async fn one_more_of_each(&self) {
        let before = self.done.lock().unwrap().clone();
        eventually_within(4 * PATIENCE, Duration::from_millis(5), "each sends one more", async || {
            let now = self.done.lock().unwrap();
            before.iter().all(|(sender, done)| now[sender] > *done).then_some(())
        })
        .await;
    }

    /// Waits until somebody else is put off.
    pub(crate) async fn another_unavailable(&self) {
        let before = self.unavailable.load(Ordering::Relaxed);
        eventually("a send is put off", async || (self.unavailable.load(Ordering::Relaxed) > before).then_some(()))
            .await;
    }
}

/// Somebody on a ride, who can send.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    pub(crate) ride: String,
    pub(crate) user: String,
    pub(crate) token: String,
}

/// One sender.
#[derive(Debug)]
pub(crate) struct Sender {
    http: reqwest::Client,
    replicas: Arc<Replicas>,
    answers: Arc<Answers>,
    number: usize,
    pub(crate) journal: Vec<Entry>,
    pub(crate) problems: Vec<String>,
}

/// How long a message is retried after the time for sending is over.
const PATIENCE: Duration = Duration::from_secs(60);

impl Sender {
    pub(crate) fn new(replicas: &Arc<Replicas>, answers: &Arc<Answers>, number: usize) -> Self {
        Self {
            http: http(),
            replicas: Arc::clone(replicas),
            answers: Arc::clone(answers),
            number,
            journal: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Sends on random rides until it is enough, one message after the other.
    pub(crate) async fn run(mut self, speakers: Arc<Vec<Speaker>>, is_enough: Arc<AtomicBool>) -> Self {
        while !is_enough.load(Ordering::Relaxed) {
            let speaker = &speakers[fastrand::usize(..speakers.len())];
            // Now and then somebody does not try again: what became of that message they never learn.
            let gives_up = fastrand::u8(..) < 8;
            self.send(speaker, gives_up, Instant::now() + PATIENCE).await;
        }
        self
    }

    /// Sends one message, and writes down what is known of it then.
    pub(crate) async fn send(&mut self, speaker: &Speaker, gives_up: bool, deadline: Instant) {
        let name = format!("{}-{}", self.number, self.journal.len());
        let content = format!("{name} of {}", speaker.user);
        let body = json!({"rideId": speaker.ride, "content": content, "clientMessageId": name}).to_string();
        let mut entry =
            Entry { ride: speaker.ride.clone(), sender: speaker.user.clone(), name, content, acknowledged: None };
        for attempt in 0.. {
            self.answers.most_attempts.fetch_max(attempt + 1, Ordering::Relaxed);
            // A first attempt stays where the last message went, the next ones go here and there.
            let address = self.replicas.get(self.number + attempt);
            let request = self.http.post(format!("http://{address}/api/v1/messages")).bearer_auth(&speaker.token);
            let answer = match request.body(body.clone()).send().await {
                Ok(answer) => {
                    let (status, is_told) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
                    answer.bytes().await.map(|body| (status, is_told, body))
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok((status @ (200 | 201), _, body)) => {
                    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let id = message["id"].as_str().unwrap_or_default().to_owned();
                    entry.acknowledged = Some((id, message["seq"].as_i64().unwrap_or_default()));
                    if status == 201 {
                        self.answers.created.fetch_add(1, Ordering::Relaxed);
                    } else if attempt > 0 {
                        self.answers.repeated.fetch_add(1, Ordering::Relaxed);
                    } else {
                        self.problems.push(format!("{} was new and answered 200", entry.name));
                    }
                    break;
                }
                Ok((503, true, _)) => {
                    self.answers.unavailable.fetch_add(1, Ordering::Relaxed);
                }
                Ok((status, _, body)) => {
                    let body = String::from_utf8_lossy(&body);
                    self.problems.push(format!("{} was answered {status} {body}", entry.name));
                    break;
                }
                Err(_) => {
                    self.answers.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
            if gives_up || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(fastrand::u64(20..100))).await;
        }
        self.journal.push(entry);
        *self.answers.done.lock().unwrap().entry(self.number).or_default() += 1;
    }
}

/// A client that does not wait for ever.
fn http() -> reqwest::Client {
    reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap()
}
