//! The senders. Each retries a message with the same `clientMessageId`, on either replica, until it is acknowledged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::checker::SendRecord;
use crate::load::Rate;
use crate::subscribers::Replicas;
use crate::support::{eventually, eventually_within};

/// Counts of the responses that all senders received.
#[derive(Debug, Default)]
pub(crate) struct ResponseCounts {
    pub(crate) created: AtomicUsize,
    /// Responses with 200 to a retry: an earlier attempt had been committed.
    pub(crate) repeated: AtomicUsize,
    pub(crate) unavailable: AtomicUsize,
    /// Connections that were refused, closed or timed out.
    pub(crate) broken: AtomicUsize,
    /// The highest number of attempts of one message.
    pub(crate) max_attempts: AtomicUsize,
    /// The number of messages that each sender has finished, by the number of the sender.
    done: Mutex<HashMap<usize, usize>>,
    /// When the last message was created, and the longest time between two.
    gap: Mutex<(Option<Instant>, Duration)>,
}

impl ResponseCounts {
    /// Waits until more than this many messages have been acknowledged.
    pub(crate) async fn wait_for_total(&self, messages: usize) {
        let (limit, pause) = (4 * TIMEOUT, Duration::from_millis(5));
        eventually_within(limit, pause, &format!("{messages} messages are sent"), async || {
            (self.created.load(Ordering::Relaxed) > messages).then_some(())
        })
        .await;
    }

    /// Waits until this many more messages have been acknowledged.
    pub(crate) async fn wait_for_more(&self, messages: usize) {
        self.wait_for_total(self.created.load(Ordering::Relaxed) + messages).await;
    }

    /// Waits until each sender has finished its current message. After that, no sender uses an outdated address.
    pub(crate) async fn wait_for_one_per_sender(&self) {
        let before = self.done.lock().unwrap().clone();
        eventually_within(4 * TIMEOUT, Duration::from_millis(5), "each sender finishes one more message", async || {
            let now = self.done.lock().unwrap();
            before.iter().all(|(sender, done)| now[sender] > *done).then_some(())
        })
        .await;
    }

    fn record_created(&self) {
        self.created.fetch_add(1, Ordering::Relaxed);
        let (last, longest) = &mut *self.gap.lock().unwrap();
        let now = Instant::now();
        *longest = (*longest).max(last.map_or(Duration::ZERO, |last| now - last));
        *last = Some(now);
    }

    /// Returns the longest time between two created messages since the last call.
    pub(crate) fn take_longest_gap(&self) -> Duration {
        std::mem::take(&mut self.gap.lock().unwrap().1)
    }

    /// Waits until another send gets a 503.
    pub(crate) async fn wait_for_unavailable(&self) {
        let before = self.unavailable.load(Ordering::Relaxed);
        eventually("a send gets a 503", async || (self.unavailable.load(Ordering::Relaxed) > before).then_some(()))
            .await;
    }
}

/// A user on a ride who can send.
#[derive(Debug, Clone)]
pub(crate) struct Participant {
    pub(crate) ride: String,
    pub(crate) user: String,
    pub(crate) token: String,
}

/// A client that sends messages, one after the other.
#[derive(Debug)]
pub(crate) struct Sender {
    http: reqwest::Client,
    replicas: Arc<Replicas>,
    responses: Arc<ResponseCounts>,
    number: usize,
    pub(crate) journal: Vec<SendRecord>,
    pub(crate) problems: Vec<String>,
}

/// The timeout of a request, and how long a message is retried after the sending phase.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Sender {
    pub(crate) fn new(replicas: &Arc<Replicas>, responses: &Arc<ResponseCounts>, number: usize) -> Self {
        Self {
            http: http(),
            replicas: Arc::clone(replicas),
            responses: Arc::clone(responses),
            number,
            journal: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Sends messages on random rides until `is_enough` is set.
    pub(crate) async fn run(
        mut self,
        participants: Arc<Vec<Participant>>,
        rate: Rate,
        is_enough: Arc<AtomicBool>,
    ) -> Self {
        while !is_enough.load(Ordering::Relaxed) {
            let participant = &participants[fastrand::usize(..participants.len())];
            // A few messages are never retried, so their sender does not know their outcome.
            let never_retries = fastrand::u8(..) < 8;
            self.send(participant, never_retries, Instant::now() + TIMEOUT).await;
            rate.pause().await;
        }
        self
    }

    /// Sends one message and appends its outcome to the journal.
    pub(crate) async fn send(&mut self, participant: &Participant, never_retries: bool, deadline: Instant) {
        let name = format!("{}-{}", self.number, self.journal.len());
        let content = format!("{name} of {}", participant.user);
        let body = json!({"rideId": participant.ride, "content": content, "clientMessageId": name}).to_string();
        let mut entry = SendRecord {
            ride: participant.ride.clone(),
            sender: participant.user.clone(),
            name,
            content,
            acknowledged: None,
        };
        for attempt in 0.. {
            self.responses.max_attempts.fetch_max(attempt + 1, Ordering::Relaxed);
            // The first attempt goes to the current replica, the next ones to the replicas in turn.
            let address = self.replicas.get(self.number + attempt);
            let request = self.http.post(format!("http://{address}/api/v1/messages")).bearer_auth(&participant.token);
            let response = match request.body(body.clone()).send().await {
                Ok(response) => {
                    let (status, has_retry_after) =
                        (response.status().as_u16(), response.headers().contains_key("retry-after"));
                    response.bytes().await.map(|body| (status, has_retry_after, body))
                }
                Err(error) => Err(error),
            };
            match response {
                Ok((status @ (200 | 201), _, body)) => {
                    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let id = message["id"].as_str().unwrap_or_default().to_owned();
                    entry.acknowledged = Some((id, message["seq"].as_i64().unwrap_or_default()));
                    if status == 201 {
                        self.responses.record_created();
                    } else if attempt > 0 {
                        self.responses.repeated.fetch_add(1, Ordering::Relaxed);
                    } else {
                        self.problems.push(format!("{} was new and got 200", entry.name));
                    }
                    break;
                }
                Ok((503, true, _)) => {
                    self.responses.unavailable.fetch_add(1, Ordering::Relaxed);
                }
                Ok((status, _, body)) => {
                    let body = String::from_utf8_lossy(&body);
                    self.problems.push(format!("{} got {status} {body}", entry.name));
                    break;
                }
                Err(_) => {
                    self.responses.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
            if never_retries || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(fastrand::u64(20..100))).await;
        }
        self.journal.push(entry);
        *self.responses.done.lock().unwrap().entry(self.number).or_default() += 1;
    }
}

/// Returns an HTTP client with a timeout.
fn http() -> reqwest::Client {
    reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().unwrap()
}
