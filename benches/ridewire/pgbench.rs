//! The peer of the durable sends: `pgbench` on the same Postgres, one insert a transaction.
//!
//! It has what Postgres gives anybody who would write messages without a server between: 64 connections, prepared
//! statements, and one statement (so one round trip) a transaction, which is the fastest way there is. The row has
//! the columns and indexes of ours. It checks no token, no rights and no duplicates, and numbers nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::platform::Platform;
use crate::process::Cpu;

/// The table of the peer, and of the floor of the latencies.
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

/// A row like one of ours; the sequence stands for what makes it unlike the others.
pub(crate) const INSERT: &str = "
    insert into bench_messages (ride_id, seq, sender_id, sender_role, content, client_message_id, content_hash)
    select 'bench_' || n % 1000, n, 'rider_' || n % 1000, 'rider',
           'I am at the main gate, beside the taxi stand. Where are you?', 'm-' || n,
           '\\x000102030405060708090a0b0c0d0e0f'
    from nextval('bench_seq') as n";

/// A script of pgbench.
#[derive(Debug)]
pub(crate) struct Pgbench {
    program: PathBuf,
    script: PathBuf,
    url: String,
    postgres: u32,
}

/// What pgbench did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) per_second: f64,
    pub(crate) cpu: Cpu,
}

pub(crate) async fn create_table(platform: &Platform) -> anyhow::Result<()> {
    let client = platform.connect().await?;
    client
        .batch_execute(&format!("drop table if exists bench_messages; drop sequence if exists bench_seq; {TABLE}"))
        .await?;
    Ok(())
}

impl Pgbench {
    /// Inserts, and with `notify` says so within the transaction, as one would who relies on NOTIFY.
    pub(crate) fn new(platform: &Platform, notify: bool) -> anyhow::Result<Self> {
        let (name, text) = match notify {
            true => (
                "notify.sql",
                format!(
                    "with new as ({INSERT} returning ride_id, seq) select pg_notify('bench', ride_id || seq) from new;"
                ),
            ),
            false => ("insert.sql", format!("{INSERT};")),
        };
        let script = platform.file(name);
        // pgbench takes a statement up to its semicolon, over lines.
        std::fs::write(&script, text)?;
        Ok(Self {
            program: platform.program("pgbench")?,
            script,
            url: platform.url(),
            postgres: platform.postgres_pid()?,
        })
    }

    /// Runs it with 64 clients.
    pub(crate) async fn run(&self, span: Duration) -> anyhow::Result<Done> {
        let seconds = span.as_secs().max(1);
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
        let cpu = Cpu::now(None, self.postgres)?.since(before, span.as_secs_f64());
        Ok(Done { per_second: per_second.context("pgbench said nothing")?, cpu })
    }
}
