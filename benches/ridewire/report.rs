//! The figures as one table, for people and for docs/performance.md.

use std::path::Path;

use anyhow::Context;

use crate::latency::{self, Latency};
use crate::memory::Idle;
use crate::platform::Platform;
use crate::process::{self, Cpu};
use crate::sends::{self, Sent};
use crate::slow;
use crate::stats::median;

/// What stands between these in docs/performance.md is written by the run, the rest by people.
const BEGIN: &str = "<!-- figures: written by the run -->\n";
const END: &str = "<!-- end of figures -->\n";

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    machine: String,
    pub(crate) sends: Vec<sends::Round>,
    pub(crate) latency: Vec<latency::Round>,
    pub(crate) slow: Vec<slow::Round>,
    pub(crate) memory: Vec<Idle>,
}

impl Report {
    pub(crate) async fn begin(platform: &Platform) -> anyhow::Result<Self> {
        let version = platform.connect().await?.query_one("show server_version", &[]).await?;
        let version: String = version.try_get(0)?;
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        let machine = format!(
            "{}; PostgreSQL {version}, fsync on; load average {} at the start",
            process::hardware(),
            process::load()
        );
        Ok(Self { machine, ..Self::default() })
    }

    pub(crate) fn heading(&self) -> String {
        format!("on: {}", self.machine)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.latency.is_empty() && self.slow.is_empty() && self.memory.is_empty()
    }

    /// Markdown. A ratio is the median of the rounds' own ratios, so it need not be that of the medians beside it.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![
            format!("{}.\n", self.machine),
            "| | Ridewire | Postgres alone | ratio | wanted |".to_owned(),
            "|---|---:|---:|---:|---:|".to_owned(),
        ];
        if !self.sends.is_empty() {
            self.sends_rows(&mut lines);
        }
        if !self.latency.is_empty() {
            self.latency_rows(&mut lines);
        }
        for idle in &self.memory {
            lines.push(format!(
                "| memory of an idle stream, of {} | {:.1} kB ({:.0} MB in all) | | | |",
                idle.streams, idle.each, idle.all
            ));
        }
        if !self.slow.is_empty() {
            self.slow_rows(&mut lines);
        }
        if !self.sends.is_empty() {
            self.cpu_rows(&mut lines);
        }
        lines.join("\n") + "\n"
    }

    fn sends_rows(&self, lines: &mut Vec<String>) {
        type Figure = fn(&sends::Round) -> f64;
        let middle = |figure: Figure| median(self.sends.iter().map(figure));
        let mut row = |what: &str, ours: Figure, peer: Figure, wanted: &str| {
            let ratio = median(self.sends.iter().map(|round| ours(round) / peer(round)));
            lines.push(format!("| {what} | {:.0} | {:.0} | {ratio:.2} × | {wanted} |", middle(ours), middle(peer)));
        };
        let (with, alone): (Figure, Figure) = (|round| round.with_streams.per_second, |round| round.alone.per_second);
        let (notify, insert): (Figure, Figure) = (|round| round.notify.per_second, |round| round.insert.per_second);
        row("durable sends/s, two streams a ride; beside: insert + NOTIFY", with, notify, "≥ 3 ×");
        row("durable sends/s, no streams; beside: insert + NOTIFY", alone, notify, "≥ 3 ×");
        row("durable sends/s, two streams a ride; beside: insert alone", with, insert, "");
        row("durable sends/s, no streams; beside: insert alone", alone, insert, "");
        for (what, sent) in [
            ("two streams a ride", (|round| &round.with_streams) as fn(&sends::Round) -> &Sent),
            ("no streams", |round| &round.alone),
        ] {
            let p50 = median(self.sends.iter().map(|round| sent(round).p50));
            let p99 = median(self.sends.iter().map(|round| sent(round).p99));
            lines.push(format!("| a send at that load, {what}, p50 / p99 | {p50:.1} / {p99:.1} ms | | | |"));
        }
    }

    fn latency_rows(&self, lines: &mut Vec<String>) {
        type Figure = fn(&latency::Round) -> Latency;
        let mut row = |what: &str, ours: Figure, quantile: fn(Latency) -> f64, wanted: &str| {
            let middle = |figure: Figure| median(self.latency.iter().map(|round| quantile(figure(round))));
            let floor: Figure = |round| round.floor;
            let ratio = median(self.latency.iter().map(|round| quantile(ours(round)) / quantile(floor(round))));
            lines.push(format!(
                "| {what} | {:.2} ms | {:.2} ms | {ratio:.2} × | {wanted} |",
                middle(ours),
                middle(floor)
            ));
        };
        row("POST to frame, other replica, 1,000/s, p50", |round| round.other, |latency| latency.p50, "≤ 3 ×");
        row("POST to frame, other replica, 1,000/s, p99", |round| round.other, |latency| latency.p99, "");
        row("POST to frame, same replica, 1,000/s, p50", |round| round.same, |latency| latency.p50, "");
        row("POST to frame, same replica, 1,000/s, p99", |round| round.same, |latency| latency.p99, "");
    }

    fn slow_rows(&self, lines: &mut Vec<String>) {
        lines.push(
            "\n| 500 streams at 1,000 messages/s of 3.5 kB | beside 500 that do not read | alone | ratio | wanted |"
                .to_owned(),
        );
        lines.push("|---|---:|---:|---:|---:|".to_owned());
        type Figure = fn(&slow::Side) -> f64;
        let mut row = |what: &str, unit: &str, figure: Figure, wanted: &str| {
            let ratio = median(self.slow.iter().map(|round| figure(&round.beside) / figure(&round.alone)));
            let beside = median(self.slow.iter().map(|round| figure(&round.beside)));
            let alone = median(self.slow.iter().map(|round| figure(&round.alone)));
            lines.push(format!("| {what} | {beside:.2} {unit} | {alone:.2} {unit} | {ratio:.2} × | {wanted} |"));
        };
        row("POST to frame, p50", "ms", |side| side.latency.p50, "");
        row("POST to frame, p99", "ms", |side| side.latency.p99, "≤ 1.2 ×");
        row("memory of the server in all", "MB", |side| side.memory, "");
    }

    fn cpu_rows(&self, lines: &mut Vec<String>) {
        lines.push("\n| cores busy | server | Postgres | generator | in all | saturated |".to_owned());
        lines.push("|---|---:|---:|---:|---:|---|".to_owned());
        for (what, cpu) in [
            ("sends, two streams a ride", (|round| round.with_streams.cpu) as fn(&sends::Round) -> Cpu),
            ("sends, no streams", |round| round.alone.cpu),
            ("pgbench, insert + NOTIFY", |round| round.notify.cpu),
            ("pgbench, insert", |round| round.insert.cpu),
        ] {
            let middle = |part: fn(Cpu) -> f64| median(self.sends.iter().map(|round| part(cpu(round))));
            let (server, postgres) = (middle(|cpu| cpu.server), middle(|cpu| cpu.postgres));
            let (generator, total) = (middle(|cpu| cpu.generator), middle(Cpu::total));
            let saturated = saturated(total, generator);
            lines.push(format!("| {what} | {server:.2} | {postgres:.2} | {generator:.2} | {total:.2} | {saturated} |"));
        }
    }

    /// Replaces the figures in docs/performance.md.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        let page = std::fs::read_to_string(&path).unwrap_or_else(|_| format!("# Performance\n\n{BEGIN}{END}"));
        let (before, rest) = page.split_once(BEGIN).context("no place for the figures")?;
        let (_, after) = rest.split_once(END).context("no end of the figures")?;
        let figures = format!("{BEGIN}\n`cargo bench --bench ridewire` on: {}\n{END}", self.text());
        std::fs::write(&path, [before, &figures, after].concat())?;
        Ok(())
    }
}

/// What kept it from being faster.
fn saturated(total: f64, generator: f64) -> &'static str {
    if total > 0.9 * process::cores() as f64 {
        "all cores"
    } else if generator > 0.9 {
        "the generator"
    } else {
        "none: it waits for the disk, for locks, or for others on this machine"
    }
}
