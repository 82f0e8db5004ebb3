//! Fills a database with a year of data. Postgres writes it itself, which takes minutes; through the API it would take an
//! hour. The rows are equal to those of the server.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use ridewire::embedded::Options;
use tokio_postgres::Client;

use crate::print;
use crate::testbed::Testbed;

const COHORT: &str = include_str!("cohort.sql");
const RIDES: &str = include_str!("rides.sql");
const MESSAGES: &str = include_str!("messages.sql");
const EVENTS: &str = include_str!("events.sql");

/// The number of messages and of rides of a cohort.
pub(super) const COHORT_MESSAGES: usize = 10_000;
pub(super) const COHORT_RIDES: usize = 500;

/// The number of recent cohorts whose log still exists: retention deletes logs long before messages.
const KEPT: usize = 160;

/// Indexes are created after all rows, which takes a third of the time.
const SETTINGS: &str = "set synchronous_commit = off; set maintenance_work_mem = '512MB'; set work_mem = '64MB'";

/// Starts a Postgres with this many cohorts. It is durable when this returns.
pub(super) async fn fill_database(cohorts: usize) -> anyhow::Result<Testbed> {
    let begun = Instant::now();
    // A crash while filling would only lose the benchmark.
    let testbed = Testbed::start_with(Options { durable: false }).await?;
    // The start of a server runs the migrations.
    testbed.server("migrations").await?.stop().await?;
    let statement =
        |text: &str| text.replace(":cohorts", &cohorts.to_string()).replace(":kept", &KEPT.min(cohorts).to_string());
    let (messages, events) = (connect(&testbed).await?, connect(&testbed).await?);
    messages.batch_execute(&statement(RIDES)).await.context("rides")?;
    tokio::try_join!(table(&messages, "messages", statement(MESSAGES)), table(&events, "events", statement(EVENTS)),)?;
    messages.batch_execute("vacuum analyze").await?;
    let size = messages.query_one("select pg_database_size(current_database()) / 1e9::float8", &[]).await?;
    let size: f64 = size.try_get(0)?;
    drop((messages, events));
    let testbed = testbed.restart_with(Options::default()).await?;
    // Writes the data to disk now. Later waits for the disk are then for new writes only.
    ensure!(Command::new("sync").status()?.success(), "the disk");
    let count = cohorts * COHORT_MESSAGES;
    print(&format!("history: {count} messages, {size:.1} GB, in {:.0} s", begun.elapsed().as_secs_f64()));
    Ok(testbed)
}

async fn connect(testbed: &Testbed) -> anyhow::Result<Client> {
    let client = testbed.connect().await?;
    client.batch_execute(SETTINGS).await?;
    client.batch_execute(COHORT).await.context("the cohort")?;
    Ok(client)
}

/// Fills a table without its indexes and constraints, and creates them afterwards.
async fn table(client: &Client, name: &str, insert: String) -> anyhow::Result<()> {
    let constraints = "select conname::text, pg_get_constraintdef(oid) from pg_constraint
                       where conrelid = $1::text::regclass and contype in ('p', 'u')";
    let indexes = "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
                   where indrelid = $1::text::regclass
                     and not exists (select from pg_constraint where conindid = indexrelid)";
    let (mut drop, mut create) = (Vec::new(), Vec::new());
    for row in client.query(constraints, &[&name]).await? {
        let (constraint, definition): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        drop.push(format!("alter table {name} drop constraint {constraint}"));
        create.push(format!("alter table {name} add constraint {constraint} {definition}"));
    }
    for row in client.query(indexes, &[&name]).await? {
        let (index, definition): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        drop.push(format!("drop index {index}"));
        create.push(definition);
    }
    for statement in drop.into_iter().chain([insert]).chain(create) {
        client
            .batch_execute(&statement)
            .await
            .with_context(|| statement.lines().next().unwrap_or_default().to_owned())?;
    }
    Ok(())
}

/// Formats the number of messages of this many cohorts.
pub(super) fn size(cohorts: usize) -> String {
    match cohorts * COHORT_MESSAGES {
        messages if messages >= 1_000_000 => format!("{} million", messages / 1_000_000),
        messages => format!("{} thousand", messages / 1_000),
    }
}
