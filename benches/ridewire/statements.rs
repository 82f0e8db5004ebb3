//! Statements that Postgres has executed, as it counts them itself (`pg_stat_statements`).

use std::collections::BTreeMap;

use anyhow::Context;
use ridewire::embedded::{EmbeddedPostgres, Options, StopMode};

use crate::platform::Platform;
use crate::table::Table;

/// How much of a statement is shown.
const SHOWN: usize = 90;

/// How often each was executed, transactions' own among them. Nothing where Postgres does not count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statements(BTreeMap<String, i64>);

impl Statements {
    /// Those since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (text, calls) in &mut self.0 {
            *calls -= before.0.get(text).unwrap_or(&0);
        }
        self.0.retain(|_, calls| *calls > 0);
        self
    }

    /// How many in all; no number where none were counted.
    pub(crate) fn total(&self) -> f64 {
        if self.0.is_empty() { f64::NAN } else { self.0.values().sum::<i64>() as f64 }
    }

    /// What was executed most often.
    pub(crate) fn table(&self, title: &str) -> Table {
        let mut table = Table::new(title, &["statement", "calls"]);
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, calls)| -**calls);
        for (text, calls) in all.into_iter().take(12) {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("--"));
            let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
            // A bar would end the cell.
            let shown: String = words.join(" ").replace('|', "\\|").chars().take(SHOWN).collect();
            table.row([format!("`{shown}`"), calls.to_string()]);
        }
        table
    }
}

impl Platform {
    /// One whose Postgres counts statements, where it can.
    pub(crate) async fn counting() -> anyhow::Result<Self> {
        let mut platform = Self::start().await?;
        let client = platform.connect().await?;
        let query = "select from pg_available_extensions where name = 'pg_stat_statements'";
        if client.query_opt(query, &[]).await?.is_some() {
            client.batch_execute("alter system set shared_preload_libraries = 'pg_stat_statements'").await?;
            let data = platform.directory().join("data");
            platform.postgres.stop(StopMode::Fast).await?;
            platform.postgres = EmbeddedPostgres::start(&data, Options::default()).await?;
            platform.connect().await?.batch_execute("create extension pg_stat_statements").await?;
        }
        Ok(platform)
    }

    /// What has been executed so far.
    pub(crate) async fn statements(&self) -> anyhow::Result<Statements> {
        let client = self.connect().await?;
        if client.query_opt("select from pg_extension where extname = 'pg_stat_statements'", &[]).await?.is_none() {
            return Ok(Statements::default());
        }
        // Not those that ask.
        let query = "select query, sum(calls)::bigint from pg_stat_statements
                     where query not like '%pg_stat_statements%' group by query";
        let rows = client.query(query, &[]).await.context("pg_stat_statements")?;
        Ok(Statements(rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    }
}
