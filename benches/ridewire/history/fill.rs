//! A database that has been used for long: written by Postgres itself, which takes minutes where the interface would take
//! an hour. What it says is what the server would have written.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use ridewire::embedded::Options;
use tokio_postgres::Client;

use crate::platform::Platform;
use crate::say;

const CROWD: &str = include_str!("crowd.sql");
const RIDES: &str = include_str!("rides.sql");
const MESSAGES: &str = include_str!("messages.sql");
const EVENTS: &str = include_str!("events.sql");

/// Messages of a crowd, and its rides.
pub(super) const CROWD_MESSAGES: usize = 10_000;
pub(super) const CROWD_RIDES: usize = 500;

/// Of how many of the last crowds the log is still there: retention takes logs long before messages.
const KEPT: usize = 160;

/// Indexes are made once all rows are there, which takes a third of the time.
const SETTINGS: &str = "set synchronous_commit = off; set maintenance_work_mem = '512MB'; set work_mem = '64MB'";

/// A Postgres, durable as ever, with so many crowds in it.
pub(super) async fn filled(crowds: usize) -> anyhow::Result<Platform> {
    let begun = Instant::now();
    // What a crash would cost here is a benchmark.
    let platform = Platform::start_with(Options { durable: false }).await?;
    // Its start makes the tables.
    platform.server("migrations").await?.stop().await?;
    let statement =
        |text: &str| text.replace(":crowds", &crowds.to_string()).replace(":kept", &KEPT.min(crowds).to_string());
    let (messages, events) = (connect(&platform).await?, connect(&platform).await?);
    messages.batch_execute(&statement(RIDES)).await.context("rides")?;
    tokio::try_join!(table(&messages, "messages", statement(MESSAGES)), table(&events, "events", statement(EVENTS)),)?;
    messages.batch_execute("vacuum analyze").await?;
    let size = messages.query_one("select pg_database_size(current_database()) / 1e9::float8", &[]).await?;
    let size: f64 = size.try_get(0)?;
    drop((messages, events));
    let platform = platform.restart_with(Options::default()).await?;
    // From here on Postgres waits for the disk: for what it writes itself, not for what is left of this.
    ensure!(Command::new("sync").status()?.success(), "the disk");
    let count = crowds * CROWD_MESSAGES;
    say(&format!("history: {count} messages, {size:.1} GB, in {:.0} s", begun.elapsed().as_secs_f64()));
    Ok(platform)
}

async fn connect(platform: &Platform) -> anyhow::Result<Client> {
    let client = platform.connect().await?;
    client.batch_execute(SETTINGS).await?;
    client.batch_execute(CROWD).await.context("the crowd")?;
    Ok(client)
}

/// Fills a table, and makes its indexes as they were.
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

/// How a log of so many crowds is called.
pub(super) fn size(crowds: usize) -> String {
    match crowds * CROWD_MESSAGES {
        messages if messages >= 1_000_000 => format!("{} million", messages / 1_000_000),
        messages => format!("{} thousand", messages / 1_000),
    }
}
