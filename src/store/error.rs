//! Errors of the database and of the connection to it.

use refinery::error::Kind;
use tokio_postgres::error::SqlState;

use crate::domain::Error;

/// An error of the database or of the connection to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pool could not provide a connection.
    #[error("no connection to the database: {}", describe_pool(.0))]
    Pool(#[from] deadpool_postgres::PoolError),
    /// A statement failed, or its connection was lost.
    #[error("the database failed: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A migration failed.
    #[error("migration failed: {}", describe_migration(.0))]
    Migration(#[from] refinery::Error),
    /// A row has a value that this program never writes.
    #[error("unreadable row: {0}")]
    Corrupt(&'static str),
    /// The database did not respond within the timeout of a request.
    #[error("the database did not answer in time")]
    Timeout,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The schema is older than this version, and the database is read-only.
    #[error("the database is read-only and its schema is not up to date: run `ridewire migrate` on the primary first")]
    ReadOnly,
}

/// Returns Postgres' own message, which `tokio_postgres` keeps in the error's source.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Like [`describe`], for a connection that the pool could not open.
fn describe_pool(error: &deadpool_postgres::PoolError) -> String {
    match error {
        deadpool_postgres::PoolError::Backend(error) => describe(error),
        other => other.to_string(),
    }
}

/// Like [`describe`], for a migration, whose error is one source deeper.
fn describe_migration(error: &refinery::Error) -> String {
    match error.kind() {
        Kind::Connection(doing, source) => {
            let cause = source.downcast_ref().map_or_else(|| source.to_string(), describe);
            format!("{doing}: {cause}")
        }
        Kind::MissingVersion(migration) => {
            format!("the database has the migration {migration}, which this version does not have")
        }
        Kind::DivergentVersion(applied, _) => {
            format!("the migration {applied} was applied with another content than this version has")
        }
        _ => error.to_string(),
    }
}

impl StoreError {
    /// Returns the underlying `tokio_postgres` error, if any.
    fn postgres(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Database(error) | Self::Pool(deadpool_postgres::PoolError::Backend(error)) => Some(error),
            Self::Migration(error) => match error.kind() {
                Kind::Connection(_, source) => source.downcast_ref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns advice to the operator for an error that prevents the server from starting.
    pub fn advice(&self) -> &'static str {
        const UNREACHABLE: &str =
            "check that Postgres runs there and accepts connections from this machine, and `sslmode`";
        if let Self::Migration(error) = self {
            match error.kind() {
                Kind::MissingVersion(_) => {
                    return "run the newer version that migrated the database, or restore a backup";
                }
                Kind::DivergentVersion(..) => return "run the build that migrated the database, or restore a backup",
                _ => {}
            }
        }
        let Some(error) = self.postgres() else {
            return match self {
                Self::ReadOnly => "or name the primary in DATABASE_URL",
                Self::Pool(_) | Self::Timeout => UNREACHABLE,
                _ => "see the log of Postgres",
            };
        };
        let Some(state) = error.code() else { return UNREACHABLE };
        match state.code() {
            "28P01" | "28000" => "check the user and the password in the URL, and pg_hba.conf of the server",
            "3D000" => "create the database, or name another one in the URL",
            "3F000" => "create the schema that `search_path` names, or name another one in the URL",
            "42501" => "grant the role the privileges that `ridewire check` lists",
            "42P07" | "42710" | "42723" => {
                "give Ridewire its own database or schema (`search_path` in the URL): other objects there have the names of its tables"
            }
            "53300" => "raise max_connections of Postgres, or lower RIDEWIRE_DATABASE_CONNECTIONS",
            "25006" => "name the primary in the URL: this server takes no writes",
            "57P03" => "wait until Postgres has started",
            _ => "see the log of Postgres",
        }
    }

    /// Returns whether the connection is lost or closing. The statement itself may be valid.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Pool(_) | Self::Timeout => true,
            Self::Database(error) => error.is_closed() || error.code().is_none_or(is_shutdown),
            Self::Migration(_) | Self::Corrupt(_) | Self::Stopping | Self::ReadOnly => false,
        }
    }

    /// Returns whether a lock could not be acquired within `lock_timeout`.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }

    /// Returns whether waiting for locks took too long: for one lock or for the whole statement.
    pub fn is_wait_timeout(&self) -> bool {
        self.is_lock_timeout()
            || matches!(self, Self::Database(error) if error.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// Returns whether the transaction conflicted with another one, so it can be retried immediately.
    pub fn is_conflict(&self) -> bool {
        let states = [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED];
        matches!(self, Self::Database(error) if error.code().is_some_and(|state| states.contains(&state)))
    }

    /// Returns whether the same request may succeed later.
    fn is_transient(&self) -> bool {
        let state = match self {
            Self::Database(error) => error.code(),
            _ => None,
        };
        matches!(self, Self::Stopping)
            || self.is_connection_lost()
            || state.is_some_and(|state| {
                // Read-only, disk full, out of connections or memory, lock or statement timeout, deadlock.
                matches!(&state.code().get(..2), Some("53" | "55" | "40" | "58"))
                    || *state == SqlState::READ_ONLY_SQL_TRANSACTION
                    || *state == SqlState::QUERY_CANCELED
                    // The schema is being restored, or was moved.
                    || *state == SqlState::UNDEFINED_TABLE
                    || *state == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            })
    }
}

fn is_shutdown(state: &SqlState) -> bool {
    matches!(state.code().get(..2), Some("08"))
        || [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(state)
        || *state == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
}

impl From<&StoreError> for Error {
    /// Converts into the error that the client receives. The cause is only logged.
    fn from(error: &StoreError) -> Self {
        if error.is_transient() { Self::Unavailable } else { Self::Internal }
    }
}

impl StoreError {
    /// Returns an equivalent error for one of several callers of a batch: it only preserves whether the failure is
    /// transient.
    pub(super) fn for_caller(&self) -> Self {
        match self {
            Self::Stopping => Self::Stopping,
            Self::Corrupt(what) => Self::Corrupt(what),
            _ if self.is_transient() => Self::Timeout,
            _ => Self::Corrupt("see the log"),
        }
    }
}
