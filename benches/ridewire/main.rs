//! Benchmarks of a Ridewire server, compared to the same Postgres without one and to other servers, on the same machine in
//! the same run.
//!
//! ```text
//! cargo bench --bench ridewire                          everything; writes docs/reference/performance.md
//! cargo bench --bench ridewire -- --quick               a short smoke test; writes nothing
//! cargo bench --bench ridewire -- sends latency     only these scenarios; writes nothing
//! cargo bench --bench ridewire -- sends --rounds=1  fewer rounds
//! cargo bench --bench ridewire -- history           also writes docs/reference/plans.md
//! ```
//!
//! Postgres is private with fsync on, the servers are processes of the release build, and this process is all clients. The
//! speed of a shared machine varies. So Ridewire and its peers alternate, and the result is the median of the per-round ratios.
//!
//! Each scenario is a module that returns its tables. The report prints them.

mod baseline;
mod client;
mod closed_loop;
mod comparison;
mod fanout;
mod feed;
mod fixed_rate;
mod history;
mod hubs;
mod latency;
mod locations;
mod memory;
mod moderation;
mod notifications;
mod open_loop;
mod peers;
mod pgbench;
mod plot;
mod polled_streams;
mod polls;
mod process;
mod reconnect_storm;
mod replicas;
mod report;
mod sends;
mod server;
mod slow_readers;
mod socket_timestamps;
mod statements;
mod stats;
mod streams;
mod table;
mod testbed;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::LocalBoxFuture;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use self::report::Report;
use self::table::Table;
use self::testbed::Testbed;

/// The timeout of a whole run.
const TIMEOUT: Duration = Duration::from_secs(2_700);

/// Runs a scenario and returns its tables.
type Scenario = for<'a> fn(&'a Parameters, &'a Testbed) -> LocalBoxFuture<'a, anyhow::Result<Vec<Table>>>;

/// In the order of the report.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("sends", |parameters, testbed| Box::pin(sends::run(parameters, testbed))),
    ("latency", |parameters, testbed| Box::pin(latency::run(parameters, testbed))),
    ("slow", |parameters, testbed| Box::pin(slow_readers::run(parameters, testbed))),
    ("memory", |parameters, testbed| Box::pin(memory::run(parameters, testbed))),
    ("fanout", |parameters, testbed| Box::pin(fanout::run(parameters, testbed))),
    ("paced", |parameters, testbed| Box::pin(fixed_rate::run(parameters, testbed))),
    ("storm", |parameters, testbed| Box::pin(reconnect_storm::run(parameters, testbed))),
    ("hubs", |parameters, testbed| Box::pin(hubs::run(parameters, testbed))),
    ("history", |parameters, testbed| Box::pin(history::run(parameters, testbed))),
    ("replicas", |parameters, testbed| Box::pin(replicas::run(parameters, testbed))),
    ("positions", |parameters, testbed| Box::pin(locations::run(parameters, testbed))),
    ("notifications", |parameters, testbed| Box::pin(notifications::run(parameters, testbed))),
    ("polls", |parameters, testbed| Box::pin(polls::run(parameters, testbed))),
    ("feed", |parameters, testbed| Box::pin(feed::run(parameters, testbed))),
    ("moderation", |parameters, testbed| Box::pin(moderation::run(parameters, testbed))),
];

/// The parameters of a run.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(crate) quick: bool,
    /// The selected scenarios. All of them if empty.
    only: Vec<String>,
    pub(crate) rounds: usize,
    /// The warm-up time of each measurement.
    pub(crate) warmup: Duration,
    /// The measured time of each measurement.
    pub(crate) duration: Duration,
    /// Numbers of idle streams to open, in steps.
    pub(crate) idle: Vec<usize>,
    /// Subscribers of one ride.
    pub(crate) subscribers: usize,
    /// The number of streams that reconnect at once.
    pub(crate) storm: usize,
    /// The limit of open files of this process and its children.
    pub(crate) file_limit: usize,
}

impl Parameters {
    fn from_arguments(arguments: &[String]) -> Self {
        let quick = arguments.iter().any(|argument| argument == "--quick")
            || std::env::var("RIDEWIRE_BENCH").is_ok_and(|value| value == "quick");
        let only = arguments.iter().filter(|argument| !argument.starts_with('-')).cloned().collect();
        let (rounds, warmup, duration, idle, subscribers, storm) = match quick {
            true => (1, 300, 1_000, vec![200], 100, 200),
            false => (5, 1_000, 4_000, vec![2_000, 9_000], 1_000, 9_000),
        };
        let requested = arguments.iter().find_map(|argument| argument.strip_prefix("--rounds=")?.parse().ok());
        let rounds = requested.unwrap_or(rounds);
        let (warmup, duration) = (Duration::from_millis(warmup), Duration::from_millis(duration));
        Self {
            quick,
            only,
            rounds,
            warmup,
            duration,
            idle,
            subscribers,
            storm,
            file_limit: process::raise_file_limit(),
        }
    }

    /// Returns how many messages become due at 1,000 a second, in the warm-up and the measured time.
    pub(crate) fn messages(&self) -> anyhow::Result<u64> {
        Ok(u64::try_from((self.warmup + self.duration).as_millis() / open_loop::INTERVAL.as_millis())?)
    }

    fn includes(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == scenario)
    }
}

/// Prints to standard output.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout();
    // A closed pipe is not an error of the measurement.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this program too, but without `--bench`.
    if !arguments.iter().any(|argument| argument == "--bench") {
        print("to measure: cargo bench --bench ridewire");
        return Ok(());
    }
    // One thread: the other cores are for the server and Postgres.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Parameters::from_arguments(&arguments)))
}

async fn run(parameters: Parameters) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let testbed = Testbed::start().await?;
    let measured = tokio::select! {
        measured = timeout(TIMEOUT, measure(&parameters, &testbed)) => measured.context("the run timed out"),
        _ = ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
    };
    // Postgres is stopped and its files are deleted in any case.
    testbed.stop().await?;
    let report = measured??;
    print(&report.text());
    if parameters.quick || !parameters.only.is_empty() {
        return Ok(());
    }
    report.write()
}

async fn measure(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Report> {
    let mut report = Report::begin(testbed).await?;
    print(&report.heading());
    for (name, run) in SCENARIOS {
        if parameters.includes(name) {
            report.tables.extend(run(parameters, testbed).await.context(*name)?);
        }
    }
    if report.tables.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        bail!("no such scenario; available are {}", names.join(", "));
    }
    Ok(report)
}
