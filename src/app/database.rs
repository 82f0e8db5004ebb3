//! The database: the one that the settings name, or a private one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::AppError;
use super::validated::postgres;
use crate::config::{DatabaseSettings, PostgresSettings};
use crate::embedded::{EmbeddedPostgres, Options, StopMode};
use crate::store::{Address, StoreError, migrate};
use crate::webhooks::WebhooksError;

/// The settings that name the database.
pub(crate) const SETTING: &str = "DATABASE_URL";
const LISTEN_SETTING: &str = "RIDEWIRE_LISTEN_DATABASE_URL";

/// How long the database may take to be there when we start.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// How often it is said that the database is not there yet.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// The database, and our hand on it where it is ours.
#[derive(Debug)]
pub struct Database {
    pub(super) address: Address,
    pub(super) listen: Address,
    /// The setting that names `listen`.
    listen_setting: &'static str,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// Finds the database that the settings name, or starts a private one, and brings its schema up to date.
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
        let (address, listen, listen_setting) = addresses(&url, postgres)?;
        let database = Self { address, listen, listen_setting, embedded };
        match database.migrate().await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await?;
                Err(error)
            }
        }
    }

    /// Migrates, over the direct connection where there is one.
    async fn migrate(&self) -> Result<(), AppError> {
        let applied = until_reachable(self.listen_setting, &self.listen, || migrate(&self.listen)).await?;
        tracing::info!(applied, "the schema is up to date");
        if self.listen_setting == LISTEN_SETTING {
            until_reachable(SETTING, &self.address, async || {
                // Ended at once: the pool makes its own.
                self.address.connect().await.map(drop).map_err(StoreError::from)
            })
            .await?;
        }
        Ok(())
    }

    /// Says which database an error is about, where it is about that.
    pub(super) fn named(&self, error: AppError) -> AppError {
        match error {
            AppError::Store(error) | AppError::Webhooks(WebhooksError::Store(error)) => {
                AppError::Database { setting: SETTING, place: self.address.place(), error }
            }
            other => other,
        }
    }

    /// Stops it, where it is ours.
    pub async fn close(self) -> Result<(), AppError> {
        match self.embedded {
            Some(embedded) => Ok(embedded.stop(StopMode::Fast).await?),
            None => Ok(()),
        }
    }

    /// Waits until a private Postgres ends by itself, which it should not.
    pub(super) async fn ended(&mut self) {
        match &mut self.embedded {
            Some(embedded) => drop(embedded.exited().await),
            None => std::future::pending().await,
        }
    }
}

/// The addresses for everything and for LISTEN, and the setting that names the latter.
pub(crate) fn addresses(url: &str, settings: &PostgresSettings) -> Result<(Address, Address, &'static str), AppError> {
    let address = postgres(url, SETTING)?;
    match &settings.listen_database_url {
        Some(direct) => Ok((address, postgres(direct, LISTEN_SETTING)?, LISTEN_SETTING)),
        None => Ok((address.clone(), address, SETTING)),
    }
}

/// Does something with a database that is about to be there, as when all of a deployment starts at once. While it is not, this is
/// said once and then now and then.
async fn until_reachable<T>(
    setting: &'static str,
    address: &Address,
    mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, AppError> {
    let begun = Instant::now();
    let mut report_at = begun;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if error.is_connection_lost() && begun.elapsed() < DATABASE_PATIENCE => {
                if Instant::now() >= report_at {
                    tracing::warn!(%error, database = address.place(), setting, "database not reachable, retrying");
                    report_at = Instant::now() + REPORT_PERIOD;
                }
                sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(AppError::Database { setting, place: address.place(), error }),
        }
    }
}
