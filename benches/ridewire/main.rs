//! What a Ridewire server does, beside what the same Postgres does without one, on the same machine in the same
//! minutes.
//!
//! ```text
//! cargo bench --bench ridewire                          everything; writes docs/performance.md
//! cargo bench --bench ridewire -- --quick               a look whether it runs; writes nothing
//! cargo bench --bench ridewire -- [sends|latency|slow|memory]  some of it; writes nothing
//! ```
//!
//! A private Postgres with fsync on, real server processes of the release build, and this process as all of their
//! clients. A machine that others use is never as fast twice; so ours and the peer take turns, and what counts is
//! the median over the rounds of the ratio within a round.

mod client;
mod floor;
mod latency;
mod memory;
mod peer;
mod platform;
mod process;
mod report;
mod sends;
mod slow;
mod stats;
mod streams;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::ctrl_c;
use tokio::time::timeout;

use self::platform::Platform;
use self::report::Report;

/// A run that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(400);

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    only: Option<String>,
    pub(crate) rounds: usize,
    /// Of each measurement, before it counts.
    pub(crate) warm: Duration,
    /// Of each measurement.
    pub(crate) span: Duration,
    /// Idle streams to open, in steps.
    pub(crate) idle: Vec<usize>,
}

impl Plan {
    fn from_arguments(arguments: &[String]) -> Self {
        let quick = arguments.iter().any(|argument| argument == "--quick")
            || std::env::var("RIDEWIRE_BENCH").is_ok_and(|value| value == "quick");
        let only = arguments.iter().find(|argument| !argument.starts_with('-')).cloned();
        let (rounds, warm, span, idle) = match quick {
            true => (1, 300, 1_000, vec![200]),
            false => (5, 1_000, 4_000, vec![2_000, 9_000]),
        };
        let (warm, span) = (Duration::from_millis(warm), Duration::from_millis(span));
        Self { quick, only, rounds, warm, span, idle }
    }

    fn includes(&self, scenario: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == scenario)
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
    let limit = process::raise_file_limit();
    let platform = Platform::start().await?;
    let measured = tokio::select! {
        measured = timeout(PATIENCE, measure(&plan, &platform, limit)) => measured.context("this took too long"),
        _ = ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    // Postgres is stopped and its files are removed whatever happened.
    platform.stop().await?;
    let report = measured??;
    say(&report.text());
    if plan.quick || plan.only.is_some() {
        return Ok(());
    }
    report.write()
}

async fn measure(plan: &Plan, platform: &Platform, limit: usize) -> anyhow::Result<Report> {
    let mut report = Report::begin(platform).await?;
    say(&report.heading());
    if plan.includes("sends") {
        report.sends = sends::run(plan, platform).await.context("sends")?;
    }
    if plan.includes("latency") {
        report.latency = latency::run(plan, platform).await.context("latency")?;
    }
    if plan.includes("slow") {
        report.slow = slow::run(plan, platform).await.context("slow")?;
    }
    if plan.includes("memory") {
        report.memory = memory::run(plan, platform, limit).await.context("memory")?;
    }
    if report.is_empty() {
        bail!("there is no such scenario; there are sends, latency, slow and memory");
    }
    Ok(report)
}
