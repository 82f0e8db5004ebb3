//! Schedules: what two replicas and their Postgres say to each other is held and let go of in an order of our choosing, and
//! afterwards everything that anybody was told is compared with the guarantees.
//!
//! Requests, responses, COMMITs, notifications are never waited for in time, but each for itself: a schedule says which message
//! waits until when, and which is lost. So races that need a slow disk, a lost packet or a stopped process happen every time.
//!
//! | | |
//! |---|---|
//! | [`step`] | a schedule: its steps, and how they are written |
//! | [`generate`] | a schedule from a seed |
//! | [`label`], [`gate`], [`proxy`] | each message by what it is about, held or lost |
//! | [`lane`] | two replicas on a database of their own |
//! | [`run`], [`reader`] | one run, and its readers |
//! | [`truth`], [`check`], [`views`], [`fresh`] | what the database has, what everybody was told, and whether that is right |
//! | [`shrink`] | a smaller schedule that fails as well |
//!
//! `RIDEWIRE_SCHEDULE=<seed, or a schedule>` runs that one, `RIDEWIRE_SCHEDULES=<number>` so many, from the seed
//! `RIDEWIRE_SCHEDULES_FROM`; with `RIDEWIRE_SCHEDULES_SURVEY` all of them, whatever they find, and none is shrunk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails where it can"
)]

#[path = "../support/mod.rs"]
mod support;

mod ask;
mod check;
mod check_tests;
mod database;
mod fresh;
mod gate;
mod generate;
mod label;
mod lane;
mod proxy;
mod reader;
mod run;
mod shrink;
mod step;
mod told;
mod truth;
mod views;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::{Duration, Instant, sleep};

use crate::check::{Fault, Problem, Problems, check_database};
use crate::fresh::{check_fresh, check_reads};
use crate::lane::Lane;
use crate::run::Run;
use crate::step::Schedule;
use crate::truth::Truth;
use crate::views::{check_reader, is_complete};

/// How many schedules are run, and how many at a time: they mostly wait.
const SCHEDULES: u64 = 1_000;
const SCHEDULES_OF_SOAK: u64 = 100_000;
const LANES: u64 = 8;

/// For how long readers may be sent what they have not got yet.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many failures are enough.
const MOST_FAILURES: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a schedule, and says what is wrong with what came of it.
async fn run(lane: &mut Lane, schedule: &Schedule) -> Vec<Problem> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("s{}-", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut problems = Problems::default();
    let mut run = Run::new(lane, prefix);
    run.prepare(schedule).await;
    for step in &schedule.0 {
        run.step(step).await;
    }
    if let Err(error) = run.finish().await {
        problems.add(Fault::Stuck, error);
    }
    let mut truth = Truth::read(&run.lane.client, &run.told.prefix).await;
    let deadline = Instant::now() + PATIENCE;
    // The database that is no more has given positions to what this one does not have.
    if run.has_failed_over {
        truth.take_feed_for_granted();
    }
    while !truth.has_whole_feed() && Instant::now() < deadline {
        sleep(Duration::from_millis(2)).await;
        truth.read_feed(&run.lane.client, &run.told.prefix).await;
    }
    // What readers had of a database that is no more is not compared with the one that is.
    if run.has_failed_over {
        run.readers.clear();
    }
    while !run.readers.values().all(|reader| is_complete(&run.told, &truth, &reader.reading()))
        && Instant::now() < deadline
    {
        sleep(Duration::from_millis(2)).await;
    }
    check_database(&run.told, &truth, &mut problems);
    for (number, reader) in &run.readers {
        check_reader(&run.told, &truth, *number, &reader.reading(), &mut problems);
    }
    check_reads(&run.told, &truth, &mut problems);
    check_fresh(&mut run, &truth, &mut problems).await;
    if run.has_killed {
        check_presence(&run, &mut problems).await;
    }
    problems.0.sort();
    problems.0.dedup();
    problems.0
}

/// Nobody is online who is registered nowhere: by no replica that lives, nor for a time that has not passed.
async fn check_presence(run: &Run<'_>, problems: &mut Problems) {
    let query = "select topic, user_id from presence_states
                 where online and (starts_with(topic, 'ride/' || $1) or starts_with(user_id, $1)) and not exists (
                     select from presence
                     where presence.topic = presence_states.topic and presence.user_id = presence_states.user_id
                         and (exists (select from replicas where replicas.replica = presence.replica
                                          and replicas.expires_at > clock_timestamp())
                              or (to_jsonb(presence) ->> 'expires_at')::timestamptz > clock_timestamp()))";
    // Whoever renews its lease next takes them out: twice that.
    let deadline = Instant::now() + Duration::from_secs(12);
    loop {
        let rows = run.lane.client.query(query, &[&run.told.prefix]).await.unwrap();
        let Some(row) = rows.first() else { return };
        if Instant::now() > deadline {
            let (topic, user): (String, String) = (row.get(0), row.get(1));
            return problems.add(Fault::Online, format!("{user} stays online on {topic}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What has failed.
struct Failure {
    seed: u64,
    schedule: Schedule,
    problems: Vec<Problem>,
}

/// What lanes share.
#[derive(Default)]
struct Work {
    next: AtomicU64,
    is_over: AtomicBool,
    failures: Mutex<Vec<Failure>>,
    /// The first seed that has found each fault, and how many have.
    found: Mutex<BTreeMap<Fault, (u64, u64)>>,
}

impl Work {
    fn note(&self, seed: u64, problems: &[Problem]) {
        let mut found = self.found.lock().unwrap();
        let faults: std::collections::BTreeSet<_> = problems.iter().map(|problem| problem.fault).collect();
        for fault in faults {
            let (first, count) = found.entry(fault).or_insert((seed, 0));
            *first = seed.min(*first);
            *count += 1;
        }
    }
}

async fn work(shared: &Work, last: u64, is_survey: bool) {
    let most_failures = if is_survey { usize::MAX } else { MOST_FAILURES };
    let mut lane = Lane::open().await;
    while !shared.is_over.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed > last {
            break;
        }
        let schedule = generate::generate(seed);
        let problems = run(&mut lane, &schedule).await;
        shared.note(seed, &problems);
        if problems.is_empty() {
            continue;
        }
        let is_stuck = problems.iter().any(|problem| problem.fault == Fault::Stuck);
        if is_stuck {
            lane = Lane::open().await;
        }
        let enough = shared.failures.lock().unwrap().len() >= most_failures;
        let (schedule, problems) = match !is_survey && !enough {
            true => shrink::shrink(&mut lane, schedule, problems, run).await,
            false => (schedule, problems),
        };
        let mut failures = shared.failures.lock().unwrap();
        failures.push(Failure { seed, schedule, problems });
        shared.is_over.store(failures.len() >= most_failures, Ordering::Relaxed);
    }
}

/// Runs something in a thread and a runtime of its own.
fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn print(failure: &Failure) {
    eprintln!("--- schedule {}", failure.seed);
    failure.problems.iter().for_each(|problem| eprintln!("{problem}"));
    eprintln!("RIDEWIRE_SCHEDULE='{}'", failure.schedule);
}

/// Runs one schedule that the environment names; that of a seed is shrunk where it fails.
async fn replay(named: &str) -> Vec<Problem> {
    let seed = named.parse().ok();
    let schedule = match seed {
        Some(seed) => generate::generate(seed),
        None => Schedule::parse(named).unwrap_or_else(|| panic!("no schedule: {named}")),
    };
    eprintln!("{schedule}");
    let mut lane = Lane::open().await;
    let problems = run(&mut lane, &schedule).await;
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    if let Some(seed) = seed.filter(|_| !problems.is_empty()) {
        let (schedule, problems) = shrink::shrink(&mut lane, schedule, problems.clone(), run).await;
        print(&Failure { seed, schedule, problems });
    }
    problems
}

#[test]
fn the_guarantees_hold_in_every_schedule() {
    if let Ok(named) = std::env::var("RIDEWIRE_SCHEDULE") {
        let problems = in_a_runtime(replay(&named));
        assert!(problems.is_empty(), "the guarantees are broken");
        return;
    }
    let soak = std::env::var_os("RIDEWIRE_SOAK").is_some();
    let schedules = number("RIDEWIRE_SCHEDULES").unwrap_or(if soak { SCHEDULES_OF_SOAK } else { SCHEDULES });
    let first = number("RIDEWIRE_SCHEDULES_FROM").unwrap_or(1);
    let is_survey = std::env::var_os("RIDEWIRE_SCHEDULES_SURVEY").is_some();
    let shared = Work { next: AtomicU64::new(first), ..Work::default() };
    std::thread::scope(|scope| {
        for _ in 0..number("RIDEWIRE_SCHEDULE_LANES").unwrap_or(LANES).min(schedules) {
            scope.spawn(|| in_a_runtime(work(&shared, first + schedules - 1, is_survey)));
        }
    });
    let failures = shared.failures.into_inner().unwrap();
    failures.iter().for_each(print);
    for (fault, (seed, count)) in shared.found.into_inner().unwrap() {
        eprintln!("{fault:?}: first found by {seed}, by {count} of {schedules} schedules in all");
    }
    assert!(failures.is_empty(), "the guarantees are broken in {} schedules", failures.len());
}

#[test]
fn what_is_printed_of_a_schedule_is_that_schedule() {
    for seed in 0..2_000 {
        let schedule = generate::generate(seed);
        assert_eq!(Schedule::parse(&schedule.to_string()), Some(schedule));
    }
}
