//! The server's database: the one that the settings name, or a private Postgres.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::AppError;
use super::validated::postgres;
use crate::config::{DatabaseSettings, PostgresSettings, ShardDatabase};
use crate::domain::{ShardId, ShardMap, Sharded};
use crate::embedded::{EmbeddedPostgres, Options, StopMode};
use crate::store::{Address, Shards, StoreError, migrate};
use crate::webhooks::WebhooksError;

/// The settings that hold the database's addresses.
pub(crate) const SETTING: &str = "DATABASE_URL";
const LISTEN_SETTING: &str = "RIDEWIRE_LISTEN_DATABASE_URL";
const SHARDS_SETTING: &str = "RIDEWIRE_SHARD_DATABASES";

/// How long a start waits for a database that cannot be reached.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the log repeats that the database cannot be reached.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// The database's addresses, and its process if it is a private Postgres.
#[derive(Debug)]
pub struct Database {
    /// The addresses of each shard. Those of the first are in the settings.
    pub(super) shards: Sharded<ShardAddresses>,
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
    /// Opens the database that the settings name, or starts a private Postgres. Then runs the migrations of all shards.
    ///
    /// `new_shards` creates the shards of a new deployment.
    pub async fn open(
        settings: &DatabaseSettings,
        postgres: &PostgresSettings,
        new_shards: Option<ShardMap>,
    ) -> Result<Self, AppError> {
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
        let opened = async {
            let (pool, listen, listen_setting) = addresses(&url, postgres)?;
            let first = ShardAddresses { pool, listen };
            open_shards(&first, listen_setting, postgres, new_shards).await
        };
        match opened.await {
            Ok(shards) => Ok(Self { shards, embedded }),
            Err(error) => {
                if let Some(embedded) = embedded {
                    embedded.stop(StopMode::Fast).await?;
                }
                Err(error)
            }
        }
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

/// Runs the migrations, and returns the addresses of all shards. A server that has to wait for the databases logs that.
async fn open_shards(
    first: &ShardAddresses,
    listen_setting: &'static str,
    postgres: &PostgresSettings,
    new_shards: Option<ShardMap>,
) -> Result<Sharded<ShardAddresses>, AppError> {
    let ShardAddresses { pool, listen } = first;
    let applied = until_reachable(listen_setting, listen, || migrate(listen)).await?;
    tracing::info!(applied, "schema migrated");
    if listen_setting == LISTEN_SETTING {
        // This connection only tests the address; the pool opens its own.
        until_reachable(SETTING, pool, async || pool.connect().await.map(drop)).await?;
    }
    let others = other_databases(postgres)?;
    let shards = match new_shards {
        Some(map) => Shards::create(map, listen, |shard| others.get(&shard).unwrap_or(listen).clone()).await?,
        None => Shards::load(listen).await?,
    };
    if let Some(unknown) = others.keys().find(|shard| shard.number() >= shards.map.count()) {
        let (shard, count) = (unknown.number(), shards.map.count());
        return Err(AppError::Setting(format!(
            "{SHARDS_SETTING}: there is no shard {shard}; the deployment has {count}"
        )));
    }
    let addresses = |shard: ShardId| {
        let database = |own: &Address| shards.address(shard, others.get(&shard).unwrap_or(own));
        ShardAddresses { pool: database(pool), listen: database(listen) }
    };
    let addresses = Sharded::new(shards.map, addresses);
    for shard in shards.map.shards().skip(1) {
        let ShardAddresses { pool, listen } = addresses.get(shard);
        let setting = if others.contains_key(&shard) { SHARDS_SETTING } else { listen_setting };
        until_reachable(setting, pool, async || pool.connect().await.map(drop)).await?;
        shards.check(shard, pool).await?;
        let applied = until_reachable(setting, listen, || migrate(listen)).await?;
        tracing::info!(applied, shard = shard.number(), "schema migrated");
    }
    Ok(addresses)
}

/// Parses the databases of shards that are not in the database of the first one.
fn other_databases(settings: &PostgresSettings) -> Result<BTreeMap<ShardId, Address>, AppError> {
    let mut databases = BTreeMap::new();
    for ShardDatabase { shard, url } in &settings.shard_databases {
        let id = ShardId::new(*shard).ok_or_else(|| {
            AppError::Setting(format!("{SHARDS_SETTING}: a shard has a number from 1 to {}", ShardMap::MAX - 1))
        })?;
        if databases.insert(id, postgres(url, SHARDS_SETTING)?).is_some() {
            return Err(AppError::Setting(format!("{SHARDS_SETTING}: shard {shard} is named twice")));
        }
    }
    Ok(databases)
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
