//! What a Ridewire server does, beside what the same Postgres does without one, on the same machine in the same
//! minutes.
//!
//! ```text
//! cargo bench --bench ridewire                          everything; writes docs/performance.md
//! cargo bench --bench ridewire -- --quick               a look whether it runs; writes nothing
//! cargo bench --bench ridewire -- sends latency     some scenarios of those below; writes nothing
//! cargo bench --bench ridewire -- sends --rounds=1  and fewer rounds
//! cargo bench --bench ridewire -- history           that one writes docs/plans.md, whole run or not
//! ```
//!
//! A private Postgres with fsync on, real server processes of the release build, and this process as all of their
//! clients. A machine that others use is never as fast twice; so ours and the peer take turns, and what counts is
//! the median over the rounds of the ratio within a round.
//!
//! Each scenario is a module, which returns its tables; the report prints them.

mod apart;
mod arrival;
mod client;
mod compared;
mod fanout;
mod feed;
mod floor;
mod history;
mod latency;
mod memory;
mod paced;
mod peers;
mod pgbench;
mod platform;
mod plot;
mod polls;
mod positions;
mod process;
mod replicas;
mod report;
mod senders;
mod sends;
mod server;
mod slow;
mod statements;
mod stats;
mod storm;
mod streams;
mod table;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::LocalBoxFuture;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use self::platform::Platform;
use self::report::Report;
use self::table::Table;

/// A run that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Measures, and says what it found.
type Scenario = for<'a> fn(&'a Plan, &'a Platform) -> LocalBoxFuture<'a, anyhow::Result<Vec<Table>>>;

/// In the order of the report.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("sends", |plan, platform| Box::pin(sends::run(plan, platform))),
    ("latency", |plan, platform| Box::pin(latency::run(plan, platform))),
    ("slow", |plan, platform| Box::pin(slow::run(plan, platform))),
    ("memory", |plan, platform| Box::pin(memory::run(plan, platform))),
    ("fanout", |plan, platform| Box::pin(fanout::run(plan, platform))),
    ("paced", |plan, platform| Box::pin(paced::run(plan, platform))),
    ("storm", |plan, platform| Box::pin(storm::run(plan, platform))),
    ("history", |plan, platform| Box::pin(history::run(plan, platform))),
    ("replicas", |plan, platform| Box::pin(replicas::run(plan, platform))),
    ("positions", |plan, platform| Box::pin(positions::run(plan, platform))),
    ("polls", |plan, platform| Box::pin(polls::run(plan, platform))),
    ("feed", |plan, platform| Box::pin(feed::run(plan, platform))),
];

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// The scenarios that were asked for; all, where none was.
    only: Vec<String>,
    pub(crate) rounds: usize,
    /// Of each measurement, before it counts.
    pub(crate) warm: Duration,
    /// Of each measurement.
    pub(crate) span: Duration,
    /// Idle streams to open, in steps.
    pub(crate) idle: Vec<usize>,
    /// Subscribers of one ride.
    pub(crate) followers: usize,
    /// Streams that come back at once.
    pub(crate) storm: usize,
    /// How many files this process and those it starts may have open.
    pub(crate) files: usize,
}

impl Plan {
    fn from_arguments(arguments: &[String]) -> Self {
        let quick = arguments.iter().any(|argument| argument == "--quick")
            || std::env::var("RIDEWIRE_BENCH").is_ok_and(|value| value == "quick");
        let only = arguments.iter().filter(|argument| !argument.starts_with('-')).cloned().collect();
        let (rounds, warm, span, idle, followers, storm) = match quick {
            true => (1, 300, 1_000, vec![200], 100, 200),
            false => (5, 1_000, 4_000, vec![2_000, 9_000], 1_000, 9_000),
        };
        let asked = arguments.iter().find_map(|argument| argument.strip_prefix("--rounds=")?.parse().ok());
        let rounds = asked.unwrap_or(rounds);
        let (warm, span) = (Duration::from_millis(warm), Duration::from_millis(span));
        Self { quick, only, rounds, warm, span, idle, followers, storm, files: process::raise_file_limit() }
    }

    fn includes(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == scenario)
    }
}

/// To standard output, which is what this program is for.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout();
    // A reader that has gone is no failure of the measurement.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this too, and wants no measurement.
    if !arguments.iter().any(|argument| argument == "--bench") {
        say("to measure: cargo bench --bench ridewire");
        return Ok(());
    }
    // One thread: the cores are for the server and Postgres.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Plan::from_arguments(&arguments)))
}

async fn run(plan: Plan) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let platform = Platform::start().await?;
    let measured = tokio::select! {
        measured = timeout(PATIENCE, measure(&plan, &platform)) => measured.context("this took too long"),
        _ = ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
    };
    // Postgres is stopped and its files are removed whatever happened.
    platform.stop().await?;
    let report = measured??;
    say(&report.text());
    if plan.quick || !plan.only.is_empty() {
        return Ok(());
    }
    report.write()
}

async fn measure(plan: &Plan, platform: &Platform) -> anyhow::Result<Report> {
    let mut report = Report::begin(platform).await?;
    say(&report.heading());
    for (name, run) in SCENARIOS {
        if plan.includes(name) {
            report.tables.extend(run(plan, platform).await.context(*name)?);
        }
    }
    if report.tables.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        bail!("there is no such scenario; there are {}", names.join(", "));
    }
    Ok(report)
}
