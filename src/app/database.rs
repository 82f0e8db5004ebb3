//! The server's database: the one that the settings name, or a private Postgres.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::AppError;
use super::validated::postgres;
use crate::config::{DatabaseSettings, PostgresSettings};
use crate::domain::{ShardMap, Sharded};
use crate::embedded::{EmbeddedPostgres, Options, StopMode};
use crate::store::{Address, StoreError, migrate};
use crate::webhooks::WebhooksError;

/// The settings that hold the database's addresses.
pub(crate) const SETTING: &str = "DATABASE_URL";
const LISTEN_SETTING: &str = "RIDEWIRE_LISTEN_DATABASE_URL";

/// How long a start waits for a database that cannot be reached.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the log repeats that the database cannot be reached.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// The database's addresses, and its process if it is a private Postgres.
#[derive(Debug)]
pub struct Database {
    /// The addresses of each shard. Those of the first are in the settings.
    pub(super) shards: Sharded<ShardAddresses>,
    /// The setting that names the first shard's address for LISTEN.
    listen_setting: &'static str,
    embedded: Option<EmbeddedPostgres>,
}

/// The addresses of a shard's database.
#[derive(Debug, Clone)]
pub(super) struct ShardAddresses {
    /// For queries. It may lead through a pooler.
    pub(super) pool: Address,
    /// For LISTEN and migrations: a direct connection.
    pub(super) listen: Address,
}

impl Database {
    /// Opens the database that the settings name, or starts a private Postgres. Then runs the migrations.
    pub async fn open(settings: &DatabaseSettings, postgres: &PostgresSettings) -> Result<Self, AppError> {
        let programs = postgres.pg_bin.as_deref();
        let embedded = match settings.database_url {
            Some(_) => None,
            None => Some(EmbeddedPostgres::start_with(programs, &settings.data_dir(), Options::default()).await?),
        };
        let url = match (&settings.database_url, &embedded) {
            (Some(url), _) => url.clone(),
            (None, Some(embedded)) => embedded.url(),
            (None, None) => String::new(),
        };
        let (pool, listen, listen_setting) = addresses(&url, postgres)?;
        let addresses = ShardAddresses { pool, listen };
        let shards = Sharded::new(ShardMap::ONE, |_| addresses.clone());
        let database = Self { shards, listen_setting, embedded };
        match database.migrate().await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await?;
                Err(error)
            }
        }
    }

    /// Runs the migrations, over the direct connection if one is configured.
    async fn migrate(&self) -> Result<(), AppError> {
        let ShardAddresses { pool, listen } = self.shards.first();
        let applied = until_reachable(self.listen_setting, listen, || migrate(listen)).await?;
        tracing::info!(applied, "schema migrated");
        if self.listen_setting == LISTEN_SETTING {
            until_reachable(SETTING, pool, async || {
                // This connection only tests the address; the pool opens its own.
                pool.connect().await.map(drop)
            })
            .await?;
        }
        Ok(())
    }

    /// Adds the database's setting and address to an error of the database. Other errors are returned unchanged.
    pub(super) fn add_address(&self, error: AppError) -> AppError {
        match error {
            AppError::Store(error) | AppError::Webhooks(WebhooksError::Store(error)) => {
                AppError::Database { setting: SETTING, place: self.shards.first().pool.endpoint(), error }
            }
            other => other,
        }
    }

    /// Stops a private Postgres. Does nothing otherwise.
    pub async fn close(self) -> Result<(), AppError> {
        match self.embedded {
            Some(embedded) => Ok(embedded.stop(StopMode::Fast).await?),
            None => Ok(()),
        }
    }

    /// Waits until a private Postgres exits by itself, which is an error. Never returns otherwise.
    pub(super) async fn exited(&mut self) {
        match &mut self.embedded {
            Some(embedded) => drop(embedded.exited().await),
            None => std::future::pending().await,
        }
    }
}

/// Parses both addresses: the one for queries, and the one for LISTEN with the name of its setting.
pub(crate) fn addresses(url: &str, settings: &PostgresSettings) -> Result<(Address, Address, &'static str), AppError> {
    let address = postgres(url, SETTING)?;
    match &settings.listen_database_url {
        Some(direct) => Ok((address, postgres(direct, LISTEN_SETTING)?, LISTEN_SETTING)),
        None => Ok((address.clone(), address, SETTING)),
    }
}

/// Repeats `attempt` until the database is reachable, for up to `DATABASE_TIMEOUT`: a whole deployment may be starting at once.
/// Logs the first failure, and then one every `REPORT_PERIOD`.
async fn until_reachable<T>(
    setting: &'static str,
    address: &Address,
    mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, AppError> {
    let started = Instant::now();
    let mut report_at = started;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if error.is_connection_lost() && started.elapsed() < DATABASE_TIMEOUT => {
                if Instant::now() >= report_at {
                    tracing::warn!(%error, database = address.endpoint(), setting, "database not reachable, retrying");
                    report_at = Instant::now() + REPORT_PERIOD;
                }
                sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(AppError::Database { setting, place: address.endpoint(), error }),
        }
    }
}
