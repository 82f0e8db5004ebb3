//! A load test: senders and subscribers on many rides over two replicas, while faults are injected. At the end, the
//! journals, the database and the subscribers are checked against each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::checker::{self, Contents};
use crate::fixtures;
use crate::senders::{Participant, ResponseCounts, Sender};
use crate::subscribers::{Progress, Replicas, Subscriber};
use crate::support::{Database, Role};

const RIDES: usize = 1_000;
const SENDERS: usize = 64;

/// The minimum number of messages. Faults are injected after numbers of messages and not after times, so a slow machine
/// needs longer but tests the same.
const MESSAGES: usize = 2_500;

/// How long subscribers may take to receive everything after the last fault.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How fast a load sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Each sender sends its next message when the previous one is acknowledged.
    Unlimited,
    /// Each sender waits between its messages.
    Slow,
}

impl Rate {
    /// Waits between two messages of a sender.
    pub(crate) async fn pause(self) {
        // Not a pause of zero, which lasts until the next tick of the timer.
        if self == Self::Slow {
            sleep(Duration::from_millis(fastrand::u64(200..600))).await;
        }
    }
}

/// The senders and subscribers of a run. Subscribers read their rides from the start.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) subscribers: Vec<Subscriber>,
    responses: Arc<ResponseCounts>,
    participants: Arc<Vec<Participant>>,
    rate: Rate,
    began: Instant,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) unacknowledged: usize,
    pub(crate) responses: Arc<ResponseCounts>,
    /// Streams that were opened after the first one of each subscriber.
    pub(crate) reopened: usize,
}

impl Load {
    /// Creates the rides. The rider of each reads on one replica and the driver on the other one.
    pub(crate) async fn start(replicas: Replicas) -> Self {
        Self::start_at(replicas, Rate::Unlimited).await
    }

    /// The same with another rate.
    pub(crate) async fn start_at(replicas: Replicas, rate: Rate) -> Self {
        let began = Instant::now();
        let replicas = Arc::new(replicas);
        let rides: Vec<String> = (0..RIDES).map(|number| format!("ride_{number}")).collect();
        fixtures::create_rides(&replicas, &rides).await;
        let participant = |ride: &String, user: String, role| {
            let token = fixtures::token(&user, role);
            Participant { ride: ride.clone(), user, token }
        };
        let participants: Vec<_> = rides
            .iter()
            .flat_map(|ride| {
                [
                    participant(ride, format!("rider_of_{ride}"), Role::Rider),
                    participant(ride, format!("driver_of_{ride}"), Role::Driver),
                ]
            })
            .collect();
        let follow = |(number, participant): (usize, &Participant)| {
            Subscriber::start(&replicas, number, &participant.ride, participant.token.clone())
        };
        let subscribers: Vec<_> = participants.iter().enumerate().map(follow).collect();
        let load = Self {
            replicas,
            subscribers,
            responses: Arc::default(),
            participants: Arc::new(participants),
            rate,
            began,
        };
        load.wait("every stream is synced", |subscriber| subscriber.progress.is_synced()).await;
        load
    }

    /// Returns the progress of each subscriber.
    pub(crate) fn progress(&self) -> Vec<Arc<Progress>> {
        self.subscribers.iter().map(|subscriber| Arc::clone(&subscriber.progress)).collect()
    }

    /// Returns the counts of the senders' responses.
    pub(crate) fn responses(&self) -> Arc<ResponseCounts> {
        Arc::clone(&self.responses)
    }

    async fn wait(&self, what: &str, mut is_done: impl FnMut(&Subscriber) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let missing = self.subscribers.iter().filter(|subscriber| !is_done(subscriber)).count();
            if missing == 0 {
                return;
            }
            // The checker reports what is missing.
            if Instant::now() > deadline {
                eprintln!("{missing} of {} time out: {what}", self.subscribers.len());
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends while `faults` runs to its end. Then waits until all events are delivered, and checks the run.
    pub(crate) async fn run(self, database: &Database, faults: impl Future<Output = ()>) -> Outcome {
        let (sending, is_enough) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut senders = JoinSet::new();
        for number in 0..SENDERS {
            let sender = Sender::new(&self.replicas, &self.responses, number);
            senders.spawn(sender.run(Arc::clone(&self.participants), self.rate, Arc::clone(&is_enough)));
        }
        faults.await;
        self.responses.wait_for_total(MESSAGES).await;
        is_enough.store(true, Ordering::Relaxed);
        let mut senders = senders.join_all().await;
        let sent = sending.elapsed();
        // One more message on each ride after all faults. Its delivery includes all earlier events, and a repeated event would
        // arrive before it.
        let deadline = Instant::now() + TIMEOUT;
        let mut last = JoinSet::new();
        for (number, mut sender) in senders.drain(..).enumerate() {
            let participants = Arc::clone(&self.participants);
            last.spawn(async move {
                for participant in participants.iter().step_by(2).skip(number).step_by(SENDERS) {
                    sender.send(participant, false, deadline).await;
                }
                sender
            });
        }
        let senders = last.join_all().await;

        let client = database.client().await;
        let mut stored = Contents::read(&client).await;
        loop {
            self.wait("everything is delivered", |subscriber| {
                stored.heads.get(&subscriber.ride).is_some_and(|head| subscriber.progress.last() >= *head)
            })
            .await;
            let later = Contents::read(&client).await;
            let is_stable = later.heads == stored.heads;
            stored = later;
            if is_stable {
                break;
            }
        }
        let mut views = Vec::new();
        for subscriber in self.subscribers {
            views.push(subscriber.finish().await);
        }
        let journal: Vec<_> = senders.iter().flat_map(|sender| sender.journal.iter().cloned()).collect();
        let mut problems = checker::check(&journal, &stored, &views);
        problems.extend(senders.into_iter().flat_map(|sender| sender.problems));

        let acknowledged = journal.iter().filter(|entry| entry.acknowledged.is_some()).count();
        let events: usize = views.iter().map(|view| view.seen.len()).sum();
        let total = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
        eprintln!(
            "{acknowledged} messages acknowledged in {sent:.1?}, {} not; {} were created, {} repeated, {} times 503, {} \
             times no response; {} streams opened, {events} events seen; {:.1?} in all",
            journal.len() - acknowledged,
            total(&self.responses.created),
            total(&self.responses.repeated),
            total(&self.responses.unavailable),
            total(&self.responses.broken),
            views.iter().map(|view| view.connections).sum::<usize>(),
            self.began.elapsed(),
        );
        let shown = problems.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(problems.is_empty(), "{} problems, of which the first are:\n{shown}", problems.len());
        assert!(
            views.len() == 2 * RIDES && views.iter().all(|view| view.seen.len() >= 2),
            "a subscriber received nothing"
        );
        assert!(acknowledged > 2 * RIDES, "too few messages were sent");
        Outcome {
            unacknowledged: journal.len() - acknowledged,
            responses: self.responses,
            reopened: views.iter().map(|view| view.connections - 1).sum(),
        }
    }
}
