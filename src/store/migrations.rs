//! Brings the schema up to date, one replica at a time.

use tokio_postgres::{Client, Config, NoTls};

use super::StoreError;

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}

/// Any number, the same in all replicas: only one migrates, the others wait and find nothing to do.
const LOCK: &str = "select pg_advisory_lock(7243391001)";
const UNLOCK: &str = "select pg_advisory_unlock(7243391001)";

/// Runs the migrations that this database has not seen, and says how many there were.
///
/// On a connection of its own, since the lock is the session's: it is released by its end, whatever happens.
pub async fn migrate(config: &Config) -> Result<usize, StoreError> {
    let (mut client, connection) = config.connect(NoTls).await?;
    let driver = tokio::spawn(connection);
    let applied = run(&mut client).await;
    drop(client);
    // The session ends with its client; a failure of the connection has shown itself in `applied`.
    let _ = driver.await;
    applied
}

async fn run(client: &mut Client) -> Result<usize, StoreError> {
    client.batch_execute(LOCK).await?;
    let report =
        embedded::migrations::runner().set_migration_table_name("ridewire_migrations").run_async(client).await?;
    client.batch_execute(UNLOCK).await?;
    Ok(report.applied_migrations().len())
}
