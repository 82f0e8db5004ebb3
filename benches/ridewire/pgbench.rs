//! The baseline of the durable sends: `pgbench` on the same Postgres, one insert per transaction.
//!
//! It measures what Postgres offers to clients that write messages without a server: 64 connections, prepared statements, and
//! one statement, and therefore one round trip, per transaction. The row has the columns and indexes of a message. There is no
//! check of a token, of access rights or of duplicates, and no numbering.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::process::Cpu;
use crate::testbed::Testbed;

/// The table of pgbench and of the latency baseline.
const TABLE: &str = "
    create table bench_messages (
        id                uuid primary key default gen_random_uuid(),
        ride_id           text collate \"C\" not null,
        seq               bigint not null,
        sender_id         text collate \"C\" not null,
        sender_role       text not null,
        content           text,
        metadata          text,
        client_message_id text collate \"C\",
        content_hash      bytea not null,
        created_at        timestamptz not null default now(),
        edited_at         timestamptz,
        deleted_at        timestamptz,
        unique (ride_id, seq)
    );
    create unique index on bench_messages (ride_id, sender_id, client_message_id) where client_message_id is not null;
    create sequence bench_seq cache 100";

/// Inserts a row like a message. A sequence makes each row different.
pub(crate) const INSERT: &str = "
    insert into bench_messages (ride_id, seq, sender_id, sender_role, content, client_message_id, content_hash)
    select 'bench_' || n % 1000, n, 'rider_' || n % 1000, 'rider',
           'I am at the main gate, beside the taxi stand. Where are you?', 'm-' || n,
           '\\x000102030405060708090a0b0c0d0e0f'
    from nextval('bench_seq') as n";

/// A pgbench script.
#[derive(Debug)]
pub(crate) struct Pgbench {
    program: PathBuf,
    script: PathBuf,
    url: String,
    postgres: u32,
}

/// The result of a pgbench run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PgbenchResult {
    pub(crate) per_second: f64,
    pub(crate) cpu: Cpu,
}

pub(crate) async fn create_table(testbed: &Testbed) -> anyhow::Result<()> {
    let client = testbed.connect().await?;
    client
        .batch_execute(&format!("drop table if exists bench_messages; drop sequence if exists bench_seq; {TABLE}"))
        .await?;
    Ok(())
}

impl Pgbench {
    /// With `notify`, each transaction also calls `pg_notify`, as a client without a server would do.
    pub(crate) fn new(testbed: &Testbed, notify: bool) -> anyhow::Result<Self> {
        let (name, text) = match notify {
            true => (
                "notify.sql",
                format!(
                    "with new as ({INSERT} returning ride_id, seq) select pg_notify('bench', ride_id || seq) from new;"
                ),
            ),
            false => ("insert.sql", format!("{INSERT};")),
        };
        let script = testbed.file(name);
        // pgbench reads a statement up to its semicolon, over several lines.
        std::fs::write(&script, text)?;
        Ok(Self { program: testbed.program("pgbench")?, script, url: testbed.url(), postgres: testbed.postgres_pid()? })
    }

    /// Runs the script with 64 clients.
    pub(crate) async fn run(&self, duration: Duration) -> anyhow::Result<PgbenchResult> {
        let seconds = duration.as_secs().max(1);
        let before = Cpu::now(None, self.postgres)?;
        let mut command = Command::new(&self.program);
        command.args(["-n", "-M", "prepared", "-c", "64", "-j", "2", "-T", &seconds.to_string(), "-f"]);
        command.arg::<&Path>(&self.script).arg(&self.url).kill_on_drop(true);
        let output = command.output().await.context("pgbench")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("pgbench: {}", String::from_utf8_lossy(&output.stderr));
        }
        let per_second = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let cpu = Cpu::now(None, self.postgres)?.since(before, duration.as_secs_f64());
        Ok(PgbenchResult { per_second: per_second.context("pgbench printed no rate")?, cpu })
    }
}
