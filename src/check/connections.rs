//! Whether Postgres has as many connections as all servers will want.

use tokio_postgres::Row;

use super::database::{Database, row};
use super::{Level, Report};
use crate::config::{Notify, PreparedStatements, Settings};
use crate::store::{StoreError, sql};

/// What one server at a time has besides, while it migrates; cancel requests are as short.
const WHILE_STARTING: i64 = 2;

/// Compares what the servers may use with what there may be.
pub(super) async fn check(database: &Database, settings: &Settings, replicas: usize, report: &mut Report) {
    let limits = row(&database.direct_client, sql::CHECK_CONNECTIONS).await.and_then(|row| Limits::of(&row));
    match limits {
        Ok(limits) => {
            // Those of the pool are the pooler's then, which has limits of its own.
            let is_pooled = database.has_direct && settings.prepared_statements == PreparedStatements::Off;
            let pool = if is_pooled { 0 } else { settings.database_connections };
            let of_each = pool.saturating_add(usize::from(settings.notify == Notify::On));
            let (level, text) = limits.finding(replicas, of_each);
            report.add(level, "connections", text);
        }
        Err(error) => report.error("connections", format!("{error}; {}", error.advice())),
    }
}

struct Limits {
    allowed: i64,
    others: i64,
}

impl Limits {
    fn of(row: &Row) -> Result<Self, StoreError> {
        let allowed: i64 = row.try_get("allowed")?;
        // -1 is no limit.
        let further = ["allowed_to_role", "allowed_to_database"].map(|name| row.try_get::<_, Option<i64>>(name));
        let mut limits = Self { allowed, others: row.try_get("others")? };
        for limit in further {
            if let Some(limit) = limit?.filter(|limit| *limit >= 0) {
                limits.allowed = limits.allowed.min(limit);
            }
        }
        Ok(limits)
    }

    fn finding(&self, replicas: usize, of_each: usize) -> (Level, String) {
        let Self { allowed, others } = *self;
        let ours = i64::try_from(replicas.saturating_mul(of_each)).unwrap_or(i64::MAX).saturating_add(WHILE_STARTING);
        let arithmetic = format!(
            "{replicas} × {of_each} and {WHILE_STARTING} to start are {ours}, other programs have {others}, {allowed} are allowed"
        );
        let advice =
            "raise max_connections (or the limit of the role or database), or lower RIDEWIRE_DATABASE_CONNECTIONS";
        if ours > allowed {
            (Level::Error, format!("{arithmetic}; {advice}"))
        } else if ours.saturating_add(others) > allowed {
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
    fn what_all_servers_may_use_is_compared_with_what_is_allowed() {
        let limits = Limits { allowed: 97, others: 40 };
        assert_eq!(limits.finding(6, 9).0, Level::Ok);
        assert_eq!(limits.finding(7, 9).0, Level::Warning);
        assert_eq!(limits.finding(11, 9).0, Level::Error);
        assert_eq!(limits.finding(usize::MAX, 9).0, Level::Error);
    }
}
