//! A run: senders and subscribers on many rides over two replicas, while something breaks; then everything is
//! brought together and judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::checker::{self, Contents};
use crate::senders::{Answers, Sender, Speaker};
use crate::subscribers::{Progress, Replicas, Subscriber};
use crate::support::{Database, Role};
use crate::world;

const RIDES: usize = 1_000;
const SENDERS: usize = 64;

/// How many messages are sent at least. The faults of a run strike when so many of them, or so many more, have been sent:
/// on a slow machine it takes longer, and shows the same.
const MESSAGES: usize = 2_500;

/// How long subscribers may take to have seen everything once all is well again, before a run is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The people of a run. Subscribers follow their rides from the start on.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) subscribers: Vec<Subscriber>,
    answers: Arc<Answers>,
    speakers: Arc<Vec<Speaker>>,
    began: Instant,
}

/// What a run has shown.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) unacknowledged: usize,
    pub(crate) answers: Arc<Answers>,
    /// Streams that were opened after the first of each subscriber.
    pub(crate) reopened: usize,
}

impl Load {
    /// Makes the rides, and has each followed by its rider on one replica and its driver on the other.
    pub(crate) async fn start(replicas: Replicas) -> Self {
        let began = Instant::now();
        let replicas = Arc::new(replicas);
        let rides: Vec<String> = (0..RIDES).map(|number| format!("ride_{number}")).collect();
        world::make_rides(&replicas, &rides).await;
        let speaker = |ride: &String, user: String, role| {
            let token = world::token(&user, role);
            Speaker { ride: ride.clone(), user, token }
        };
        let speakers: Vec<_> = rides
            .iter()
            .flat_map(|ride| {
                [
                    speaker(ride, format!("rider_of_{ride}"), Role::Rider),
                    speaker(ride, format!("driver_of_{ride}"), Role::Driver),
                ]
            })
            .collect();
        let follow = |(number, speaker): (usize, &Speaker)| {
            Subscriber::start(&replicas, number, &speaker.ride, speaker.token.clone())
        };
        let subscribers: Vec<_> = speakers.iter().enumerate().map(follow).collect();
        let load = Self { replicas, subscribers, answers: Arc::default(), speakers: Arc::new(speakers), began };
        load.wait("every stream has begun", |subscriber| subscriber.progress.is_synced()).await;
        load
    }

    /// How far each subscriber is.
    pub(crate) fn progress(&self) -> Vec<Arc<Progress>> {
        self.subscribers.iter().map(|subscriber| Arc::clone(&subscriber.progress)).collect()
    }

    /// What the senders have been answered so far.
    pub(crate) fn answers(&self) -> Arc<Answers> {
        Arc::clone(&self.answers)
    }

    async fn wait(&self, what: &str, mut is_there: impl FnMut(&Subscriber) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let missing = self.subscribers.iter().filter(|subscriber| !is_there(subscriber)).count();
            if missing == 0 {
                return;
            }
            // What is missing in the end is named by the checker.
            if Instant::now() > deadline {
                eprintln!("{missing} of {} wait in vain: {what}", self.subscribers.len());
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends while `faults` run, which end by themselves; then lets everything come to rest, and judges.
    pub(crate) async fn run(self, database: &Database, faults: impl Future<Output = ()>) -> Outcome {
        let (sending, is_enough) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut senders = JoinSet::new();
        for number in 0..SENDERS {
            let sender = Sender::new(&self.replicas, &self.answers, number);
            senders.spawn(sender.run(Arc::clone(&self.speakers), Arc::clone(&is_enough)));
        }
        faults.await;
        self.answers.more_than(MESSAGES).await;
        is_enough.store(true, Ordering::Relaxed);
        let mut senders = senders.join_all().await;
        let sent = sending.elapsed();
        // One more on every ride, when all is well again: it is delivered, so it finds whatever was not; and what
        // comes twice comes before it.
        let deadline = Instant::now() + PATIENCE;
        let mut last = JoinSet::new();
        for (number, mut sender) in senders.drain(..).enumerate() {
            let speakers = Arc::clone(&self.speakers);
            last.spawn(async move {
                for speaker in speakers.iter().step_by(2).skip(number).step_by(SENDERS) {
                    sender.send(speaker, false, deadline).await;
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
            let is_at_rest = later.heads == stored.heads;
            stored = later;
            if is_at_rest {
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
        let answered = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
        eprintln!(
            "{acknowledged} messages acknowledged in {sent:.1?}, {} not; {} were created, {} repeated, {} times 503, {} \
             times no answer; {} streams opened, {events} events seen; {:.1?} in all",
            journal.len() - acknowledged,
            answered(&self.answers.created),
            answered(&self.answers.repeated),
            answered(&self.answers.unavailable),
            answered(&self.answers.broken),
            views.iter().map(|view| view.connections).sum::<usize>(),
            self.began.elapsed(),
        );
        let shown = problems.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(problems.is_empty(), "{} problems, of which the first are:\n{shown}", problems.len());
        assert!(
            views.len() == 2 * RIDES && views.iter().all(|view| view.seen.len() >= 2),
            "not everybody has seen anything"
        );
        assert!(acknowledged > 2 * RIDES, "hardly anything was sent");
        Outcome {
            unacknowledged: journal.len() - acknowledged,
            answers: self.answers,
            reopened: views.iter().map(|view| view.connections - 1).sum(),
        }
    }
}
