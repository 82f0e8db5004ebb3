//! The plans of all statements on a small and on a large log.
//!
//! Each statement is prepared with the server's settings, run to warm up the cache, measured with
//! `explain (analyze, buffers)`, and rolled back.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use ridewire::store::SETTINGS;
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::arguments::{Call, Sample};
use super::fill::size;
use crate::report;
use crate::table::Table;
use crate::testbed::Testbed;

/// Only statements that name one of these tables are measured.
const TABLES: [&str; 7] = ["messages", "events", "topics", "rides", "participants", "receipts", "ride_snapshots"];

/// The highest ratio of pages on the large log to pages on the small one that counts as constant. It allows one more level
/// in each index.
const MAX_GROWTH: f64 = 2.0;

/// The plans of all statements.
#[derive(Debug)]
pub(super) struct Plans {
    sizes: [usize; 2],
    plans: Vec<(String, &'static str, PlanStats, PlanStats)>,
}

/// The statistics of one executed plan.
#[derive(Debug, Default)]
struct PlanStats {
    buffers: u64,
    millis: f64,
    /// The indexes, and the tables that are read without one.
    access_paths: BTreeSet<String>,
}

pub(super) async fn table(small: &Testbed, large: &Testbed, sizes: [usize; 2]) -> anyhow::Result<Plans> {
    let (few, many) = (small.connect().await?, large.connect().await?);
    let samples = (Sample::of(&few, sizes[0]).await?, Sample::of(&many, sizes[1]).await?);
    few.batch_execute(SETTINGS).await?;
    many.batch_execute(SETTINGS).await?;
    let mut plans = Vec::new();
    for (name, statement) in statements()? {
        let (Some(one), Some(other)) = (samples.0.call(&name), samples.1.call(&name)) else {
            let words: BTreeSet<&str> = statement.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let idle = !TABLES.iter().any(|table| words.contains(table));
            // Presence reads the head of a log by its name, which does not depend on the size of the log.
            ensure!(idle || name.starts_with("presence/") || name.starts_with("topics/"), "no arguments for {name}");
            continue;
        };
        let short = explain(&few, &statement, &one).await.with_context(|| name.clone())?;
        let long = explain(&many, &statement, &other).await.with_context(|| name.clone())?;
        plans.push((name, one.what, short, long));
    }
    Ok(Plans { sizes, plans })
}

/// Returns the files below `sql/` without the migrations, by name, and their text without comments.
fn statements() -> anyhow::Result<Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut found = Vec::new();
    for directory in std::fs::read_dir(&root)? {
        let directory = directory?.path();
        if directory.ends_with("migrations") {
            continue;
        }
        for file in std::fs::read_dir(&directory)? {
            let file = file?.path();
            let name = file.strip_prefix(&root)?.to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&file)?;
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
            found.push((name, code.join("\n")));
        }
    }
    found.sort();
    Ok(found)
}

async fn explain(client: &Client, statement: &str, called: &Call) -> anyhow::Result<PlanStats> {
    client.batch_execute(&format!("prepare measured as {statement}")).await?;
    let arguments = called.arguments.join(", ");
    let call =
        if arguments.is_empty() { "execute measured".to_owned() } else { format!("execute measured ({arguments})") };
    let mut explain = PlanStats::default();
    for _ in 0..3 {
        client.batch_execute(&format!("begin; {}", called.before.as_deref().unwrap_or_default())).await?;
        let answer = client.simple_query(&format!("explain (analyze, buffers, format json) {call}")).await?;
        client.batch_execute("rollback").await?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let plan: Value = serde_json::from_str(row.context("no plan")?)?;
        let plan = plan.get(0).context("no plan")?;
        explain = PlanStats { millis: plan["Execution Time"].as_f64().context("no time")?, ..PlanStats::default() };
        explain.buffers = pages(&plan["Plan"]);
        collect_access_paths(&plan["Plan"], &mut explain);
    }
    client.batch_execute("deallocate measured").await?;
    Ok(explain)
}

/// Returns the pages of a plan. A node includes its children, but not the data-modifying parts of a `with` query.
fn pages(plan: &Value) -> u64 {
    let below = plan["Plans"].as_array().into_iter().flatten();
    own_pages(plan) + below.map(pages_of_modifying_nodes).sum::<u64>()
}

fn pages_of_modifying_nodes(node: &Value) -> u64 {
    let own = if node["Node Type"] == "ModifyTable" { own_pages(node) } else { 0 };
    own + node["Plans"].as_array().into_iter().flatten().map(pages_of_modifying_nodes).sum::<u64>()
}

fn own_pages(node: &Value) -> u64 {
    let count = |key: &str| node[key].as_u64().unwrap_or(0);
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

/// Collects how a plan accesses its tables.
fn collect_access_paths(node: &Value, explain: &mut PlanStats) {
    let count = |key: &str| node[key].as_u64().unwrap_or(0);
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    let ran = count("Actual Loops") > 0;
    match text("Node Type") {
        "Seq Scan" if ran => drop(explain.access_paths.insert(format!("**all of {}**", text("Relation Name")))),
        kind @ ("Index Scan" | "Index Only Scan" | "Bitmap Index Scan") if ran => {
            let only = if kind == "Index Only Scan" { " (only)" } else { "" };
            explain.access_paths.insert(format!("{}{only}", text("Index Name")));
        }
        _ => {}
    }
    node["Plans"].as_array().into_iter().flatten().for_each(|child| collect_access_paths(child, explain));
}

impl Plans {
    fn is_constant(&self, short: &PlanStats, long: &PlanStats) -> bool {
        long.buffers as f64 <= MAX_GROWTH * short.buffers.max(4) as f64
    }

    /// Returns a summary of all plans for docs/reference/performance.md.
    pub(super) fn summary(&self) -> Table {
        let (few, many) = (size(self.sizes[0]), size(self.sizes[1]));
        let mut table =
            Table::new("Plans, as the log grows", &["statements that read rides or logs", "number", "target"]);
        let grown: Vec<_> = self
            .plans
            .iter()
            .filter(|(.., short, long)| !self.is_constant(short, long))
            .map(|(name, ..)| &**name)
            .collect();
        let whole =
            self.plans.iter().filter(|(.., long)| long.access_paths.iter().any(|way| way.starts_with('*'))).count();
        table.row(["total; details are in [plans.md](plans.md)".to_owned(), self.plans.len().to_string()]);
        table.row(["that read a whole table".to_owned(), whole.to_string(), "0".to_owned()]);
        let which = if grown.is_empty() { String::new() } else { format!(": {}", grown.join(", ")) };
        table.row([
            format!("that touch more than twice the pages at {many} messages as at {few}{which}"),
            grown.len().to_string(),
            "0".to_owned(),
        ]);
        table
    }

    /// Replaces the figures in docs/reference/plans.md.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let (few, many) = (size(self.sizes[0]), size(self.sizes[1]));
        let mut lines = vec![
            format!("| `sql/…` | called for | pages at {few} | pages at {many} | ms | by |"),
            "|---|---|---:|---:|---:|---|".to_owned(),
        ];
        for (name, what, short, long) in &self.plans {
            let access_paths: Vec<&str> = long.access_paths.iter().map(String::as_str).collect();
            lines.push(format!(
                "| `{name}` | {what} | {} | {} | {:.2} | {} |",
                short.buffers,
                long.buffers,
                long.millis,
                access_paths.join(", ")
            ));
        }
        report::replace("reference/plans.md", &(lines.join("\n") + "\n"))
    }
}
