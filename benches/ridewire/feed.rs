//! L. The feed: its cost for durable sends, and its latency compared to the ride's own stream.
//!
//! Three variants alternate under the load of the durable sends: the server without the feed, with the feed, and with a
//! reader of the feed. The latency is measured by open-loop load at 1,000 messages a second, on the replica that commits. There
//! is one stream of each ride and one stream of the feed.

use ridewire::domain::Role;

use crate::client::request;
use crate::latency::compare_latencies;
use crate::open_loop::{FrameRecorder, INTERVAL, Latency, LatencyRecorder, OpenLoopSenders};
use crate::sends::{self, SendResult};
use crate::server::Server;
use crate::streams::Streams;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print};

const RIDES: usize = 1_000;
const RIDES_OF_LATENCY: usize = 100;

/// The results of one round.
#[derive(Debug, Clone)]
struct Round {
    off: SendResult,
    on: SendResult,
    /// With a reader of the feed.
    read: SendResult,
    stream: Latency,
    feed: Latency,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let off = testbed.server_with("feed-off", &[("RIDEWIRE_FEED", "off")]).await?;
    let on = testbed.server("feed-on").await?;
    let rides = testbed.rides(&on, "feed", RIDES).await?;
    let messages = parameters.messages()?;
    let mut numbers = 0;
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds {
        let mut send = async |server| sends::send(parameters, testbed, server, &rides, &mut numbers, None).await;
        // In turns, because the database grows from one to the next.
        let (without, with) = if number % 2 == 1 {
            let without = send(&off).await?;
            (without, send(&on).await?)
        } else {
            let with = send(&on).await?;
            (send(&off).await?, with)
        };
        let reader = open(testbed, &on, |_, _| ()).await?;
        let read = sends::send(parameters, testbed, &on, &rides, &mut numbers, None).await?;
        drop(reader);
        let base = u64::try_from(number)? * 1_000_000;
        let (stream, feed) =
            latency(parameters, testbed, &on, rides.get(..RIDES_OF_LATENCY).unwrap_or(&rides), base, messages).await?;
        print(&format!(
            "feed {number}: {:.0}/s without a feed, {:.0}/s with one, {:.0}/s while it is read; p50 {:.2} ms on the stream, {:.2} ms on the feed",
            without.per_second, with.per_second, read.per_second, stream.p50, feed.p50
        ));
        rounds.push(Round { off: without, on: with, read, stream, feed });
    }
    off.stop().await?;
    on.stop().await?;
    Ok(tables(&rounds))
}

fn tables(rounds: &[Round]) -> Vec<Table> {
    let mut cost =
        Table::new("The feed: durable sends", &["sends/s, no streams", "with the feed", "without", "ratio", "target"]);
    let off = |round: &Round| round.off.per_second;
    let whole = |figure: f64| format!("{figure:.0}");
    cost.ratio_row("no reader of the feed", rounds, (|round: &Round| round.on.per_second, off), whole, "≥ 0.97 ×");
    cost.ratio_row("one stream of the feed", rounds, (|round: &Round| round.read.per_second, off), whole, "");
    let mut latencies = Table::new(
        "The feed: latency at 1,000 messages a second",
        &["POST to frame", "feed", "ride's stream", "ratio", "target"],
    );
    compare_latencies(
        &mut latencies,
        "same replica",
        rounds,
        (|round| &round.feed, |round| &round.stream),
        ["≤ 2 ×", ""],
    );
    let cpu_rows: Vec<_> = [
        ("no feed", (|round: &Round| round.off.cpu) as fn(&Round) -> _),
        ("no reader of the feed", |round| round.on.cpu),
        ("one stream of the feed", |round| round.read.cpu),
    ]
    .map(|(what, cpu)| (what, rounds.iter().map(cpu).collect()))
    .into();
    vec![cost, Table::cpu_table("The feed: CPU usage", &cpu_rows), latencies]
}

/// Opens a stream of the feed's messages.
async fn open(
    testbed: &Testbed,
    server: &Server,
    on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
) -> anyhow::Result<Streams> {
    let token = testbed.token("platform", Role::Service)?;
    let feed = request("GET", "/api/v1/feed?types=message:new", &token, "");
    Streams::open_requests(server, [feed], 1, on_event).await
}

/// Returns the latencies to the rides' own streams and to the feed.
async fn latency(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    rides: &[Ride],
    base: u64,
    messages: u64,
) -> anyhow::Result<(Latency, Latency)> {
    let (stream_frames, feed_frames) = (FrameRecorder::new(base), FrameRecorder::new(base));
    let _feed = open(testbed, server, feed_frames.on_frame()).await?;
    let target = rides.iter().map(|ride| (&*ride.id, &*ride.driver));
    let _streams = Streams::open(server, target, stream_frames.on_frame()).await?;
    let senders =
        OpenLoopSenders::connect(server, rides, |ride| server.kind.message_request(&ride.id, &ride.rider), base)
            .await?;
    let stream = LatencyRecorder::new(parameters.warmup, INTERVAL)?;
    let feed = stream.same_schedule();
    stream_frames.begin(&stream);
    feed_frames.begin(&feed);
    senders.send(&stream, messages).await?;
    Ok((stream.result(messages, 1).await?, feed.result(messages, 1).await?))
}
