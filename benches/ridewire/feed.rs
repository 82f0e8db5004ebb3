//! L. The feed: what it costs the sends, and how much later than the ride's own stream it has a message.
//!
//! The same server with the feed, without it, and with a reader of the feed take turns under the load of the durable sends. The
//! latency is that of an open loop at 1,000 messages a second, on the replica that commits, to a stream of each ride and to one
//! stream of the feed.

use std::sync::{Arc, Mutex, PoisonError};

use ridewire::domain::Role;

use crate::client::{number_in, request};
use crate::latency::{Clock, EVERY, Latency, Senders, compare};
use crate::platform::{Platform, Ride};
use crate::sends::{self, Sent};
use crate::server::Server;
use crate::streams::Streams;
use crate::table::Table;
use crate::{Plan, say};

const RIDES: usize = 1_000;
const RIDES_OF_LATENCY: usize = 100;

/// One round.
#[derive(Debug, Clone)]
struct Round {
    off: Sent,
    on: Sent,
    /// With a reader of the feed.
    read: Sent,
    stream: Latency,
    feed: Latency,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    let off = platform.server_with("feed-off", &[("RIDEWIRE_FEED", "off")]).await?;
    let on = platform.server("feed-on").await?;
    let rides = platform.rides(&on, "feed", RIDES).await?;
    let messages = u64::try_from((plan.warm + plan.span).as_millis() / EVERY.as_millis())?;
    let mut numbers = 0;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let without = sends::send(plan, platform, &off, &rides, &mut numbers, None).await?;
        let with = sends::send(plan, platform, &on, &rides, &mut numbers, None).await?;
        let reader = open(platform, &on, |_, _| ()).await?;
        let read = sends::send(plan, platform, &on, &rides, &mut numbers, None).await?;
        drop(reader);
        let base = u64::try_from(number)? * 1_000_000;
        let (stream, feed) =
            latency(plan, platform, &on, rides.get(..RIDES_OF_LATENCY).unwrap_or(&rides), base, messages).await?;
        say(&format!(
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
        Table::new("The feed: durable sends", &["sends/s, no streams", "with the feed", "without", "ratio", "wanted"]);
    let off = |round: &Round| round.off.per_second;
    let whole = |figure: f64| format!("{figure:.0}");
    cost.beside("nothing reads the feed", rounds, (|round: &Round| round.on.per_second, off), whole, "≥ 0.97 ×");
    cost.beside("one stream of the feed", rounds, (|round: &Round| round.read.per_second, off), whole, "");
    let mut late = Table::new(
        "The feed: latency at 1,000 messages a second",
        &["POST to frame", "feed", "ride's stream", "ratio", "wanted"],
    );
    compare(&mut late, "same replica", rounds, (|round| &round.feed, |round| &round.stream), ["≤ 2 ×", ""]);
    let busy: Vec<_> = [
        ("no feed", (|round: &Round| round.off.cpu) as fn(&Round) -> _),
        ("nothing reads the feed", |round| round.on.cpu),
        ("one stream of the feed", |round| round.read.cpu),
    ]
    .map(|(what, cpu)| (what, rounds.iter().map(cpu).collect()))
    .into();
    vec![cost, Table::busy("The feed: who is busy", &busy), late]
}

/// A stream of the feed's messages.
async fn open(
    platform: &Platform,
    server: &Server,
    on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
) -> anyhow::Result<Streams> {
    let token = platform.token("platform", Role::Service)?;
    let feed = request("GET", "/api/v1/feed?types=message:new", &token, "");
    Streams::ask(server, [feed], 1, on_event).await
}

/// To the rides' own streams, and to the feed.
async fn latency(
    plan: &Plan,
    platform: &Platform,
    server: &Server,
    rides: &[Ride],
    base: u64,
    messages: u64,
) -> anyhow::Result<(Latency, Latency)> {
    // Made after the streams are open, and they are opened with it.
    let clocks: Arc<Mutex<Option<(Clock, Clock)>>> = Arc::default();
    let on_event = |is_feed: bool| {
        let clocks = Arc::clone(&clocks);
        move |_: usize, frame: &[u8]| {
            let clocks = clocks.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some((stream, feed)), Some(number)) = (&*clocks, number_in(frame)) {
                if is_feed { feed } else { stream }.read(number - base);
            }
        }
    };
    let _feed = open(platform, server, on_event(true)).await?;
    let wanted = rides.iter().map(|ride| (&*ride.id, &*ride.driver));
    let _streams = Streams::open(server, wanted, on_event(false)).await?;
    let senders = Senders::ready(server, rides, |ride| server.kind.post(&ride.id, &ride.rider), base).await?;
    let stream = Clock::new(plan.warm, EVERY)?;
    let feed = stream.twin();
    clocks.lock().unwrap_or_else(PoisonError::into_inner).replace((stream.clone(), feed.clone()));
    senders.send(&stream, messages).await?;
    Ok((stream.result(messages, 1).await?, feed.result(messages, 1).await?))
}
