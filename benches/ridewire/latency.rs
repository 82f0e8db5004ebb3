//! B. Latency at a steady 1,000 messages a second: from when a message was due to be sent to its frame at a reader.
//!
//! An open loop: messages become due by the clock, whether or not those before were answered, so a server that
//! stalls is charged for all that came due meanwhile. Two replicas; what one is given is read on both.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, Post, number_in};
use crate::floor;
use crate::platform::{Platform, Ride};
use crate::plot::{Bar, Plot};
use crate::server::Server;
use crate::stats::median;
use crate::streams::Streams;
use crate::table::{Figure, Table};
use crate::{Plan, pgbench, say};

const RIDES: usize = 100;
pub(crate) const EVERY: Duration = Duration::from_millis(1);

/// How many take turns at sending, so that the one whose turn it is has long been answered.
const SENDERS: usize = 50;

/// One round, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Round {
    other: Latency,
    same: Latency,
    floor: Latency,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// The median of the p99 of each second: a machine that stands still for a moment spoils one of them.
    pub(crate) p99_of_a_second: f64,
}

/// When messages are due, and how late they were read.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    first: Instant,
    every: Duration,
    /// Those before are not counted.
    counted_from: u64,
    /// In microseconds; nothing in it.
    empty: Histogram<u64>,
    /// By the second in which they were due.
    seen: Arc<Mutex<Vec<Histogram<u64>>>>,
}

impl Clock {
    /// Message 0 is due in a moment, and one after `every`; those of the time of `warm` do not count.
    pub(crate) fn new(warm: Duration, every: Duration) -> anyhow::Result<Self> {
        let counted_from = u64::try_from(warm.as_nanos() / every.as_nanos())?;
        let empty = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let first = Instant::now() + Duration::from_millis(20);
        Ok(Self { first, every, counted_from, empty, seen: Arc::default() })
    }

    fn due(&self, number: u64) -> Instant {
        self.first + self.every * u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The same schedule for another reader.
    pub(crate) fn twin(&self) -> Self {
        Self { seen: Arc::default(), ..self.clone() }
    }

    /// Message `number` has been read.
    pub(crate) fn read(&self, number: u64) {
        self.there(number, Instant::now());
    }

    /// Message `number` was there at this moment.
    pub(crate) fn there(&self, number: u64, at: Instant) {
        let Some(counted) = number.checked_sub(self.counted_from) else { return };
        let late = at.saturating_duration_since(self.due(number)).as_micros();
        let second = (u128::from(counted) * self.every.as_nanos() / Duration::from_secs(1).as_nanos()) as usize;
        let mut seconds = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while seconds.len() <= second {
            seconds.push(self.empty.clone());
        }
        if let Some(seen) = seconds.get_mut(second) {
            seen.saturating_record(late as u64);
        }
    }

    /// Waits for the rest of `messages` to be read, by as many readers.
    pub(crate) async fn result(&self, messages: u64, readers: u64) -> anyhow::Result<Latency> {
        let wanted = (messages - self.counted_from) * readers;
        let seconds = || self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = |seconds: &[Histogram<u64>]| seconds.iter().map(Histogram::len).sum::<u64>();
        for _ in 0..500 {
            if count(&seconds()) >= wanted {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let seconds = seconds();
        ensure!(count(&seconds) == wanted, "{} of {wanted} frames were read", count(&seconds));
        let mut all = self.empty.clone();
        for second in &seconds {
            all.add(second)?;
        }
        let millis = |seen: &Histogram<u64>, quantile| seen.value_at_quantile(quantile) as f64 / 1e3;
        let p99_of_a_second = median(seconds.iter().map(|second| millis(second, 0.99)));
        Ok(Latency { p50: millis(&all, 0.5), p99: millis(&all, 0.99), p99_of_a_second })
    }

    /// Gives each number to the next of `senders` when it is due. A thread of its own: the runtime's timers are
    /// no finer than a millisecond.
    pub(crate) fn run(&self, senders: Vec<mpsc::UnboundedSender<u64>>, messages: u64) {
        let clock = self.clone();
        std::thread::spawn(move || {
            for (number, sender) in (0..messages).zip(senders.iter().cycle()) {
                std::thread::sleep(clock.due(number).saturating_duration_since(Instant::now()));
                if sender.send(number).is_err() {
                    return;
                }
            }
        });
    }
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    pgbench::create_table(platform).await?;
    let (one, two) = (platform.server("one").await?, platform.server("two").await?);
    let rides = platform.rides(&one, "latency", RIDES).await?;
    let messages = u64::try_from((plan.warm + plan.span).as_millis() / EVERY.as_millis())?;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let (other, same) = ours(plan, &one, &two, &rides, number, messages).await?;
        let floor = floor::run(plan, platform, messages, SENDERS).await?;
        say(&format!(
            "latency {number}, p50 / p99 ms: {:.2} / {:.2} on the other replica, {:.2} / {:.2} on the same; the floor {:.2} / {:.2}",
            other.p50, other.p99_of_a_second, same.p50, same.p99_of_a_second, floor.p50, floor.p99_of_a_second
        ));
        rounds.push(Round { other, same, floor });
    }
    one.stop().await?;
    two.stop().await?;
    Ok(vec![table(&rounds)])
}

/// A latency of a round.
type Side<R> = fn(&R) -> &Latency;

/// The rows of a latency beside another's, with what is wanted of the p50 and of the p99. Where the machine stands still for a
/// moment, the p99 of all is that moment's, on either side as it comes: so nothing is wanted of it.
pub(crate) fn compare<R>(
    table: &mut Table,
    what: &str,
    rounds: &[R],
    (ours, beside): (Side<R>, Side<R>),
    [p50, p99]: [&str; 2],
) {
    let rows: [(&str, Figure<Latency>, &str); 3] = [
        ("p50", |latency| latency.p50, p50),
        ("p99 of a second, the median", |latency| latency.p99_of_a_second, p99),
        ("p99 of all", |latency| latency.p99, ""),
    ];
    for (figure, of, wanted) in rows {
        let figures = (|round: &R| of(ours(round)), |round: &R| of(beside(round)));
        let millis = |millis: f64| format!("{millis:.2} ms");
        table.beside(&format!("{what}, {figure}"), rounds, figures, millis, wanted);
    }
}

fn table(rounds: &[Round]) -> Table {
    let title = "Latency at 1,000 messages a second";
    let mut table = Table::new(title, &["POST to frame", "Ridewire", "Postgres alone", "ratio", "wanted"]);
    compare(&mut table, "other replica", rounds, (|round| &round.other, |round| &round.floor), ["≤ 2 ×", "≤ 5 ×"]);
    compare(&mut table, "same replica", rounds, (|round| &round.same, |round| &round.floor), ["≤ 2 ×", "≤ 5 ×"]);
    let middle = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    table.plot(Plot::new("latency", "POST to frame at 1,000 messages a second", "ms").with([
        Bar::ours("same replica, p50", middle(|round| round.same.p50)),
        Bar::ours("same replica, p99", middle(|round| round.same.p99_of_a_second)),
        Bar::ours("other replica, p50", middle(|round| round.other.p50)),
        Bar::ours("other replica, p99", middle(|round| round.other.p99_of_a_second)),
        Bar::peer("Postgres alone, p50", middle(|round| round.floor.p50)),
        Bar::peer("Postgres alone, p99", middle(|round| round.floor.p99_of_a_second)),
    ]));
    table
}

async fn ours(
    plan: &Plan,
    one: &Server,
    two: &Server,
    rides: &[Ride],
    round: usize,
    messages: u64,
) -> anyhow::Result<(Latency, Latency)> {
    // The numbers in the messages are never the same twice, those of the clock begin at 0.
    let base = u64::try_from(round)? * 1_000_000;
    // Made after the streams are open, and they are opened with it.
    let clock: Arc<Mutex<Option<(Clock, Clock)>>> = Arc::default();
    let on_event = |same: bool| {
        let clock = Arc::clone(&clock);
        move |_: usize, frame: &[u8]| {
            let clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some((others, own)), Some(number)) = (&*clock, number_in(frame)) {
                if same { own } else { others }.read(number - base);
            }
        }
    };
    let readers = || rides.iter().map(|ride| (&*ride.id, &*ride.driver));
    let _same = Streams::open(one, readers(), on_event(true)).await?;
    let _other = Streams::open(two, readers(), on_event(false)).await?;

    let senders = Senders::ready(one, rides, |ride| Post::new(&ride.id, &ride.rider), base).await?;
    let others = Clock::new(plan.warm, EVERY)?;
    let own = others.twin();
    clock.lock().unwrap_or_else(PoisonError::into_inner).replace((others.clone(), own.clone()));
    senders.send(&others, messages).await?;
    Ok((others.result(messages, 1).await?, own.result(messages, 1).await?))
}

/// Those who take turns at sending.
pub(crate) struct Senders {
    queues: Vec<mpsc::UnboundedSender<u64>>,
    sending: JoinSet<anyhow::Result<()>>,
}

impl Senders {
    /// Connected, with a message for each of their rides, whose numbers begin at `base`.
    pub(crate) async fn ready(
        server: &Server,
        rides: &[Ride],
        post: impl Fn(&Ride) -> Post,
        base: u64,
    ) -> anyhow::Result<Self> {
        let (kind, each) = (server.kind, rides.len().div_ceil(SENDERS));
        let (mut queues, mut sending) = (Vec::new(), JoinSet::new());
        for sender in 0..SENDERS {
            let (queue, mut due) = mpsc::unbounded_channel::<u64>();
            queues.push(queue);
            let mut client = Client::connect(server.address).await?;
            let mut posts: Vec<Post> =
                rides.iter().cycle().skip(sender).step_by(SENDERS).take(each).map(&post).collect();
            sending.spawn(async move {
                let count = posts.len();
                let mut turn = 0;
                while let Some(number) = due.recv().await {
                    turn += 1;
                    let post = posts.get_mut(turn % count).context("a ride")?;
                    let status = client.exchange(post.numbered(base + number)).await?;
                    ensure!(kind.takes(status), "a message was answered {status}");
                }
                Ok(())
            });
        }
        Ok(Self { queues, sending })
    }

    /// Sends each message when it is due, until all are answered.
    pub(crate) async fn send(mut self, clock: &Clock, messages: u64) -> anyhow::Result<()> {
        clock.run(self.queues, messages);
        while let Some(sent) = self.sending.join_next().await {
            sent??;
        }
        Ok(())
    }
}
