//! F. The same 1,000 subscribers at a fixed rate, the highest that nchan sustains here: how late their frames come.
//!
//! The rate is doubled until nchan falls behind, then halved in between. An open loop, as everywhere: what comes late
//! because the server was behind is late.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::compared::{Compared, Comparison};
use crate::fanout::followers;
use crate::latency::{Clock, Latency, Senders};
use crate::platform::{Platform, Ride};
use crate::process::Cpu;
use crate::server::{Kind, Server};
use crate::streams::Streams;
use crate::table::Table;
use crate::{Plan, say};

/// Messages a second: what the search begins with, and what is taken where there is no nchan.
const FIRST: f64 = 20.0;

/// A server that is later than this at p99 does not sustain the rate.
const LATE: f64 = 100.0;

/// How near the first rate that is not sustained comes to the last that is, as a ratio; and the most looks for it.
const NEAR: f64 = 1.05;
const LOOKS: usize = 14;

/// One server at the rate.
#[derive(Debug, Clone, Copy)]
struct Paced {
    /// Until frames were there for their readers, by the kernel's clock.
    there: Latency,
    /// Until they were read, by a generator that has to wait for a core.
    read: Latency,
    cpu: Cpu,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    let mut servers = Vec::new();
    for kind in [Kind::Ridewire, Kind::Nchan] {
        if let Some(server) = platform.serve(kind, "paced").await? {
            let rides = platform.rides(&server, "paced", 1).await?;
            servers.push((server, rides));
        }
    }
    let mut base = 0;
    let rate = match servers.iter().find(|(server, _)| server.kind == Kind::Nchan) {
        Some((nchan, rides)) => highest(plan, platform, nchan, rides, &mut base).await?,
        None => FIRST,
    };
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let mut round = Vec::new();
        for (server, rides) in &servers {
            let name = server.kind.name();
            let paced = measure(plan, platform, server, rides, rate, &mut base).await.context(name)?;
            let (Latency { p50, p99, .. }, read) = (paced.there, paced.read.p99);
            say(&format!(
                "paced {number}: {name} at {rate:.0}/s: p50 {p50:.2} ms, p99 {p99:.2} ms; {read:.2} ms until it was read"
            ));
            round.push((server.kind, paced));
        }
        rounds.push(Compared::of(round)?);
    }
    for (server, _) in servers {
        server.stop().await?;
    }
    let title = format!("{} subscribers of one ride at {rate:.0} messages a second", plan.followers);
    let mut paced = Comparison::new(&title, "from when a message was due", &rounds, &[Kind::Nchan]);
    let millis = |millis: f64| format!("{millis:.2} ms");
    paced.row("until its frame has arrived, p50", |one| one.there.p50, millis, "");
    paced.row("until its frame has arrived, p99", |one| one.there.p99, millis, "≤ 1 × nchan");
    paced.row("until the generator has read it, p50", |one| one.read.p50, millis, "");
    paced.row("until the generator has read it, p99", |one| one.read.p99, millis, "");
    let busy = paced.busy("The same: who is busy", |one| one.cpu);
    Ok(vec![paced.table, busy])
}

/// The highest rate that a server sustains, as near as the search comes.
async fn highest(
    plan: &Plan,
    platform: &Platform,
    server: &Server,
    rides: &[Ride],
    base: &mut u64,
) -> anyhow::Result<f64> {
    let (mut sustained, mut failed, mut rate) = (None, None, FIRST);
    for _ in 0..LOOKS {
        let late = match measure(plan, platform, server, rides, rate, base).await {
            Ok(paced) => paced.read.p99,
            // Not all was read in time.
            Err(_) => f64::INFINITY,
        };
        say(&format!("paced: {} at {rate:.0}/s: p99 {late:.1} ms", server.kind.name()));
        if late <= LATE {
            sustained = Some(rate);
        } else {
            failed = Some(rate);
        }
        rate = match (sustained, failed) {
            (Some(sustained), None) => sustained * 2.0,
            (Some(sustained), Some(failed)) if failed / sustained > NEAR => f64::midpoint(sustained, failed),
            (Some(sustained), Some(_)) => return Ok(sustained),
            (None, _) => rate / 2.0,
        };
    }
    sustained.context("nchan sustains no rate on this machine")
}

async fn measure(
    plan: &Plan,
    platform: &Platform,
    server: &Server,
    rides: &[Ride],
    rate: f64,
    base: &mut u64,
) -> anyhow::Result<Paced> {
    let every = Duration::from_secs_f64(1.0 / rate);
    let messages = u64::try_from((plan.warm + plan.span).as_nanos() / every.as_nanos())?;
    // Of arriving, and of being read.
    let clocks: Arc<Mutex<Option<[Clock; 2]>>> = Arc::default();
    let from = *base;
    *base += messages;
    let on_event = {
        let clocks = Arc::clone(&clocks);
        move |_: usize, frame: &[u8], at: Instant| {
            let clocks = clocks.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some([there, read]), Some(number)) = (&*clocks, crate::client::number_in(frame)) {
                there.there(number.saturating_sub(from), at);
                read.read(number.saturating_sub(from));
            }
        }
    };
    let ride = rides.first().context("a ride")?;
    let _streams = Streams::open_timed(server, followers(plan, ride), on_event).await?;
    let senders = Senders::ready(server, rides, |ride| server.kind.post(&ride.id, &ride.rider), from).await?;
    let begun = Clock::new(plan.warm, every)?;
    let read = begun.twin();
    clocks.lock().unwrap_or_else(PoisonError::into_inner).replace([begun.clone(), read.clone()]);
    let postgres = platform.postgres_pid()?;
    let before = Cpu::now(Some(server.pid), postgres)?;
    senders.send(&begun, messages).await?;
    let cpu = Cpu::now(Some(server.pid), postgres)?.since(before, (plan.warm + plan.span).as_secs_f64());
    let followers = plan.followers as u64;
    let (there, read) = (begun.result(messages, followers).await?, read.result(messages, followers).await?);
    Ok(Paced { there, read, cpu })
}
