//! Whether the database is there.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Row};

use super::{Level, Report};
use crate::app::{AppError, database};
use crate::config::Settings;
use crate::embedded;
use crate::store::{Address, StoreError};

/// How long a connection, and each query, may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The database, by both of its addresses.
pub(super) struct Database {
    /// For everything.
    pub(super) address: Address,
    pub(super) client: Client,
    /// For LISTEN and migrations; the same address where no other is set.
    pub(super) direct: Address,
    pub(super) direct_client: Client,
    pub(super) has_direct: bool,
}

/// Connects as the server does. `None` where there is nothing more to check.
pub(super) async fn connect(settings: &Settings, report: &mut Report) -> Option<Database> {
    let url = match &settings.database.database_url {
        Some(url) => url.clone(),
        None => private(settings, report).await?,
    };
    let (address, direct, direct_setting) = match database::addresses(&url, &settings.postgres) {
        Ok(addresses) => addresses,
        Err(error) => return none(report, error),
    };
    let has_direct = settings.postgres.listen_database_url.is_some();
    let connected = async {
        let client = open(database::SETTING, &address).await?;
        Ok::<_, AppError>((client, open(direct_setting, &direct).await?))
    };
    match connected.await {
        Ok((client, direct_client)) => {
            report.ok("database", format!("reached at {}", address.place()));
            Some(Database { address, client, direct, direct_client, has_direct })
        }
        Err(error) => none(report, error),
    }
}

fn none(report: &mut Report, error: AppError) -> Option<Database> {
    report.error("database", error);
    report.add(Level::Skipped, "schema", "checked when the database can be reached, as is what follows from it");
    None
}

/// The address of a private Postgres that runs.
async fn private(settings: &Settings, report: &mut Report) -> Option<String> {
    let data_dir = settings.database.data_dir();
    match embedded::inspect(settings.postgres.pg_bin.as_deref(), &data_dir).await {
        Ok(found) => {
            let action = if found.has_cluster { "starts" } else { "creates" };
            let (version, place) = (found.version, data_dir.display());
            report.ok("postgres", format!("the server {action} a private PostgreSQL {version} in {place}"));
            if found.url.is_none() {
                report.add(Level::Skipped, "database", "the private Postgres does not run now");
            }
            found.url
        }
        Err(error) => {
            report.error("postgres", format!("{:#}", anyhow::Error::from(error)));
            None
        }
    }
}

/// A connection, outside of any pool.
async fn open(setting: &'static str, address: &Address) -> Result<Client, AppError> {
    connection(address).await.map_err(|error| AppError::Database { setting, place: address.place(), error })
}

/// The same where the address is known to work.
pub(super) async fn connection(address: &Address) -> Result<Client, StoreError> {
    let connected = timeout(TIMEOUT, address.connect()).await;
    let (client, connection) = connected.map_err(|_| StoreError::Timeout)??;
    // It ends with the client, which sees what breaks it as well.
    tokio::spawn(connection);
    Ok(client)
}

/// The row of a statement without parameters. It is not prepared: the connection may be one of a pooler.
pub(super) async fn row(client: &Client, statement: &str) -> Result<Row, StoreError> {
    let answer = timeout(TIMEOUT, client.query_typed_one(statement, &[])).await;
    Ok(answer.map_err(|_| StoreError::Timeout)??)
}
