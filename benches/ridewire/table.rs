//! Markdown tables of the results.

use crate::plot::Plot;
use crate::process::{self, Cpu};
use crate::stats::median;

/// A table of the report. Its first column is a label, the others are figures.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The chart of the table, if any.
    pub(crate) plot: Option<Plot>,
}

/// Selects a figure of a round, in the unit of its row.
pub(crate) type Figure<R> = fn(&R) -> f64;

impl Table {
    pub(crate) fn new(title: &str, header: &[&str]) -> Self {
        let header = header.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.to_owned(), header, rows: Vec::new(), plot: None }
    }

    /// Adds a row. Missing cells are empty.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Adds a chart below the table.
    pub(crate) fn plot(&mut self, plot: Plot) {
        self.plot = Some(plot);
    }

    /// Adds a row with the medians of Ridewire and of the peer, and the median of the per-round ratios. The latter may differ
    /// from the ratio of the medians.
    pub(crate) fn ratio_row<R>(
        &mut self,
        what: &str,
        rounds: &[R],
        (ours, peer): (impl Fn(&R) -> f64, impl Fn(&R) -> f64),
        unit: impl Fn(f64) -> String,
        target: &str,
    ) {
        let median_of = |figure: &dyn Fn(&R) -> f64| unit(median(rounds.iter().map(figure)));
        let ratio = median(rounds.iter().map(|round| ours(round) / peer(round)));
        self.row([what.to_owned(), median_of(&ours), median_of(&peer), format!("{ratio:.2} ×"), target.to_owned()]);
    }

    /// Returns a table of the cores used by each component and of the bottleneck: medians over the rounds.
    pub(crate) fn cpu_table(title: &str, rows: &[(&str, Vec<Cpu>)]) -> Self {
        let header = ["CPU cores", "server", "Postgres", "generator", "total", "bottleneck"];
        let mut table = Self::new(title, &header);
        for (what, rounds) in rows {
            let median_of = |part: fn(Cpu) -> f64| median(rounds.iter().map(|cpu| part(*cpu)));
            let (total, generator) = (median_of(Cpu::total), median_of(|cpu| cpu.generator));
            let cores = [median_of(|cpu| cpu.server), median_of(|cpu| cpu.postgres), generator, total];
            let cells = cores.iter().map(|cores| format!("{cores:.2}"));
            table.row(
                std::iter::once((*what).to_owned()).chain(cells).chain([process::bottleneck(total, generator).into()]),
            );
        }
        table
    }

    /// Returns the table as Markdown.
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
