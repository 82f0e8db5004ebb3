//! Brings the schema up to date, one replica at a time.

use tokio_postgres::Client;

use super::{Address, StoreError};

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}

/// Any number, the same in all replicas: only one migrates, the others wait and find nothing to do. However long that takes,
/// whatever the database's own settings are; the migrations have those.
const LOCK: &str = "begin; set local idle_in_transaction_session_timeout = 0;
    set local statement_timeout = 0; set local lock_timeout = 0;
    select pg_advisory_xact_lock(7243391001)";

/// Runs the migrations that this database has not seen, and says how many there were.
///
/// The lock is held by a transaction on a connection of its own: it is released by its end, whatever happens, also where a
/// pooler would give a session's lock to others.
pub async fn migrate(address: &Address) -> Result<usize, StoreError> {
    let (lock, holding) = address.connect().await?;
    let (mut client, connection) = address.connect().await?;
    let drivers = [tokio::spawn(holding), tokio::spawn(connection)];
    let applied = async {
        lock.batch_execute(LOCK).await?;
        let applied = run(&mut client).await?;
        lock.batch_execute("commit").await?;
        Ok(applied)
    };
    let applied = applied.await;
    drop((client, lock));
    for driver in drivers {
        // The session ends with its client; a failure of the connection has shown itself in `applied`.
        let _ = driver.await;
    }
    applied
}

async fn run(client: &mut Client) -> Result<usize, StoreError> {
    let report =
        embedded::migrations::runner().set_migration_table_name("ridewire_migrations").run_async(client).await?;
    Ok(report.applied_migrations().len())
}
