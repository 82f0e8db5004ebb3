//! Checks whether the database is reachable, and opens the connections for the other checks.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Row};

use super::{Level, Report};
use crate::app::{AppError, database};
use crate::config::Settings;
use crate::embedded;
use crate::store::{Address, StoreError};

/// The timeout of a connection and of each query.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to both addresses of the database.
pub(super) struct Database {
    /// The address for queries.
    pub(super) address: Address,
    pub(super) client: Client,
    /// The address for LISTEN and migrations; equal to `address` if no other is set.
    pub(super) direct: Address,
    pub(super) direct_client: Client,
    pub(super) has_direct: bool,
}

/// Connects with the server's code. Returns `None` if the checks of the database cannot run.
pub(super) async fn connect(settings: &Settings, report: &mut Report) -> Option<Database> {
    let url = match &settings.database.database_url {
        Some(url) => url.clone(),
        None => private(settings, report).await?,
    };
    let (address, direct, direct_setting) = match database::addresses(&url, &settings.postgres) {
        Ok(addresses) => addresses,
        Err(error) => return failed(report, error),
    };
    let has_direct = settings.postgres.listen_database_url.is_some();
    let connected = async {
        let client = open(database::SETTING, &address).await?;
        Ok::<_, AppError>((client, open(direct_setting, &direct).await?))
    };
    match connected.await {
        Ok((client, direct_client)) => {
            report.ok("database", format!("reached at {}", address.endpoint()));
            Some(Database { address, client, direct, direct_client, has_direct })
        }
        Err(error) => failed(report, error),
    }
}

fn failed(report: &mut Report, error: AppError) -> Option<Database> {
    report.error("database", error);
    report.add(Level::Skipped, "schema", "this and the checks after it need a connection to the database");
    None
}

/// Returns the address of the private Postgres if it runs.
async fn private(settings: &Settings, report: &mut Report) -> Option<String> {
    let data_dir = settings.database.data_dir();
    match embedded::inspect(settings.postgres.pg_bin.as_deref(), &data_dir).await {
        Ok(found) => {
            let action = if found.has_cluster { "starts" } else { "creates" };
            let (version, place) = (found.version, data_dir.display());
            report.ok("postgres", format!("the server {action} a private PostgreSQL {version} in {place}"));
            if found.url.is_none() {
                report.add(Level::Skipped, "database", "the private Postgres is not running");
            }
            found.url
        }
        Err(error) => {
            report.error("postgres", format!("{:#}", anyhow::Error::from(error)));
            None
        }
    }
}

/// Opens a connection. The error names the setting.
async fn open(setting: &'static str, address: &Address) -> Result<Client, AppError> {
    connection(address).await.map_err(|error| AppError::Database { setting, place: address.endpoint(), error })
}

/// Opens a connection to an address, without the setting's name in the error.
pub(super) async fn connection(address: &Address) -> Result<Client, StoreError> {
    let (client, connection) = address.connect().await?;
    // The task ends with the client. An error of the connection also fails the client's queries.
    tokio::spawn(connection);
    Ok(client)
}

/// Returns the row of a statement without parameters. The statement is not prepared, since the connection may be a pooler's.
pub(super) async fn row(client: &Client, statement: &str) -> Result<Row, StoreError> {
    let row = timeout(TIMEOUT, client.query_typed_one(statement, &[])).await;
    Ok(row.map_err(|_| StoreError::Timeout)??)
}
