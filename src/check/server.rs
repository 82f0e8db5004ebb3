//! Checks the Postgres server: its version, whether it accepts writes, their durability, and its clock.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::database::{Database, row};
use super::{Level, Report};
use crate::auth::ClaimValidation;
use crate::store::{StoreError, sql};

/// The oldest and the newest supported major version.
const OLDEST: i64 = 14;
const NEWEST: i64 = 18;

/// The difference of the clocks, in seconds, from which a warning is reported.
const WARNING_DIFFERENCE: f64 = 2.0;

/// Runs the checks. Returns whether the database accepts writes.
pub(super) async fn check(database: &Database, report: &mut Report) -> bool {
    let before = SystemTime::now();
    let result = row(&database.client, sql::CHECK_SERVER).await;
    let after = SystemTime::now();
    let info = result.and_then(|row| ServerInfo::of(&row));
    match info {
        Ok(info) => {
            let (level, text) = version(info.version);
            report.add(level, "version", text);
            let (level, text) = info.writes();
            report.add(level, "writes", text);
            let (level, text) = info.durability();
            report.add(level, "durability", text);
            let (level, text) = clock(info.clock, seconds(before), seconds(after));
            report.add(level, "clock", text);
            !info.is_standby && !info.is_read_only
        }
        Err(error) => {
            report.error("version", format!("{error}; {}", error.advice()));
            false
        }
    }
}

/// The checked properties of the Postgres server.
#[derive(Debug)]
struct ServerInfo {
    version: i64,
    is_standby: bool,
    is_read_only: bool,
    flushes: bool,
    writes_full_pages: bool,
    synchronous_commit: String,
    has_synchronous_standby: bool,
    clock: f64,
}

impl ServerInfo {
    fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            version: row.try_get("version")?,
            is_standby: row.try_get("is_standby")?,
            is_read_only: row.try_get("is_read_only")?,
            flushes: row.try_get("flushes")?,
            writes_full_pages: row.try_get("writes_full_pages")?,
            synchronous_commit: row.try_get("synchronous_commit")?,
            has_synchronous_standby: row.try_get("has_synchronous_standby")?,
            clock: row.try_get("clock")?,
        })
    }

    fn writes(&self) -> (Level, &'static str) {
        match (self.is_standby, self.is_read_only) {
            (true, _) => (
                Level::Error,
                "it is a standby, so writes get 503; name the primary in DATABASE_URL, or both with \
                 target_session_attrs=read-write",
            ),
            (false, true) => (
                Level::Error,
                "sessions are read-only, so writes get 503; set default_transaction_read_only to off for the database and role",
            ),
            (false, false) => (Level::Ok, "accepted"),
        }
    }

    fn durability(&self) -> (Level, &'static str) {
        if !self.flushes || !self.writes_full_pages {
            let text = "fsync or full_page_writes is off, so a crash of the machine loses acknowledged messages or the whole \
                        database; set both to on";
            return (Level::Error, text);
        }
        match (self.has_synchronous_standby, self.synchronous_commit.as_str()) {
            (true, "local") => (
                Level::Warning,
                "synchronous_commit is local, so a failover may lose acknowledged messages; set it to on",
            ),
            (true, _) => (Level::Ok, "commits wait for the disk and a synchronous standby"),
            // Ridewire sets `synchronous_commit` to on if it is off.
            (false, _) => (Level::Ok, "commits wait for the disk; no synchronous standby"),
        }
    }
}

/// Checks `server_version_num`: the major version, followed by four digits of the minor version.
fn version(number: i64) -> (Level, String) {
    let (major, minor) = (number / 10_000, number % 10_000);
    if major < OLDEST {
        (Level::Error, format!("PostgreSQL {major} is too old; upgrade to {OLDEST} or newer"))
    } else if major > NEWEST {
        let text = "the newest version that this build supports; update Ridewire";
        (Level::Warning, format!("PostgreSQL {major} is newer than {NEWEST}, {text}"))
    } else {
        (Level::Ok, format!("PostgreSQL {major}.{minor}"))
    }
}

/// Compares the clocks, in Unix seconds. The database's clock was read at some time between `before` and `after`, two readings
/// of this machine's clock.
fn clock(database: f64, before: f64, after: f64) -> (Level, String) {
    let difference = if database < before {
        before - database
    } else if database > after {
        after - database
    } else {
        0.0
    };
    let tolerated = ClaimValidation::default().leeway.as_secs_f64();
    let text = || {
        let order = if difference > 0.0 { "ahead of" } else { "behind" };
        format!(
            "this machine's clock is {:.0} s {order} the database's, and tokens are verified by this machine's; run NTP on both",
            difference.abs()
        )
    };
    match difference.abs() {
        large if large > tolerated => (Level::Error, text()),
        notable if notable > WARNING_DIFFERENCE => (Level::Warning, text()),
        _ => (Level::Ok, "this machine and the database agree".to_owned()),
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_versions_are_reported() {
        assert_eq!(version(150_018), (Level::Ok, "PostgreSQL 15.18".to_owned()));
        assert_eq!(version(130_022).0, Level::Error);
        assert_eq!(version(180_001).0, Level::Ok);
        assert_eq!(version(190_000).0, Level::Warning);
    }

    #[test]
    fn clocks_agree_within_the_duration_of_the_query() {
        assert_eq!(clock(100.0, 99.0, 101.0).0, Level::Ok);
        assert_eq!(clock(100.0, 101.0, 111.0).0, Level::Ok);
        let (level, text) = clock(100.0, 110.0, 110.1);
        assert!(level == Level::Warning && text.contains("10 s ahead of"), "{text}");
        let (level, text) = clock(200.0, 100.0, 100.1);
        assert!(level == Level::Error && text.contains("100 s behind"), "{text}");
    }

    #[test]
    fn a_database_that_may_lose_commits_is_reported() {
        let sound = ServerInfo {
            version: 150_000,
            is_standby: false,
            is_read_only: false,
            flushes: true,
            writes_full_pages: true,
            synchronous_commit: "off".to_owned(),
            has_synchronous_standby: false,
            clock: 0.0,
        };
        assert_eq!((sound.durability().0, sound.writes().0), (Level::Ok, Level::Ok));
        let local = ServerInfo { has_synchronous_standby: true, synchronous_commit: "local".to_owned(), ..sound };
        assert_eq!(local.durability().0, Level::Warning);
        let unsafe_pages = ServerInfo { writes_full_pages: false, ..local };
        assert_eq!(unsafe_pages.durability().0, Level::Error);
        assert_eq!(ServerInfo { is_standby: true, ..unsafe_pages }.writes().0, Level::Error);
    }
}
