//! Runs the migrations, one replica at a time.

use refinery::Migration;
use tokio_postgres::Client;

use super::{Address, StoreError};

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}

/// The table of applied migrations.
const TABLE: &str = "ridewire_migrations";

/// The advisory lock that serializes migrations: one replica migrates, the others wait and then find nothing to do. The
/// number is arbitrary. The wait has no timeout, whatever the database's own settings are; the migrations themselves
/// keep those settings.
const LOCK: &str = "begin; set local idle_in_transaction_session_timeout = 0;
    set local statement_timeout = 0; set local lock_timeout = 0;
    select pg_advisory_xact_lock(7243391001)";

/// Runs the migrations that this database lacks, and returns how many ran.
///
/// A transaction on a separate connection holds the lock. Its end releases the lock, whatever happens. A session-level
/// lock would fail behind a pooler, which could give the session to another client.
pub async fn migrate(address: &Address) -> Result<usize, StoreError> {
    let (lock, lock_connection) = address.connect().await?;
    let (mut client, connection) = address.connect().await?;
    let drivers = [tokio::spawn(lock_connection), tokio::spawn(connection)];
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
        // The session ends with its client; an error of the connection has surfaced in `applied`.
        let _ = driver.await;
    }
    applied
}

/// Returns whether the database is read-only now, such as a standby.
async fn is_read_only(client: &Client) -> Result<bool, StoreError> {
    // Not prepared: a pooler may run it on another connection.
    let row = client.query_typed_one("select current_setting('transaction_read_only') = 'on'", &[]).await?;
    Ok(row.try_get(0)?)
}

/// Checks a read-only database: no migration may be pending. The server then serves reads until writes are possible.
async fn check(client: &Client) -> Result<usize, StoreError> {
    let runner = embedded::migrations::runner();
    let latest = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    let applied = client.query_typed_one("select max(version)::bigint from ridewire_migrations", &[]).await;
    let applied = applied.ok().and_then(|row| row.get::<_, Option<i64>>(0)).unwrap_or(0);
    if applied >= i64::from(latest) { Ok(0) } else { Err(StoreError::ReadOnly) }
}

/// The difference between the schema of a database and the one that this version expects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// The number of applied migrations.
    pub applied: usize,
    /// Migrations that the next start applies.
    pub pending: Vec<String>,
    /// Applied migrations that this version does not have.
    pub unknown: Vec<String>,
    /// Applied migrations whose content differs.
    pub divergent: Vec<String>,
}

/// Compares the schema of this connection with the migrations of this version. It changes nothing.
pub async fn compare(client: &mut Client) -> Result<SchemaState, StoreError> {
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(TABLE);
    let has_table = "select to_regclass('ridewire_migrations') is not null as has_table";
    let applied = match client.query_typed_one(has_table, &[]).await?.try_get("has_table")? {
        true => runner.get_applied_migrations_async(client).await?,
        false => Vec::new(),
    };
    let mut state = SchemaState { applied: applied.len(), ..SchemaState::default() };
    let embedded = runner.get_migrations();
    for migration in &applied {
        match embedded.iter().find(|own| own.version() == migration.version()) {
            None => state.unknown.push(migration.to_string()),
            Some(own) if own != migration => state.divergent.push(migration.to_string()),
            Some(_) => {}
        }
    }
    let is_applied = |own: &Migration| applied.iter().any(|applied| applied.version() == own.version());
    let mut pending: Vec<_> = embedded.iter().filter(|own| !is_applied(own)).collect();
    pending.sort();
    state.pending = pending.into_iter().map(ToString::to_string).collect();
    Ok(state)
}

async fn run(client: &mut Client) -> Result<usize, StoreError> {
    let report = embedded::migrations::runner().set_migration_table_name(TABLE).run_async(client).await?;
    Ok(report.applied_migrations().len())
}
