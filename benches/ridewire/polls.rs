//! Long polls: what it costs to have thousands of them wait, to wake one, and how late it is answered.
//!
//! One poll waits on each of 5,000 rides, and 1,000 messages a second are sent, each to another ride: a thousand polls are
//! woken in a second, answered, and asked again. What the same messages cost with nobody waiting is taken off.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use ridewire::domain::Role;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{BEFORE, Client, Post, find, number_in, request};
use crate::latency::{Clock, EVERY, Latency, Senders};
use crate::platform::{Platform, Ride};
use crate::server::Server;
use crate::stats::median;
use crate::table::Table;
use crate::{Plan, process, say};

const RIDES: usize = 5_000;

/// What a poll costs that waits.
#[derive(Debug)]
struct Waiting {
    polls: usize,
    /// Of a core, of all of them.
    busy: f64,
    /// Resident kB of each.
    memory: f64,
    /// Tasks of the runtime, of each.
    tasks: f64,
}

/// One round.
#[derive(Debug, Clone, Copy)]
struct Round {
    latency: Latency,
    /// CPU microseconds for each message, of the server and of Postgres: with polls, and with nobody.
    with: (f64, f64),
    without: (f64, f64),
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    let wanted = if plan.quick { 100 } else { RIDES };
    let maker = platform.server("maker").await?;
    let rides = platform.rides(&maker, "polls", wanted).await?;
    maker.stop().await?;
    let server = platform.server("polls").await?;
    let mut base = 0;
    // What everybody's first message costs is not counted.
    measure(plan, platform, &server, &rides, None, &mut base).await?;
    let mut without = Vec::new();
    for _ in 0..plan.rounds.min(3) {
        without.push(measure(plan, platform, &server, &rides, None, &mut base).await?.1);
    }
    let before = State::of(platform, &server).await?;
    let polls = Polls::open(platform, &server, &rides).await?;
    let quiet = if plan.quick { 2.0 } else { 8.0 };
    let used = process::used(server.pid, false)?;
    sleep(Duration::from_secs_f64(quiet)).await;
    let busy = (process::used(server.pid, false)? - used) / quiet;
    // What their coming has set going has ended.
    let after = State::of(platform, &server).await?;
    let each = |figure: f64| figure / wanted as f64;
    let waiting = Waiting {
        polls: wanted,
        busy,
        memory: each(after.memory - before.memory),
        tasks: each(after.tasks - before.tasks),
    };
    say(&format!("polls: {:.1} kB and {:.2} tasks for each of {wanted}", waiting.memory, waiting.tasks));
    let mut with = Vec::new();
    for _ in 0..plan.rounds.min(3) {
        with.push(measure(plan, platform, &server, &rides, Some(&polls), &mut base).await?);
    }
    polls.close();
    server.stop().await?;
    let mut rounds = Vec::new();
    for ((latency, with), without) in with.into_iter().zip(without) {
        let latency = latency.context("a latency")?;
        say(&format!("polls: answered in {:.2} / {:.2} ms", latency.p50, latency.p99));
        rounds.push(Round { latency, with, without });
    }
    Ok(vec![table(&waiting, &rounds)])
}

/// What the server says and what the kernel says of it.
struct State {
    memory: f64,
    tasks: f64,
}

impl State {
    async fn of(platform: &Platform, server: &Server) -> anyhow::Result<Self> {
        Ok(Self { memory: process::resident(server.pid)?, tasks: metric(platform, server, "ridewire_tasks ").await? })
    }
}

/// A figure of `/metrics`.
async fn metric(platform: &Platform, server: &Server, name: &str) -> anyhow::Result<f64> {
    let mut client = Client::connect(server.address).await?;
    let status = client.exchange(&request("GET", "/metrics", &platform.token("platform", Role::Service)?, "")).await?;
    ensure!(status == 200, "/metrics was answered {status}");
    let text = String::from_utf8_lossy(client.body()).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("no {name}in /metrics"))
}

/// What is made of the answers while something is measured.
type Watch = Arc<Mutex<Option<(Clock, u64)>>>;

/// Polls that wait, and are asked again when they were answered.
struct Polls {
    polling: JoinSet<anyhow::Result<()>>,
    watch: Watch,
}

impl Polls {
    /// One for each ride. Returns when all of them wait.
    async fn open(platform: &Platform, server: &Server, rides: &[Ride]) -> anyhow::Result<Self> {
        let (watch, mut polling): (Watch, _) = (Watch::default(), JoinSet::new());
        for ride in rides {
            let client = Client::connect(server.address).await?;
            polling.spawn(poll(client, ride.clone(), Arc::clone(&watch)));
        }
        let wait = async {
            while metric(platform, server, r#"ridewire_open{transport="poll"} "#).await? < rides.len() as f64 {
                sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            waiting = wait => waiting?,
            Some(ended) = polling.join_next() => return Err(ended?.err().unwrap_or_else(|| anyhow!("a poll ended"))),
        }
        Ok(Self { polling, watch })
    }

    fn close(mut self) {
        self.polling.abort_all();
    }
}

/// Polls a ride for ever, from where it is now.
async fn poll(mut client: Client, ride: Ride, watch: Watch) -> anyhow::Result<()> {
    let path = format!("/api/v1/messages/rides/{}/poll?types=message:new&wait=55", ride.id);
    let mut next = request("GET", &path, &ride.driver, "");
    loop {
        let status = client.exchange(&next).await?;
        ensure!(status == 200, "a poll was answered {status}");
        let body = client.body();
        if let Some((clock, base)) = &*watch.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut rest = body;
            while let Some(number) = number_in(rest) {
                clock.read(number.saturating_sub(*base));
                let at = find(rest, BEFORE).unwrap_or(0) + 1;
                rest = rest.get(at..).unwrap_or_default();
            }
        }
        let cursor = find(body, b"\"cursor\":\"").and_then(|at| body.get(at + 10..)).context("no cursor")?;
        let cursor = cursor.split(|byte| *byte == b'"').next().unwrap_or_default();
        let after = format!("{path}&after={}", std::str::from_utf8(cursor)?);
        next = request("GET", &after, &ride.driver, "");
    }
}

/// CPU microseconds for each message, of the server and of Postgres; and how late it was polled.
async fn measure(
    plan: &Plan,
    platform: &Platform,
    server: &Server,
    rides: &[Ride],
    polls: Option<&Polls>,
    base: &mut u64,
) -> anyhow::Result<(Option<Latency>, (f64, f64))> {
    let span = plan.warm + plan.span;
    let messages = u64::try_from(span.as_millis() / EVERY.as_millis())?;
    let senders = Senders::ready(server, rides, |ride| Post::new(&ride.id, &ride.rider), *base).await?;
    let clock = Clock::new(plan.warm, EVERY)?;
    if let Some(polls) = polls {
        polls.watch.lock().unwrap_or_else(PoisonError::into_inner).replace((clock.clone(), *base));
    }
    let postgres = platform.postgres_pid()?;
    let used = || anyhow::Ok((process::used(server.pid, false)?, process::of_family(postgres)?));
    let (begun, before) = (Instant::now(), used()?);
    senders.send(&clock, messages).await?;
    let latency = match polls {
        Some(_) => Some(clock.result(messages, 1).await?),
        None => None,
    };
    let (after, seconds) = (used()?, begun.elapsed().as_secs_f64());
    *base += messages;
    if let Some(polls) = polls {
        polls.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    ensure!(seconds < 2.0 * span.as_secs_f64(), "the messages could not be sent as fast as they came due");
    let each = |now: f64, then: f64| (now - then) / messages as f64 * 1e6;
    Ok((latency, (each(after.0, before.0), each(after.1, before.1))))
}

fn table(waiting: &Waiting, rounds: &[Round]) -> Table {
    let middle = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let mut table = Table::new("Long polls", &[&format!("{} polls that wait", waiting.polls), "Ridewire", "wanted"]);
    table.row([
        "of a core, while nobody says anything".to_owned(),
        format!("{:.2} %", 100.0 * waiting.busy),
        "< 1 %".to_owned(),
    ]);
    table.row(["memory of each".to_owned(), format!("{:.1} kB", waiting.memory)]);
    table.row(["tasks of each: its connection's".to_owned(), format!("{:.2}", waiting.tasks), "1".to_owned()]);
    let latency = |quantile: fn(Latency) -> f64| median(rounds.iter().map(|round| quantile(round.latency)));
    table.row([
        "1,000 messages/s, POST to answer, p50 / p99".to_owned(),
        format!("{:.2} / {:.2} ms", latency(|latency| latency.p50), latency(|latency| latency.p99)),
    ]);
    table.row([
        "CPU of a wake, of the server: answered, and asked again".to_owned(),
        format!("{:.0} µs", middle(|round| round.with.0 - round.without.0)),
    ]);
    table.row([
        "CPU of a wake, of Postgres".to_owned(),
        format!("{:.0} µs", middle(|round| round.with.1 - round.without.1)),
    ]);
    table.row([
        "CPU of a message that nobody waits for, server + Postgres".to_owned(),
        format!("{:.0} + {:.0} µs", middle(|round| round.without.0), middle(|round| round.without.1)),
    ]);
    table
}
