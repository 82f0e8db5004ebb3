//! The database: the one that the settings name, or a private one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::AppError;
use crate::config::Settings;
use crate::embedded::{EmbeddedPostgres, Options, StopMode};
use crate::store::{Address, StoreError, migrate};

/// How long the database may take to be there when we start.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// The database, and our hand on it where it is ours.
#[derive(Debug)]
pub struct Database {
    pub(super) address: Address,
    pub(super) listen: Address,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// Finds the database that the settings name, or starts a private one, and brings its schema up to date.
    pub async fn open(settings: &Settings) -> Result<Self, AppError> {
        let embedded = match settings.database_url {
            Some(_) => None,
            None => Some(EmbeddedPostgres::start(&settings.data_dir(), Options::default()).await?),
        };
        let url = match (&settings.database_url, &embedded) {
            (Some(url), _) => url.clone(),
            (None, Some(embedded)) => embedded.url(),
            (None, None) => String::new(),
        };
        let address = parse(&url, "DATABASE_URL")?;
        let listen = match &settings.listen_database_url {
            Some(url) => parse(url, "RIDEWIRE_LISTEN_DATABASE_URL")?,
            None => address.clone(),
        };
        let database = Self { address, listen, embedded };
        match database.migrate().await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await?;
                Err(error.into())
            }
        }
    }

    /// Migrates, over the direct connection where there is one, waiting for a database that is about to be there, as when
    /// all of a deployment starts at once.
    async fn migrate(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + DATABASE_PATIENCE;
        loop {
            match migrate(&self.listen).await {
                Ok(applied) => {
                    tracing::info!(applied, "the schema is up to date");
                    return Ok(());
                }
                Err(error) if error.is_connection_lost() && Instant::now() < deadline => {
                    tracing::warn!(%error, "waiting for the database");
                    sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error),
            }
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

fn parse(url: &str, setting: &str) -> Result<Address, AppError> {
    url.parse()
        .map_err(|error| AppError::Setting(format!("{setting} must be a Postgres URL or a list of key=value: {error}")))
}
