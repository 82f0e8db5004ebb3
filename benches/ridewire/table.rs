//! What a scenario reports: tables of text, each figure with its unit and its peer.

use crate::plot::Plot;
use crate::process::{self, Cpu};
use crate::stats::median;

/// A table of the report. Its first column says what a row is; the others are figures.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The same as a picture, where it has one.
    pub(crate) plot: Option<Plot>,
}

/// What is taken from a round, in the unit of its row.
pub(crate) type Figure<R> = fn(&R) -> f64;

impl Table {
    pub(crate) fn new(title: &str, header: &[&str]) -> Self {
        let header = header.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.to_owned(), header, rows: Vec::new(), plot: None }
    }

    /// One row; cells that are left out are empty.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Has a picture beneath it.
    pub(crate) fn plot(&mut self, plot: Plot) {
        self.plot = Some(plot);
    }

    /// A row of ours, the peer's and the ratio: medians over the rounds. That of the ratio is of the rounds' own
    /// ratios, so it need not be that of the medians beside it.
    pub(crate) fn beside<R>(
        &mut self,
        what: &str,
        rounds: &[R],
        (ours, peer): (impl Fn(&R) -> f64, impl Fn(&R) -> f64),
        unit: impl Fn(f64) -> String,
        wanted: &str,
    ) {
        let middle = |figure: &dyn Fn(&R) -> f64| unit(median(rounds.iter().map(figure)));
        let ratio = median(rounds.iter().map(|round| ours(round) / peer(round)));
        self.row([what.to_owned(), middle(&ours), middle(&peer), format!("{ratio:.2} ×"), wanted.to_owned()]);
    }

    /// How many cores were busy with what, and what kept it from being faster: medians over the rounds.
    pub(crate) fn busy(title: &str, rows: &[(&str, Vec<Cpu>)]) -> Self {
        let header = ["cores busy", "server", "Postgres", "generator", "in all", "saturated"];
        let mut table = Self::new(title, &header);
        for (what, rounds) in rows {
            let middle = |part: fn(Cpu) -> f64| median(rounds.iter().map(|cpu| part(*cpu)));
            let (total, generator) = (middle(Cpu::total), middle(|cpu| cpu.generator));
            let cores = [middle(|cpu| cpu.server), middle(|cpu| cpu.postgres), generator, total];
            let cells = cores.iter().map(|cores| format!("{cores:.2}"));
            table.row(
                std::iter::once((*what).to_owned()).chain(cells).chain([process::saturated(total, generator).into()]),
            );
        }
        table
    }

    /// Markdown.
    pub(crate) fn text(&self) -> String {
        let line = |cells: &[String]| {
            let empty = String::new();
            let cells = (0..self.header.len()).map(|column| cells.get(column).unwrap_or(&empty).as_str());
            format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = format!("|---|{}", "---:|".repeat(self.header.len().saturating_sub(1)));
        let rows = self.rows.iter().map(|row| line(row));
        let plot = self.plot.iter().map(|plot| format!("\n{}", plot.link()));
        let lines: Vec<String> =
            [format!("### {}\n", self.title), line(&self.header), rule].into_iter().chain(rows).chain(plot).collect();
        lines.join("\n") + "\n"
    }
}
