//! F. The latency of 1,000 subscribers at a constant rate, which is the highest one that nchan sustains on this machine.
//!
//! The search doubles the rate until nchan falls behind, and then bisects. The load is open-loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::comparison::{Comparison, PerServer};
use crate::fanout::subscribers;
use crate::open_loop::{Latency, LatencyRecorder, OpenLoopSenders};
use crate::process::Cpu;
use crate::server::{Server, ServerKind};
use crate::streams::Streams;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print};

/// Messages a second at which the search starts. Used as the rate if nchan is not installed.
const START_RATE: f64 = 20.0;

/// A server with a higher p99 in milliseconds does not sustain the rate.
const MAX_P99: f64 = 100.0;

/// The precision of the search as a ratio, and the highest number of steps.
const PRECISION: f64 = 1.05;
const MAX_STEPS: usize = 14;

/// The result of one server at the rate.
#[derive(Debug, Clone, Copy)]
struct FixedRateResult {
    /// The latency until frames arrive, by the kernel's timestamps.
    arrived: Latency,
    /// The latency until frames are read. The generator may have to wait for a core.
    read: Latency,
    cpu: Cpu,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let mut servers = Vec::new();
    for kind in [ServerKind::Ridewire, ServerKind::Nchan] {
        if let Some(server) = testbed.serve(kind, "paced").await? {
            let rides = testbed.rides(&server, "paced", 1).await?;
            servers.push((server, rides));
        }
    }
    let mut base = 0;
    let rate = match servers.iter().find(|(server, _)| server.kind == ServerKind::Nchan) {
        Some((nchan, rides)) => highest(parameters, testbed, nchan, rides, &mut base).await?,
        None => START_RATE,
    };
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds {
        let mut round = Vec::new();
        for (server, rides) in &servers {
            let name = server.kind.name();
            let result = measure(parameters, testbed, server, rides, rate, &mut base).await.context(name)?;
            let (Latency { p50, p99, .. }, read) = (result.arrived, result.read.p99);
            print(&format!(
                "paced {number}: {name} at {rate:.0}/s: p50 {p50:.2} ms, p99 {p99:.2} ms; {read:.2} ms until read"
            ));
            round.push((server.kind, result));
        }
        rounds.push(PerServer::of(round)?);
    }
    for (server, _) in servers {
        server.stop().await?;
    }
    let title = format!("{} subscribers of one ride at {rate:.0} messages a second", parameters.subscribers);
    let mut table = Comparison::new(&title, "from the due time of a message", &rounds, &[ServerKind::Nchan]);
    let millis = |millis: f64| format!("{millis:.2} ms");
    table.row("until its frame arrives, p50", |one| one.arrived.p50, millis, "");
    table.row("until its frame arrives, p99", |one| one.arrived.p99, millis, "≤ 1 × nchan");
    table.row("until the generator reads it, p50", |one| one.read.p50, millis, "");
    table.row("until the generator reads it, p99", |one| one.read.p99, millis, "");
    let busy = table.cpu_table("The same: CPU usage", |one| one.cpu);
    Ok(vec![table.table, busy])
}

/// Searches the highest rate that a server sustains.
async fn highest(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    rides: &[Ride],
    base: &mut u64,
) -> anyhow::Result<f64> {
    let (mut sustained, mut failed, mut rate) = (None, None, START_RATE);
    for _ in 0..MAX_STEPS {
        let late = match measure(parameters, testbed, server, rides, rate, base).await {
            Ok(result) => result.read.p99,
            // Not all messages were read in time.
            Err(_) => f64::INFINITY,
        };
        print(&format!("paced: {} at {rate:.0}/s: p99 {late:.1} ms", server.kind.name()));
        if late <= MAX_P99 {
            sustained = Some(rate);
        } else {
            failed = Some(rate);
        }
        rate = match (sustained, failed) {
            (Some(sustained), None) => sustained * 2.0,
            (Some(sustained), Some(failed)) if failed / sustained > PRECISION => f64::midpoint(sustained, failed),
            (Some(sustained), Some(_)) => return Ok(sustained),
            (None, _) => rate / 2.0,
        };
    }
    sustained.context("nchan sustains no rate on this machine")
}

async fn measure(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    rides: &[Ride],
    rate: f64,
    base: &mut u64,
) -> anyhow::Result<FixedRateResult> {
    let every = Duration::from_secs_f64(1.0 / rate);
    let messages = u64::try_from((parameters.warmup + parameters.duration).as_nanos() / every.as_nanos())?;
    // One for arrivals, one for reads.
    let recorders: Arc<Mutex<Option<[LatencyRecorder; 2]>>> = Arc::default();
    let from = *base;
    *base += messages;
    let on_event = {
        let recorders = Arc::clone(&recorders);
        move |_: usize, frame: &[u8], at: Instant| {
            let recorders = recorders.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some([arrived, read]), Some(number)) = (&*recorders, crate::client::number_in(frame)) {
                arrived.record_at(number.saturating_sub(from), at);
                read.record(number.saturating_sub(from));
            }
        }
    };
    let ride = rides.first().context("a ride")?;
    let _streams = Streams::open_with_timestamps(server, subscribers(parameters, ride), on_event).await?;
    let senders =
        OpenLoopSenders::connect(server, rides, |ride| server.kind.message_request(&ride.id, &ride.rider), from)
            .await?;
    let schedule = LatencyRecorder::new(parameters.warmup, every)?;
    let read = schedule.same_schedule();
    recorders.lock().unwrap_or_else(PoisonError::into_inner).replace([schedule.clone(), read.clone()]);
    let postgres = testbed.postgres_pid()?;
    let before = Cpu::now(Some(server.pid), postgres)?;
    senders.send(&schedule, messages).await?;
    let cpu =
        Cpu::now(Some(server.pid), postgres)?.since(before, (parameters.warmup + parameters.duration).as_secs_f64());
    let subscribers = parameters.subscribers as u64;
    let (arrived, read) = (schedule.result(messages, subscribers).await?, read.result(messages, subscribers).await?);
    Ok(FixedRateResult { arrived, read, cpu })
}
