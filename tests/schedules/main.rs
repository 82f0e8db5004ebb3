//! Schedule tests: they control the order of the messages between two replicas and their Postgres, and afterwards compare every response
//! and every event with the guarantees.
//!
//! No test waits for a fixed time until a message arrives. A schedule determines which request, response, COMMIT or notification is held
//! until when, and which is lost. So races that need a slow disk, a lost packet or a stopped process happen in every run.
//!
//! | | |
//! |---|---|
//! | [`step`] | a schedule: its steps and their text form |
//! | [`generate`] | generates a schedule from a seed |
//! | [`classify`], [`gate`], [`proxy`] | classify each message, and hold or lose it |
//! | [`replica_pair`] | two replicas on a database of their own |
//! | [`run`], [`requests`], [`failover`], [`reader`] | run a schedule, with its requests, failovers and stream readers |
//! | [`record`] | the requests and responses of a run |
//! | [`database_state`] | the contents of the database after a run |
//! | [`check`], [`reader_check`], [`visible_log`], [`final_reads`] | compare these with the guarantees |
//! | [`shrink`] | shrinks a failing schedule |
//!
//! - `RIDEWIRE_SCHEDULE=<seed or schedule>` runs one schedule. With `RIDEWIRE_SCHEDULE_ON_SHARDS`, it runs on two shards. A seed determines
//!   that: each fourth one does.
//! - `RIDEWIRE_SCHEDULES=<number>` runs that many, from the seed `RIDEWIRE_SCHEDULES_FROM`.
//! - With `RIDEWIRE_SCHEDULES_SURVEY`, all of them run regardless of failures, and none is shrunk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod check_tests;
mod classify;
mod database_state;
mod failover;
mod feed_reader;
mod final_reads;
mod gate;
mod generate;
mod proxy;
mod reader;
mod reader_check;
mod record;
mod replica_pair;
mod requests;
mod run;
mod shrink;
mod step;
mod visible_log;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ridewire::domain::{RideId, ShardMap, UserId};
use tokio::time::{Duration, Instant, sleep};

use crate::check::{Violation, ViolationKind, Violations, check_database};
use crate::database_state::DatabaseState;
use crate::final_reads::{check_earlier_reads, check_final_reads};
use crate::reader_check::{check_reader, is_complete};
use crate::record::RunRecord;
use crate::replica_pair::ReplicaPair;
use crate::run::Run;
use crate::step::{Actor, OLD_RIDE, Schedule};

/// The number of schedules, and how many run in parallel. They mostly wait.
const SCHEDULES: u64 = 1_000;
const SCHEDULES_OF_SOAK: u64 = 100_000;
const PAIRS: u64 = 8;

/// How long to wait until readers have received all events.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The number of failures after which the test stops.
const MAX_FAILURES: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Whether the schedule of a seed runs on two shards.
fn is_sharded(seed: u64) -> bool {
    seed.is_multiple_of(4)
}

/// Returns a prefix for the ids of a run, which no run has used. With two shards, all rides are in the first one and all users in the other
/// one, so that each update for a user crosses shards.
fn next_prefix(is_sharded: bool) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let two = ShardMap::new(2).unwrap();
    let has_placement = |record: &RunRecord| {
        let rides = (0..=OLD_RIDE).map(|ride| two.of_ride(&RideId::parse(&record.ride(ride)).unwrap()).number());
        let users =
            Actor::ALL.iter().map(|(actor, _)| two.of_user(&UserId::parse(&record.user(*actor)).unwrap()).number());
        rides.eq(vec![0; OLD_RIDE + 1]) && users.eq(vec![1; Actor::ALL.len()])
    };
    loop {
        let prefix = format!("s{}-", COUNT.fetch_add(1, Ordering::Relaxed));
        let record = RunRecord { prefix, ..RunRecord::default() };
        if !is_sharded || has_placement(&record) {
            return record.prefix;
        }
    }
}

/// Runs a schedule, and returns the violations of the guarantees.
async fn run(replicas: &mut ReplicaPair, schedule: &Schedule) -> Vec<Violation> {
    let prefix = next_prefix(replicas.is_sharded());
    let mut violations = Violations::default();
    let feed_start = replicas.feed_end().await;
    let mut run = Run::new(replicas, prefix);
    run.prepare(schedule).await;
    for step in &schedule.0 {
        run.step(step).await;
    }
    if let Err(error) = run.finish().await {
        violations.add(ViolationKind::Stuck, error);
    }
    let deadline = Instant::now() + TIMEOUT;
    if !run.replicas.until_outbox_is_sent(deadline).await {
        violations.add(ViolationKind::Stuck, "the outbox is not sent");
    }
    let mut database = DatabaseState::read(&run.replicas.client, &run.record.prefix, feed_start).await;
    if run.replicas.is_sharded() {
        database.read_user_topics(&run.replicas.client, "public_shard_1", &run.record.prefix).await;
        database.derive_feed_from_logs();
    }
    // The lost database assigned feed positions to events that the current one does not have.
    if run.has_failed_over {
        database.derive_feed_from_logs();
    }
    while !database.is_feed_complete() && Instant::now() < deadline {
        sleep(Duration::from_millis(2)).await;
        database.read_feed(&run.replicas.client, &run.record.prefix).await;
    }
    // Events that readers received from the lost database cannot be compared with the current one.
    if run.has_failed_over {
        run.readers.clear();
    }
    while !run.readers.values().all(|reader| is_complete(&run.record, &database, &reader.transcript()))
        && Instant::now() < deadline
    {
        sleep(Duration::from_millis(2)).await;
    }
    let transcripts = || run.replicas.feed_transcripts(feed_start);
    while !transcripts().iter().all(|transcript| transcript.is_complete(&database)) && Instant::now() < deadline {
        sleep(Duration::from_millis(2)).await;
    }
    if !run.has_failed_over {
        for transcript in transcripts() {
            transcript.check(&database, &mut violations);
        }
    }
    check_database(&run.record, &database, &mut violations);
    for (number, reader) in &run.readers {
        check_reader(&run.record, &database, *number, &reader.transcript(), &mut violations);
    }
    check_earlier_reads(&run.record, &database, &mut violations);
    check_final_reads(&mut run, &database, &mut violations).await;
    if run.has_killed {
        check_presence(&run, &mut violations).await;
    }
    violations.0.sort();
    violations.0.dedup();
    violations.0
}

/// Checks that every online user has a presence registration that has not expired, or one at a replica whose lease has not expired.
async fn check_presence(run: &Run<'_>, violations: &mut Violations) {
    let query = "select topic, user_id from presence_states
                 where online and (starts_with(topic, 'ride/' || $1) or starts_with(user_id, $1)) and not exists (
                     select from presence
                     where presence.topic = presence_states.topic and presence.user_id = presence_states.user_id
                         and (exists (select from replicas where replicas.replica = presence.replica
                                          and replicas.expires_at > clock_timestamp())
                              or (to_jsonb(presence) ->> 'expires_at')::timestamptz > clock_timestamp()))";
    // The next heartbeat of the other replica removes expired registrations. This allows for two.
    let deadline = Instant::now() + Duration::from_secs(12);
    loop {
        let rows = run.replicas.client.query(query, &[&run.record.prefix]).await.unwrap();
        let Some(row) = rows.first() else { return };
        if Instant::now() > deadline {
            let (topic, user): (String, String) = (row.get(0), row.get(1));
            return violations.add(ViolationKind::Online, format!("{user} stays online on {topic}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A schedule that has failed.
struct Failure {
    seed: u64,
    schedule: Schedule,
    violations: Vec<Violation>,
}

/// The state that the workers share.
#[derive(Default)]
struct Work {
    /// The next seed, for pairs of replicas with one shard and with two.
    next: [AtomicU64; 2],
    is_done: AtomicBool,
    failures: Mutex<Vec<Failure>>,
    /// For each kind of violation: the first seed that has found it, and the number of schedules.
    found: Mutex<BTreeMap<ViolationKind, (u64, u64)>>,
}

impl Work {
    fn record(&self, seed: u64, violations: &[Violation]) {
        let mut found = self.found.lock().unwrap();
        let kinds: std::collections::BTreeSet<_> = violations.iter().map(|violation| violation.kind).collect();
        for kind in kinds {
            let (first, count) = found.entry(kind).or_insert((seed, 0));
            *first = seed.min(*first);
            *count += 1;
        }
    }
}

async fn work(shared: &Work, last: u64, is_survey: bool, on_shards: bool) {
    let most_failures = if is_survey { usize::MAX } else { MAX_FAILURES };
    let mut replicas = ReplicaPair::open(on_shards).await;
    while !shared.is_done.load(Ordering::Relaxed) {
        let seed = shared.next[usize::from(on_shards)].fetch_add(1, Ordering::Relaxed);
        if seed > last {
            break;
        }
        if is_sharded(seed) != on_shards {
            continue;
        }
        let schedule = generate::generate(seed);
        let violations = run(&mut replicas, &schedule).await;
        shared.record(seed, &violations);
        if violations.is_empty() {
            continue;
        }
        let is_stuck = violations.iter().any(|violation| violation.kind == ViolationKind::Stuck);
        if is_stuck {
            replicas = ReplicaPair::open(on_shards).await;
        }
        let enough = shared.failures.lock().unwrap().len() >= most_failures;
        let (schedule, violations) = match !is_survey && !enough {
            true => shrink::shrink(&mut replicas, schedule, violations, run).await,
            false => (schedule, violations),
        };
        let mut failures = shared.failures.lock().unwrap();
        failures.push(Failure { seed, schedule, violations });
        shared.is_done.store(failures.len() >= most_failures, Ordering::Relaxed);
    }
}

/// Runs a future in a runtime of its own.
fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn print(failure: &Failure) {
    eprintln!("--- schedule {}", failure.seed);
    failure.violations.iter().for_each(|violation| eprintln!("{violation}"));
    let shards = if is_sharded(failure.seed) { "RIDEWIRE_SCHEDULE_ON_SHARDS=1 " } else { "" };
    eprintln!("{shards}RIDEWIRE_SCHEDULE='{}'", failure.schedule);
}

/// Runs the schedule or seed from the environment. A failing schedule from a seed is shrunk.
async fn replay(text: &str) -> Vec<Violation> {
    let seed = text.parse().ok();
    let schedule = match seed {
        Some(seed) => generate::generate(seed),
        None => Schedule::parse(text).unwrap_or_else(|| panic!("not a schedule: {text}")),
    };
    eprintln!("{schedule}");
    let on_shards = seed.map_or_else(|| std::env::var_os("RIDEWIRE_SCHEDULE_ON_SHARDS").is_some(), is_sharded);
    let mut replicas = ReplicaPair::open(on_shards).await;
    let violations = run(&mut replicas, &schedule).await;
    violations.iter().for_each(|violation| eprintln!("{violation}"));
    if let Some(seed) = seed.filter(|_| !violations.is_empty()) {
        let (schedule, violations) = shrink::shrink(&mut replicas, schedule, violations.clone(), run).await;
        print(&Failure { seed, schedule, violations });
    }
    violations
}

#[test]
fn the_guarantees_hold_in_every_schedule() {
    if let Ok(text) = std::env::var("RIDEWIRE_SCHEDULE") {
        let violations = in_runtime(replay(&text));
        assert!(violations.is_empty(), "the guarantees are broken");
        return;
    }
    let soak = std::env::var_os("RIDEWIRE_SOAK").is_some();
    let schedules = number("RIDEWIRE_SCHEDULES").unwrap_or(if soak { SCHEDULES_OF_SOAK } else { SCHEDULES });
    let first = number("RIDEWIRE_SCHEDULES_FROM").unwrap_or(1);
    let is_survey = std::env::var_os("RIDEWIRE_SCHEDULES_SURVEY").is_some();
    let shared = Work { next: [AtomicU64::new(first), AtomicU64::new(first)], ..Work::default() };
    std::thread::scope(|scope| {
        let (shared, last) = (&shared, first + schedules - 1);
        for lane in 0..number("RIDEWIRE_SCHEDULE_LANES").unwrap_or(PAIRS).max(2) {
            scope.spawn(move || in_runtime(work(shared, last, is_survey, is_sharded(lane))));
        }
    });
    let failures = shared.failures.into_inner().unwrap();
    failures.iter().for_each(print);
    for (kind, (seed, count)) in shared.found.into_inner().unwrap() {
        eprintln!("{kind:?}: first found by {seed}, by {count} of {schedules} schedules in all");
    }
    assert!(failures.is_empty(), "the guarantees are broken in {} schedules", failures.len());
}

#[test]
fn a_printed_schedule_parses_to_the_same_schedule() {
    for seed in 0..2_000 {
        let schedule = generate::generate(seed);
        assert_eq!(Schedule::parse(&schedule.to_string()), Some(schedule));
    }
}
