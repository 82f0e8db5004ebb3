//! Long polls: the cost of thousands of waiting polls, the cost of waking one, and its latency.
//!
//! One poll waits on each of 5,000 rides. 1,000 messages a second are sent, each to another ride, so a thousand polls a second
//! are woken, get a response and are repeated. The cost of the same messages without polls is subtracted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Client, MessageRequest, NUMBER_PREFIX, find, number_in, request};
use crate::open_loop::{INTERVAL, Latency, LatencyRecorder, OpenLoopSenders};
use crate::server::Server;
use crate::stats::median;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print, process};

const RIDES: usize = 5_000;

/// The cost of waiting polls.
#[derive(Debug)]
struct Waiting {
    polls: usize,
    /// The share of a core that all of them use.
    busy: f64,
    /// Resident kB per poll.
    memory: f64,
    /// Tokio tasks per poll.
    tasks: f64,
}

/// The results of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    latency: Latency,
    /// CPU microseconds per message, of the server and of Postgres: with polls and without.
    with: (f64, f64),
    without: (f64, f64),
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let target = if parameters.quick { 100 } else { RIDES };
    let setup = testbed.server("setup").await?;
    let rides = testbed.rides(&setup, "polls", target).await?;
    setup.stop().await?;
    let server = testbed.server("polls").await?;
    let mut base = 0;
    // Warm-up, not counted: the first message of each ride loads it into the cache.
    measure(parameters, testbed, &server, &rides, None, &mut base).await?;
    let mut without = Vec::new();
    for _ in 0..parameters.rounds.min(3) {
        without.push(measure(parameters, testbed, &server, &rides, None, &mut base).await?.1);
    }
    let before = State::of(testbed, &server).await?;
    let polls = Polls::open(testbed, &server, &rides).await?;
    let idle = if parameters.quick { 2.0 } else { 8.0 };
    let cpu_of_process = process::cpu_of_process(server.pid, false)?;
    sleep(Duration::from_secs_f64(idle)).await;
    let busy = (process::cpu_of_process(server.pid, false)? - cpu_of_process) / idle;
    // The work that their connecting caused has ended.
    let after = State::of(testbed, &server).await?;
    let each = |figure: f64| figure / target as f64;
    let waiting = Waiting {
        polls: target,
        busy,
        memory: each(after.memory - before.memory),
        tasks: each(after.tasks - before.tasks),
    };
    print(&format!("polls: {:.1} kB and {:.2} tasks for each of {target}", waiting.memory, waiting.tasks));
    let mut with = Vec::new();
    for _ in 0..parameters.rounds.min(3) {
        with.push(measure(parameters, testbed, &server, &rides, Some(&polls), &mut base).await?);
    }
    polls.close();
    server.stop().await?;
    let mut rounds = Vec::new();
    for ((latency, with), without) in with.into_iter().zip(without) {
        let latency = latency.context("a latency")?;
        print(&format!("polls: response after {:.2} / {:.2} ms", latency.p50, latency.p99));
        rounds.push(Round { latency, with, without });
    }
    Ok(vec![table(&waiting, &rounds)])
}

/// Resident memory, and the number of tasks from the metrics.
struct State {
    memory: f64,
    tasks: f64,
}

impl State {
    async fn of(testbed: &Testbed, server: &Server) -> anyhow::Result<Self> {
        Ok(Self {
            memory: process::resident_memory(server.pid)?,
            tasks: testbed.metric(server, "ridewire_tokio_tasks ").await?,
        })
    }
}

/// The recorder of the responses during a measurement, and the first message number.
type RecorderSlot = Arc<Mutex<Option<(LatencyRecorder, u64)>>>;

/// Waiting polls. Each is repeated after its response.
struct Polls {
    polling: JoinSet<anyhow::Result<()>>,
    recorder_slot: RecorderSlot,
}

impl Polls {
    /// Opens one poll for each ride. Returns when all of them wait.
    async fn open(testbed: &Testbed, server: &Server, rides: &[Ride]) -> anyhow::Result<Self> {
        let (recorder_slot, mut polling): (RecorderSlot, _) = (RecorderSlot::default(), JoinSet::new());
        for ride in rides {
            let client = Client::connect(server.address).await?;
            polling.spawn(poll(client, ride.clone(), Arc::clone(&recorder_slot)));
        }
        let wait = async {
            while testbed.metric(server, r#"ridewire_connections{transport="poll"} "#).await? < rides.len() as f64 {
                sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            waiting = wait => waiting?,
            Some(ended) = polling.join_next() => return Err(ended?.err().unwrap_or_else(|| anyhow!("a poll ended"))),
        }
        Ok(Self { polling, recorder_slot })
    }

    fn close(mut self) {
        self.polling.abort_all();
    }
}

/// Polls a ride repeatedly, beginning at its head.
async fn poll(mut client: Client, ride: Ride, recorder_slot: RecorderSlot) -> anyhow::Result<()> {
    let path = format!("/api/v1/messages/rides/{}/poll?types=message:new&wait=55", ride.id);
    let mut next = request("GET", &path, &ride.driver, "");
    loop {
        let status = client.exchange(&next).await?;
        ensure!(status == 200, "a poll got {status}");
        let body = client.body();
        if let Some((recorder, base)) = &*recorder_slot.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut rest = body;
            while let Some(number) = number_in(rest) {
                recorder.record(number.saturating_sub(*base));
                let at = find(rest, NUMBER_PREFIX).unwrap_or(0) + 1;
                rest = rest.get(at..).unwrap_or_default();
            }
        }
        let cursor = find(body, b"\"cursor\":\"").and_then(|at| body.get(at + 10..)).context("no cursor")?;
        let cursor = cursor.split(|byte| *byte == b'"').next().unwrap_or_default();
        let after = format!("{path}&after={}", std::str::from_utf8(cursor)?);
        next = request("GET", &after, &ride.driver, "");
    }
}

/// Returns CPU microseconds per message, of the server and of Postgres, and the latency of the polls.
async fn measure(
    parameters: &Parameters,
    testbed: &Testbed,
    server: &Server,
    rides: &[Ride],
    polls: Option<&Polls>,
    base: &mut u64,
) -> anyhow::Result<(Option<Latency>, (f64, f64))> {
    let duration = parameters.warmup + parameters.duration;
    let messages = u64::try_from(duration.as_millis() / INTERVAL.as_millis())?;
    let senders =
        OpenLoopSenders::connect(server, rides, |ride| MessageRequest::new(&ride.id, &ride.rider), *base).await?;
    let recorder = LatencyRecorder::new(parameters.warmup, INTERVAL)?;
    if let Some(polls) = polls {
        polls.recorder_slot.lock().unwrap_or_else(PoisonError::into_inner).replace((recorder.clone(), *base));
    }
    let postgres = testbed.postgres_pid()?;
    let cpu_of_process =
        || anyhow::Ok((process::cpu_of_process(server.pid, false)?, process::cpu_of_process_tree(postgres)?));
    let (begun, before) = (Instant::now(), cpu_of_process()?);
    senders.send(&recorder, messages).await?;
    let latency = match polls {
        Some(_) => Some(recorder.result(messages, 1).await?),
        None => None,
    };
    let (after, seconds) = (cpu_of_process()?, begun.elapsed().as_secs_f64());
    *base += messages;
    if let Some(polls) = polls {
        polls.recorder_slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    ensure!(seconds < 2.0 * duration.as_secs_f64(), "the messages could not be sent at the rate");
    let each = |now: f64, then: f64| (now - then) / messages as f64 * 1e6;
    Ok((latency, (each(after.0, before.0), each(after.1, before.1))))
}

fn table(waiting: &Waiting, rounds: &[Round]) -> Table {
    let median_of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let mut table = Table::new("Long polls", &[&format!("{} waiting polls", waiting.polls), "Ridewire", "target"]);
    table.row([
        "CPU of all, without messages".to_owned(),
        format!("{:.2} %", 100.0 * waiting.busy),
        "< 1 %".to_owned(),
    ]);
    table.row(["memory per poll".to_owned(), format!("{:.1} kB", waiting.memory)]);
    table.row(["tasks per poll: its connection".to_owned(), format!("{:.2}", waiting.tasks), "1".to_owned()]);
    let latency = |quantile: fn(Latency) -> f64| median(rounds.iter().map(|round| quantile(round.latency)));
    table.row([
        "1,000 messages/s, POST to response, p50 / p99".to_owned(),
        format!("{:.2} / {:.2} ms", latency(|latency| latency.p50), latency(|latency| latency.p99)),
    ]);
    table.row([
        "server CPU per wake-up, with response and next poll".to_owned(),
        format!("{:.0} µs", median_of(|round| round.with.0 - round.without.0)),
    ]);
    table.row([
        "Postgres CPU per wake-up".to_owned(),
        format!("{:.0} µs", median_of(|round| round.with.1 - round.without.1)),
    ]);
    table.row([
        "CPU per message without a waiting poll, server + Postgres".to_owned(),
        format!("{:.0} + {:.0} µs", median_of(|round| round.without.0), median_of(|round| round.without.1)),
    ]);
    table
}
