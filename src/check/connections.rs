//! Checks whether Postgres allows as many connections as all servers together may open.

use tokio_postgres::Row;

use super::database::{Database, row};
use super::{Level, Report};
use crate::config::{Notify, PreparedStatements, Settings};
use crate::store::{StoreError, sql};

/// The additional connections of a server while it migrates. Servers migrate one at a time. Cancel requests are as short.
const WHILE_STARTING: i64 = 2;

/// Compares the connections that the servers may open with the limits.
pub(super) async fn check(database: &Database, settings: &Settings, replicas: usize, report: &mut Report) {
    let limits = row(&database.direct_client, sql::CHECK_CONNECTIONS).await.and_then(|row| Limits::of(&row));
    match limits {
        Ok(limits) => {
            // The pool then connects to the pooler, which has limits of its own.
            let is_pooled = database.has_direct && settings.prepared_statements == PreparedStatements::Off;
            let pool = if is_pooled { 0 } else { settings.database_connections };
            let per_server = pool.saturating_add(usize::from(settings.notify == Notify::On));
            let (level, text) = limits.finding(replicas, per_server);
            report.add(level, "connections", text);
        }
        Err(error) => report.error("connections", format!("{error}; {}", error.advice())),
    }
}

/// The limits of connections, and the current number of other programs' connections.
struct Limits {
    allowed: i64,
    others: i64,
}

impl Limits {
    fn of(row: &Row) -> Result<Self, StoreError> {
        let allowed: i64 = row.try_get("allowed")?;
        // -1 means no limit.
        let further = ["allowed_to_role", "allowed_to_database"].map(|name| row.try_get::<_, Option<i64>>(name));
        let mut limits = Self { allowed, others: row.try_get("others")? };
        for limit in further {
            if let Some(limit) = limit?.filter(|limit| *limit >= 0) {
                limits.allowed = limits.allowed.min(limit);
            }
        }
        Ok(limits)
    }

    fn finding(&self, replicas: usize, per_server: usize) -> (Level, String) {
        let Self { allowed, others } = *self;
        let needed =
            i64::try_from(replicas.saturating_mul(per_server)).unwrap_or(i64::MAX).saturating_add(WHILE_STARTING);
        let arithmetic = format!(
            "{replicas} × {per_server} + {WHILE_STARTING} for a start = {needed}; other programs use {others}; {allowed} are allowed"
        );
        let advice =
            "raise max_connections (or the limit of the role or database), or lower RIDEWIRE_DATABASE_CONNECTIONS";
        if needed > allowed {
            (Level::Error, format!("{arithmetic}; {advice}"))
        } else if needed.saturating_add(others) > allowed {
            (Level::Warning, format!("{arithmetic}; {advice}"))
        } else {
            (Level::Ok, arithmetic)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_of_all_servers_are_compared_with_the_limits() {
        let limits = Limits { allowed: 97, others: 40 };
        assert_eq!(limits.finding(6, 9).0, Level::Ok);
        assert_eq!(limits.finding(7, 9).0, Level::Warning);
        assert_eq!(limits.finding(11, 9).0, Level::Error);
        assert_eq!(limits.finding(usize::MAX, 9).0, Level::Error);
    }
}
