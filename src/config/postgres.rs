//! The settings of subcommands that open the database, beside its address.

use std::path::PathBuf;

use clap::Args;

use super::DATABASE;

/// The further settings of subcommands that migrate.
#[derive(Debug, Clone, Args)]
pub struct PostgresSettings {
    /// The URL of a direct connection for LISTEN, if `DATABASE_URL` leads through a pooler.
    #[arg(long, env = "RIDEWIRE_LISTEN_DATABASE_URL", help_heading = DATABASE, hide_env_values = true)]
    pub listen_database_url: Option<String>,

    /// The databases of shards that are not in the database of `DATABASE_URL`: `NUMBER=URL`, separated by spaces.
    #[arg(long, env = "RIDEWIRE_SHARD_DATABASES", help_heading = DATABASE, value_delimiter = ' ', value_parser = shard_database, hide_env_values = true)]
    pub shard_databases: Vec<ShardDatabase>,

    /// The directory of the PostgreSQL programs for the private Postgres [default: the newest version found].
    #[arg(long, env = "RIDEWIRE_PG_BIN", help_heading = DATABASE)]
    pub pg_bin: Option<PathBuf>,
}

/// The database of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardDatabase {
    /// The number of the shard, from 1. The first shard, 0, is in the database of `DATABASE_URL`.
    pub shard: u16,
    /// The URL of its database.
    pub url: String,
}

fn shard_database(text: &str) -> Result<ShardDatabase, String> {
    let invalid = || "write NUMBER=URL for each shard, such as 1=postgres://user@host/database".to_owned();
    let (number, url) = text.split_once('=').ok_or_else(invalid)?;
    match number.parse() {
        Ok(0) => Err("shard 0 is in the database of DATABASE_URL".to_owned()),
        Ok(shard) if !url.is_empty() => Ok(ShardDatabase { shard, url: url.to_owned() }),
        _ => Err(invalid()),
    }
}
