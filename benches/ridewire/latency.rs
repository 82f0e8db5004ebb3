//! B. Latency at a constant 1,000 messages a second, from the due time of a message to its frame at a reader.
//!
//! The load is open-loop: messages become due by the clock, whether or not earlier ones got a response. If a server stalls,
//! all messages that become due meanwhile count as late. There are two replicas, and both have readers.

use crate::baseline;
use crate::client::MessageRequest;
use crate::open_loop::{FrameRecorder, INTERVAL, Latency, LatencyRecorder, OpenLoopSenders, SENDERS};
use crate::plot::{Bar, Plot};
use crate::server::Server;
use crate::stats::median;
use crate::streams::Streams;
use crate::table::{Figure, Table};
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, pgbench, print};

const RIDES: usize = 100;

/// The latencies of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    other: Latency,
    same: Latency,
    baseline: Latency,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    pgbench::create_table(testbed).await?;
    let (first, second_replica) = (testbed.server("first").await?, testbed.server("second_replica").await?);
    let rides = testbed.rides(&first, "latency", RIDES).await?;
    let messages = parameters.messages()?;
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds {
        let (other, same) = measure(parameters, &first, &second_replica, &rides, number, messages).await?;
        let baseline = baseline::run(parameters, testbed, messages, SENDERS).await?;
        print(&format!(
            "latency {number}, p50 / p99 ms: {:.2} / {:.2} on the other replica, {:.2} / {:.2} on the same; the baseline {:.2} / {:.2}",
            other.p50, other.p99_of_a_second, same.p50, same.p99_of_a_second, baseline.p50, baseline.p99_of_a_second
        ));
        rounds.push(Round { other, same, baseline });
    }
    first.stop().await?;
    second_replica.stop().await?;
    Ok(vec![table(&rounds)])
}

/// Opens a stream for each ride, connects the senders, and begins to record. Nothing is recorded after the streams are dropped.
pub(crate) async fn prepare(
    parameters: &Parameters,
    server: &Server,
    rides: &[Ride],
    senders: usize,
    base: u64,
) -> anyhow::Result<(Streams, OpenLoopSenders, LatencyRecorder)> {
    let frames = FrameRecorder::new(base);
    let readers = rides.iter().map(|ride| (&*ride.id, &*ride.driver));
    let streams = Streams::open(server, readers, frames.on_frame()).await?;
    let request = |ride: &Ride| server.kind.message_request(&ride.id, &ride.rider);
    let senders = OpenLoopSenders::connect_many(server, rides, senders, request, base).await?;
    let recorder = LatencyRecorder::new(parameters.warmup, INTERVAL)?;
    frames.begin(&recorder);
    Ok((streams, senders, recorder))
}

/// Selects a latency of a round.
type LatencyOf<R> = fn(&R) -> &Latency;

/// Adds the rows that compare two latencies, with targets for the p50 and the per-second p99. The overall p99 has no target:
/// it is dominated by the longest stall of the machine.
pub(crate) fn compare_latencies<R>(
    table: &mut Table,
    what: &str,
    rounds: &[R],
    (measured, compared): (LatencyOf<R>, LatencyOf<R>),
    [p50, p99]: [&str; 2],
) {
    let rows: [(&str, Figure<Latency>, &str); 3] = [
        ("p50", |latency| latency.p50, p50),
        ("median p99 of a second", |latency| latency.p99_of_a_second, p99),
        ("overall p99", |latency| latency.p99, ""),
    ];
    for (figure, of, target) in rows {
        let figures = (|round: &R| of(measured(round)), |round: &R| of(compared(round)));
        let millis = |millis: f64| format!("{millis:.2} ms");
        table.ratio_row(&format!("{what}, {figure}"), rounds, figures, millis, target);
    }
}

fn table(rounds: &[Round]) -> Table {
    let title = "Latency at 1,000 messages a second";
    let mut table = Table::new(title, &["POST to frame", "Ridewire", "Postgres alone", "ratio", "target"]);
    compare_latencies(
        &mut table,
        "other replica",
        rounds,
        (|round| &round.other, |round| &round.baseline),
        ["≤ 2 ×", "≤ 5 ×"],
    );
    compare_latencies(
        &mut table,
        "same replica",
        rounds,
        (|round| &round.same, |round| &round.baseline),
        ["≤ 2 ×", "≤ 5 ×"],
    );
    let median_of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    table.plot(Plot::new("latency", "POST to frame at 1,000 messages a second", "ms").with([
        Bar::ours("same replica, p50", median_of(|round| round.same.p50)),
        Bar::ours("same replica, p99", median_of(|round| round.same.p99_of_a_second)),
        Bar::ours("other replica, p50", median_of(|round| round.other.p50)),
        Bar::ours("other replica, p99", median_of(|round| round.other.p99_of_a_second)),
        Bar::peer("Postgres alone, p50", median_of(|round| round.baseline.p50)),
        Bar::peer("Postgres alone, p99", median_of(|round| round.baseline.p99_of_a_second)),
    ]));
    table
}

async fn measure(
    parameters: &Parameters,
    first: &Server,
    second_replica: &Server,
    rides: &[Ride],
    round: usize,
    messages: u64,
) -> anyhow::Result<(Latency, Latency)> {
    let base = u64::try_from(round)? * 1_000_000;
    let (own_frames, others_frames) = (FrameRecorder::new(base), FrameRecorder::new(base));
    let readers = || rides.iter().map(|ride| (&*ride.id, &*ride.driver));
    let _same = Streams::open(first, readers(), own_frames.on_frame()).await?;
    let _other = Streams::open(second_replica, readers(), others_frames.on_frame()).await?;

    let senders =
        OpenLoopSenders::connect(first, rides, |ride| MessageRequest::new(&ride.id, &ride.rider), base).await?;
    let others = LatencyRecorder::new(parameters.warmup, INTERVAL)?;
    let own = others.same_schedule();
    own_frames.begin(&own);
    others_frames.begin(&others);
    senders.send(&others, messages).await?;
    Ok((others.result(messages, 1).await?, own.result(messages, 1).await?))
}
