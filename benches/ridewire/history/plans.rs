//! How Postgres carries out the statements on a short and on a long log: prepared as the server prepares them, with its
//! settings, run once to have their pages at hand, then looked at with `explain (analyze, buffers)`, and rolled back.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use ridewire::store::SETTINGS;
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::calls::{Call, Sample};
use super::fill::size;
use crate::platform::Platform;
use crate::report;
use crate::table::Table;

/// What a statement that does not name one of these need not be looked at for.
const TABLES: [&str; 7] = ["messages", "events", "topics", "rides", "participants", "receipts", "ride_snapshots"];

/// More pages than this on the long log, as a multiple of those on the short one, is not flat: a level more in each index
/// that is descended.
const FLAT: f64 = 2.0;

/// The plans of all statements.
#[derive(Debug)]
pub(super) struct Plans {
    sizes: [usize; 2],
    looked: Vec<(String, &'static str, Look, Look)>,
}

/// One plan as it was carried out.
#[derive(Debug, Default)]
struct Look {
    buffers: u64,
    millis: f64,
    /// The indexes, and tables read without one.
    ways: BTreeSet<String>,
}

pub(super) async fn table(small: &Platform, large: &Platform, sizes: [usize; 2]) -> anyhow::Result<Plans> {
    let (few, many) = (small.connect().await?, large.connect().await?);
    let samples = (Sample::of(&few, sizes[0]).await?, Sample::of(&many, sizes[1]).await?);
    few.batch_execute(SETTINGS).await?;
    many.batch_execute(SETTINGS).await?;
    let mut looked = Vec::new();
    for (name, statement) in statements()? {
        let (Some(one), Some(other)) = (samples.0.call(&name), samples.1.call(&name)) else {
            let words: BTreeSet<&str> = statement.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let idle = !TABLES.iter().any(|table| words.contains(table));
            // Presence looks a log's end up by its name, and is not about the log.
            ensure!(idle || name.starts_with("presence/") || name.starts_with("topics/"), "how is {name} called?");
            continue;
        };
        let short = look(&few, &statement, &one).await.with_context(|| name.clone())?;
        let long = look(&many, &statement, &other).await.with_context(|| name.clone())?;
        looked.push((name, one.what, short, long));
    }
    Ok(Plans { sizes, looked })
}

/// The files below `sql/` without the migrations, by name, and their text without comments.
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

async fn look(client: &Client, statement: &str, called: &Call) -> anyhow::Result<Look> {
    client.batch_execute(&format!("prepare looked_at as {statement}")).await?;
    let call = format!("execute looked_at ({})", called.arguments.join(", "));
    let mut look = Look::default();
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
        look = Look { millis: plan["Execution Time"].as_f64().context("no time")?, ..Look::default() };
        look.buffers = pages(&plan["Plan"]);
        read(&plan["Plan"], &mut look);
    }
    client.batch_execute("deallocate looked_at").await?;
    Ok(look)
}

/// The pages that a plan touched: a node counts those below it, but not those of parts that write beside it.
fn pages(plan: &Value) -> u64 {
    let below = plan["Plans"].as_array().into_iter().flatten();
    own_pages(plan) + below.map(written_beside).sum::<u64>()
}

fn written_beside(node: &Value) -> u64 {
    let own = if node["Node Type"] == "ModifyTable" { own_pages(node) } else { 0 };
    own + node["Plans"].as_array().into_iter().flatten().map(written_beside).sum::<u64>()
}

fn own_pages(node: &Value) -> u64 {
    let count = |key: &str| node[key].as_u64().unwrap_or(0);
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

/// How a plan went to its tables.
fn read(node: &Value, look: &mut Look) {
    let count = |key: &str| node[key].as_u64().unwrap_or(0);
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    let ran = count("Actual Loops") > 0;
    match text("Node Type") {
        "Seq Scan" if ran => drop(look.ways.insert(format!("**all of {}**", text("Relation Name")))),
        kind @ ("Index Scan" | "Index Only Scan" | "Bitmap Index Scan") if ran => {
            let only = if kind == "Index Only Scan" { " (only)" } else { "" };
            look.ways.insert(format!("{}{only}", text("Index Name")));
        }
        _ => {}
    }
    node["Plans"].as_array().into_iter().flatten().for_each(|child| read(child, look));
}

impl Plans {
    fn is_flat(&self, short: &Look, long: &Look) -> bool {
        long.buffers as f64 <= FLAT * short.buffers.max(4) as f64
    }

    /// Of all statements, in a line for docs/performance.md.
    pub(super) fn summary(&self) -> Table {
        let (few, many) = (size(self.sizes[0]), size(self.sizes[1]));
        let mut table =
            Table::new("Plans, as the log grows", &["statements that look at rides or logs", "number", "wanted"]);
        let grown: Vec<_> = self
            .looked
            .iter()
            .filter(|(.., short, long)| !self.is_flat(short, long))
            .map(|(name, ..)| &**name)
            .collect();
        let whole = self.looked.iter().filter(|(.., long)| long.ways.iter().any(|way| way.starts_with('*'))).count();
        table.row(["in all; each is in [plans.md](plans.md)".to_owned(), self.looked.len().to_string()]);
        table.row(["that read a whole table".to_owned(), whole.to_string(), "0".to_owned()]);
        let which = if grown.is_empty() { String::new() } else { format!(": {}", grown.join(", ")) };
        table.row([
            format!("that touch more than twice the pages at {many} messages as at {few}{which}"),
            grown.len().to_string(),
            "0".to_owned(),
        ]);
        table
    }

    /// Replaces the figures in docs/plans.md.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let (few, many) = (size(self.sizes[0]), size(self.sizes[1]));
        let mut lines = vec![
            format!("| `sql/…` | called for | pages at {few} | pages at {many} | ms | by |"),
            "|---|---|---:|---:|---:|---|".to_owned(),
        ];
        for (name, what, short, long) in &self.looked {
            let ways: Vec<&str> = long.ways.iter().map(String::as_str).collect();
            lines.push(format!(
                "| `{name}` | {what} | {} | {} | {:.2} | {} |",
                short.buffers,
                long.buffers,
                long.millis,
                ways.join(", ")
            ));
        }
        report::replace("plans.md", &(lines.join("\n") + "\n"))
    }
}
