//! Brings the schema up to date, one replica at a time.

use refinery::Migration;
use tokio_postgres::Client;

use super::{Address, StoreError};

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}

/// Which migrations were applied.
const TABLE: &str = "ridewire_migrations";

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
        if is_read_only(&client).await? {
            return check(&client).await;
        }
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

/// Whether the database takes no writes now, as a standby.
async fn is_read_only(client: &Client) -> Result<bool, StoreError> {
    // Not prepared: a pooler may execute it on another connection.
    let row = client.query_typed_one("select current_setting('transaction_read_only') = 'on'", &[]).await?;
    Ok(row.try_get(0)?)
}

/// Where nothing can be migrated nothing may have to be: the server then serves what can be read until writes are possible.
async fn check(client: &Client) -> Result<usize, StoreError> {
    let runner = embedded::migrations::runner();
    let latest = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    let applied = client.query_typed_one("select max(version)::bigint from ridewire_migrations", &[]).await;
    let applied = applied.ok().and_then(|row| row.get::<_, Option<i64>>(0)).unwrap_or(0);
    if applied >= i64::from(latest) { Ok(0) } else { Err(StoreError::ReadOnly) }
}

/// How the schema of a database compares with what this version expects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// How many migrations were applied.
    pub applied: usize,
    /// Those that the next start applies.
    pub pending: Vec<String>,
    /// Those that this version does not know.
    pub unknown: Vec<String>,
    /// Those that were applied with another content.
    pub divergent: Vec<String>,
}

/// Compares the schema that this connection is in with the migrations of this version, and changes nothing.
pub async fn compare(client: &mut Client) -> Result<SchemaState, StoreError> {
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(TABLE);
    let has_table = "select to_regclass('ridewire_migrations') is not null as has_table";
    let applied = match client.query_typed_one(has_table, &[]).await?.try_get("has_table")? {
        true => runner.get_applied_migrations_async(client).await?,
        false => Vec::new(),
    };
    let mut state = SchemaState { applied: applied.len(), ..SchemaState::default() };
    let known = runner.get_migrations();
    for migration in &applied {
        match known.iter().find(|known| known.version() == migration.version()) {
            None => state.unknown.push(migration.to_string()),
            Some(known) if known != migration => state.divergent.push(migration.to_string()),
            Some(_) => {}
        }
    }
    let is_applied = |known: &Migration| applied.iter().any(|applied| applied.version() == known.version());
    let mut pending: Vec<_> = known.iter().filter(|known| !is_applied(known)).collect();
    pending.sort();
    state.pending = pending.into_iter().map(ToString::to_string).collect();
    Ok(state)
}

async fn run(client: &mut Client) -> Result<usize, StoreError> {
    let report = embedded::migrations::runner().set_migration_table_name(TABLE).run_async(client).await?;
    Ok(report.applied_migrations().len())
}
