//! What can go wrong between us and the database.

use refinery::error::Kind;
use tokio_postgres::error::SqlState;

use crate::domain::Error;

/// A failure of the database or of the way to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be had.
    #[error("no connection to the database: {}", described_pool(.0))]
    Pool(#[from] deadpool_postgres::PoolError),
    /// A statement failed, or its connection was lost.
    #[error("the database failed: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The migrations could not be run.
    #[error("migration failed: {}", described_migration(.0))]
    Migration(#[from] refinery::Error),
    /// A row holds what this program would never have written.
    #[error("unreadable row: {0}")]
    Corrupt(&'static str),
    /// The database took longer than a request may wait.
    #[error("the database did not answer in time")]
    Timeout,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// The schema is older than this version, and the database takes no writes.
    #[error("the database is read-only and its schema is not up to date: run `ridewire migrate` on the primary first")]
    ReadOnly,
}

/// The server's own words, which `tokio_postgres` keeps in the source.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// The same for a connection that the pool could not make.
fn described_pool(error: &deadpool_postgres::PoolError) -> String {
    match error {
        deadpool_postgres::PoolError::Backend(error) => describe(error),
        other => other.to_string(),
    }
}

/// The same for a migration, which keeps it one source further.
fn described_migration(error: &refinery::Error) -> String {
    match error.kind() {
        Kind::Connection(doing, source) => {
            let cause = source.downcast_ref().map_or_else(|| source.to_string(), describe);
            format!("{doing}: {cause}")
        }
        Kind::MissingVersion(migration) => {
            format!("the database has the migration {migration}, which this version does not know")
        }
        Kind::DivergentVersion(applied, _) => {
            format!("the migration {applied} was applied with another content than this version has")
        }
        _ => error.to_string(),
    }
}

impl StoreError {
    /// The error of Postgres, or of the connection to it, that this is about.
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

    /// What whoever runs the server can do about it, when it keeps the server from starting.
    pub fn advice(&self) -> &'static str {
        const UNREACHABLE: &str =
            "check that Postgres runs there and accepts connections from this machine, and `sslmode`";
        if let Self::Migration(error) = self {
            match error.kind() {
                Kind::MissingVersion(_) => return "run the newer version that has migrated it, or restore a backup",
                Kind::DivergentVersion(..) => return "run the build that has migrated it, or restore a backup",
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
            "42501" => "grant the role its rights: `ridewire check` names them",
            "42P07" | "42710" | "42723" => {
                "give Ridewire a database, or a schema (`search_path` in the URL), of its own: others' objects have its names"
            }
            "53300" => "raise max_connections of Postgres, or lower RIDEWIRE_DATABASE_CONNECTIONS",
            "25006" => "name the primary in the URL: this server takes no writes",
            "57P03" => "wait until Postgres has started",
            _ => "see the log of Postgres",
        }
    }

    /// Whether the connection is gone, or going: nothing is wrong with what was asked.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Pool(_) | Self::Timeout => true,
            Self::Database(error) => error.is_closed() || error.code().is_none_or(is_shutdown),
            Self::Migration(_) | Self::Corrupt(_) | Self::Stopping | Self::ReadOnly => false,
        }
    }

    /// Whether a lock that was asked for is still another's.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }

    /// Whether Postgres has waited for locks, one or several, for as long as it may.
    pub fn is_wait_timeout(&self) -> bool {
        self.is_lock_timeout()
            || matches!(self, Self::Database(error) if error.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// Whether somebody else was first, so that the same may be tried again at once.
    pub fn is_conflict(&self) -> bool {
        let states = [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED];
        matches!(self, Self::Database(error) if error.code().is_some_and(|state| states.contains(&state)))
    }

    /// Whether the same request may succeed later.
    fn is_transient(&self) -> bool {
        let state = match self {
            Self::Database(error) => error.code(),
            _ => None,
        };
        matches!(self, Self::Stopping)
            || self.is_connection_lost()
            || state.is_some_and(|state| {
                // Read-only, full, out of connections or memory, a lock or statement time-out, a deadlock.
                matches!(&state.code().get(..2), Some("53" | "55" | "40" | "58"))
                    || *state == SqlState::READ_ONLY_SQL_TRANSACTION
                    || *state == SqlState::QUERY_CANCELED
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
    /// What a caller is told. The cause is for the log.
    fn from(error: &StoreError) -> Self {
        if error.is_transient() { Self::Unavailable } else { Self::Internal }
    }
}

impl StoreError {
    /// The same failure for another of those who waited for it: whether it passes is what they need to know.
    pub(super) fn for_another(&self) -> Self {
        match self {
            Self::Stopping => Self::Stopping,
            Self::Corrupt(what) => Self::Corrupt(what),
            _ if self.is_transient() => Self::Timeout,
            _ => Self::Corrupt("see the log"),
        }
    }
}
