//! The statements that Postgres has executed, from `pg_stat_statements`.

use std::collections::BTreeMap;

use anyhow::Context;
use ridewire::embedded::{EmbeddedPostgres, Options, StopMode};

use crate::table::Table;
use crate::testbed::Testbed;

/// The number of characters of a statement in the report.
const SHOWN: usize = 90;

/// Calls by statement, including those of transaction control. Empty if the extension is not available.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statements(BTreeMap<String, i64>);

impl Statements {
    /// Returns the calls since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (text, calls) in &mut self.0 {
            *calls -= before.0.get(text).unwrap_or(&0);
        }
        self.0.retain(|_, calls| *calls > 0);
        self
    }

    /// Returns the total number of calls, or NaN if none were counted.
    pub(crate) fn total(&self) -> f64 {
        if self.0.is_empty() { f64::NAN } else { self.0.values().sum::<i64>() as f64 }
    }

    /// Returns the most frequent statements as a table.
    pub(crate) fn table(&self, title: &str) -> Table {
        let mut table = Table::new(title, &["statement", "calls"]);
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, calls)| -**calls);
        for (text, calls) in all.into_iter().take(12) {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("--"));
            let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
            // An unescaped bar would end the table cell.
            let shown: String = words.join(" ").replace('|', "\\|").chars().take(SHOWN).collect();
            table.row([format!("`{shown}`"), calls.to_string()]);
        }
        table
    }
}

impl Testbed {
    /// Starts a test bed whose Postgres counts statements if the extension is available.
    pub(crate) async fn start_with_statement_counts() -> anyhow::Result<Self> {
        let mut testbed = Self::start().await?;
        let client = testbed.connect().await?;
        let query = "select from pg_available_extensions where name = 'pg_stat_statements'";
        if client.query_opt(query, &[]).await?.is_some() {
            client.batch_execute("alter system set shared_preload_libraries = 'pg_stat_statements'").await?;
            let data = testbed.directory().join("data");
            testbed.postgres.stop(StopMode::Fast).await?;
            testbed.postgres = EmbeddedPostgres::start(&data, Options::default()).await?;
            testbed.connect().await?.batch_execute("create extension pg_stat_statements").await?;
        }
        Ok(testbed)
    }

    /// Returns the statements executed so far.
    pub(crate) async fn statements(&self) -> anyhow::Result<Statements> {
        let client = self.connect().await?;
        if client.query_opt("select from pg_extension where extname = 'pg_stat_statements'", &[]).await?.is_none() {
            return Ok(Statements::default());
        }
        // Without the statements of this query itself.
        let query = "select query, sum(calls)::bigint from pg_stat_statements
                     where query not like '%pg_stat_statements%' group by query";
        let rows = client.query(query, &[]).await.context("pg_stat_statements")?;
        Ok(Statements(rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    }
}
