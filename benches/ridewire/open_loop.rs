//! Open-loop load: messages become due by the clock, and their latencies count from then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, MessageRequest, number_in};
use crate::server::Server;
use crate::stats::median;
use crate::testbed::Ride;

/// The time from one message to the next at 1,000 messages a second.
pub(crate) const INTERVAL: Duration = Duration::from_millis(1);

/// Senders take turns, so each has got its response long before its next turn.
pub(crate) const SENDERS: usize = 50;

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// The median of the p99 of each second. A short stall of the machine affects only one of them.
    pub(crate) p99_of_a_second: f64,
}

/// The send schedule, and the latencies relative to it.
#[derive(Debug, Clone)]
pub(crate) struct LatencyRecorder {
    first: Instant,
    every: Duration,
    /// Messages before this number are warm-up.
    counted_from: u64,
    /// An empty histogram, in microseconds.
    empty: Histogram<u64>,
    /// Histograms by the second in which a message was due.
    histograms: Arc<Mutex<Vec<Histogram<u64>>>>,
}

impl LatencyRecorder {
    /// Message 0 is due in a moment, and the next ones every `every`. Messages due within `warmup` are not counted.
    pub(crate) fn new(warmup: Duration, every: Duration) -> anyhow::Result<Self> {
        let counted_from = u64::try_from(warmup.as_nanos() / every.as_nanos())?;
        let empty = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let first = Instant::now() + Duration::from_millis(20);
        Ok(Self { first, every, counted_from, empty, histograms: Arc::default() })
    }

    fn due(&self, number: u64) -> Instant {
        self.first + self.every * u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// Returns a recorder with the same schedule for other readers.
    pub(crate) fn same_schedule(&self) -> Self {
        Self { histograms: Arc::default(), ..self.clone() }
    }

    /// Records that message `number` was read now.
    pub(crate) fn record(&self, number: u64) {
        self.record_at(number, Instant::now());
    }

    /// Records that message `number` arrived at this time.
    pub(crate) fn record_at(&self, number: u64, at: Instant) {
        let Some(counted) = number.checked_sub(self.counted_from) else { return };
        let latency = at.saturating_duration_since(self.due(number)).as_micros();
        let second = (u128::from(counted) * self.every.as_nanos() / Duration::from_secs(1).as_nanos()) as usize;
        let mut seconds = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        while seconds.len() <= second {
            seconds.push(self.empty.clone());
        }
        if let Some(histogram) = seconds.get_mut(second) {
            histogram.saturating_record(latency as u64);
        }
    }

    /// Waits until `readers` readers have read all `messages`. Returns the latencies.
    pub(crate) async fn result(&self, messages: u64, readers: u64) -> anyhow::Result<Latency> {
        let target = (messages - self.counted_from) * readers;
        let seconds = || self.histograms.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = |seconds: &[Histogram<u64>]| seconds.iter().map(Histogram::len).sum::<u64>();
        for _ in 0..500 {
            if count(&seconds()) >= target {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let seconds = seconds();
        ensure!(count(&seconds) == target, "{} of {target} frames were read", count(&seconds));
        let mut all = self.empty.clone();
        for second in &seconds {
            all.add(second)?;
        }
        let millis = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let p99_of_a_second = median(seconds.iter().map(|second| millis(second, 0.99)));
        Ok(Latency { p50: millis(&all, 0.5), p99: millis(&all, 0.99), p99_of_a_second })
    }

    /// Sends each number to the next of `senders` when it is due. Uses its own thread, because the runtime's timers have a
    /// resolution of one millisecond.
    pub(crate) fn run(&self, senders: Vec<mpsc::UnboundedSender<u64>>, messages: u64) {
        let recorder = self.clone();
        std::thread::spawn(move || {
            for (number, sender) in (0..messages).zip(senders.iter().cycle()) {
                std::thread::sleep(recorder.due(number).saturating_duration_since(Instant::now()));
                if sender.send(number).is_err() {
                    return;
                }
            }
        });
    }
}

/// Records when frames with the numbers of messages arrive on streams. The streams are opened first, because that takes time.
#[derive(Debug, Clone)]
pub(crate) struct FrameRecorder {
    /// Set when the recording begins.
    recorder: Arc<Mutex<Option<LatencyRecorder>>>,
    /// Message numbers are unique in a run, but a recorder counts from 0.
    base: u64,
}

impl FrameRecorder {
    pub(crate) fn new(base: u64) -> Self {
        Self { recorder: Arc::default(), base }
    }

    /// Returns what streams call with each frame.
    pub(crate) fn on_frame(&self) -> impl Fn(usize, &[u8]) + Send + Sync + 'static {
        let this = self.clone();
        move |_, frame| {
            let recorder = this.recorder.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(recorder), Some(number)) = (&*recorder, number_in(frame)) {
                recorder.record(number - this.base);
            }
        }
    }

    /// Begins to record.
    pub(crate) fn begin(&self, recorder: &LatencyRecorder) {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).replace(recorder.clone());
    }
}

/// Senders that take turns according to a schedule.
pub(crate) struct OpenLoopSenders {
    queues: Vec<mpsc::UnboundedSender<u64>>,
    sending: JoinSet<anyhow::Result<()>>,
}

impl OpenLoopSenders {
    /// Connects the senders and prepares a message for each of their rides. The message numbers begin at `base`.
    pub(crate) async fn connect(
        server: &Server,
        rides: &[Ride],
        message_request: impl Fn(&Ride) -> MessageRequest,
        base: u64,
    ) -> anyhow::Result<Self> {
        Self::connect_many(server, rides, SENDERS, message_request, base).await
    }

    /// The same with another number of senders.
    pub(crate) async fn connect_many(
        server: &Server,
        rides: &[Ride],
        senders: usize,
        message_request: impl Fn(&Ride) -> MessageRequest,
        base: u64,
    ) -> anyhow::Result<Self> {
        let (kind, each) = (server.kind, rides.len().div_ceil(senders));
        let (mut queues, mut sending) = (Vec::new(), JoinSet::new());
        for sender in 0..senders {
            let (queue, mut due) = mpsc::unbounded_channel::<u64>();
            queues.push(queue);
            let mut client = Client::connect(server.address).await?;
            let mut message_requests: Vec<MessageRequest> =
                rides.iter().cycle().skip(sender).step_by(senders).take(each).map(&message_request).collect();
            sending.spawn(async move {
                let count = message_requests.len();
                let mut iteration = 0;
                while let Some(number) = due.recv().await {
                    iteration += 1;
                    let message_request = message_requests.get_mut(iteration % count).context("a ride")?;
                    let status = client.exchange(message_request.with_number(base + number)).await?;
                    ensure!(kind.accepts(status), "a message got {status}");
                }
                Ok(())
            });
        }
        Ok(Self { queues, sending })
    }

    /// Sends each message when it is due. Returns when all have got a response.
    pub(crate) async fn send(mut self, recorder: &LatencyRecorder, messages: u64) -> anyhow::Result<()> {
        recorder.run(self.queues, messages);
        while let Some(sent) = self.sending.join_next().await {
            sent??;
        }
        Ok(())
    }
}
