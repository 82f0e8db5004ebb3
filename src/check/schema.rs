//! Checks the schema's version, and the privileges of the database role.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::database::{Database, row};
use super::{Level, Report};
use crate::store::{SchemaState, StoreError, compare, parameter_types, sql};

/// The most error messages of Postgres that the report shows.
const MAX_SHOWN: usize = 3;

/// Compares the schema with the migrations of this version. Then checks whether Postgres lets this role run each statement of
/// the server.
pub(super) async fn check(database: &mut Database, report: &mut Report) {
    let privileges = row(&database.direct_client, sql::CHECK_RIGHTS).await.and_then(|row| Privileges::of(&row));
    let privileges = match privileges {
        Ok(privileges) => privileges,
        Err(error) => return report.error("privileges", format!("{error}; {}", error.advice())),
    };
    let Some(schema) = &privileges.schema else {
        let text = "`search_path` names no existing schema; create it, or correct it in DATABASE_URL";
        return report.error("schema", text);
    };
    let state = match compare(&mut database.direct_client).await {
        Ok(state) => state,
        Err(error) => return report.error("schema", format!("{error}; {}", error.advice())),
    };
    let (level, text) = schema_finding(&state);
    report.add(level, "schema", text);
    let mut missing = privileges.missing(schema, !state.pending.is_empty());
    if state.applied > 0 && state.pending.is_empty() {
        missing.extend(denied(&database.client).await);
    }
    match missing.is_empty() {
        true => report.ok("privileges", format!("{} may run all statements in schema {schema}", privileges.role)),
        false => report.error(
            "privileges",
            format!(
                "{}; make {role} the owner of the schema, or grant {role} these privileges",
                missing.join("; "),
                role = privileges.role
            ),
        ),
    }
}

/// The names of the database, schema and role, and the role's privileges.
struct Privileges {
    database: String,
    schema: Option<String>,
    role: String,
    creates: bool,
    locks: bool,
    notifies: bool,
}

impl Privileges {
    fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            database: row.try_get("database")?,
            schema: row.try_get("schema")?,
            role: row.try_get("role")?,
            creates: row.try_get("creates")?,
            locks: row.try_get("locks")?,
            notifies: row.try_get("notifies")?,
        })
    }

    fn missing(&self, schema: &str, is_migrated_next: bool) -> Vec<String> {
        let Self { database, role, .. } = self;
        let mut missing = Vec::new();
        if is_migrated_next && !self.creates {
            missing.push(format!(
                "{role} may not create tables in schema {schema} of database {database}, but the next start migrates"
            ));
        }
        if !self.locks {
            missing.push(format!("{role} may not execute pg_advisory_xact_lock"));
        }
        if !self.notifies {
            missing.push(format!("{role} may not execute pg_notify"));
        }
        missing
    }
}

fn schema_finding(state: &SchemaState) -> (Level, String) {
    let SchemaState { applied, pending, unknown, divergent } = state;
    if !divergent.is_empty() {
        let text = "was applied with another content than in this version; run the build that migrated the database";
        return (Level::Error, format!("{} {text}, or restore a backup", divergent.join(", ")));
    }
    if !unknown.is_empty() {
        let text = "is unknown to this version, so the server does not start; run the newer version that migrated the database";
        return (Level::Error, format!("{} {text}", unknown.join(", ")));
    }
    match (*applied, pending.len()) {
        (0, _) => (Level::Ok, "empty; the first start creates it".to_owned()),
        (applied, 0) => (Level::Ok, format!("up to date, {applied} migrations")),
        (_, _) => (
            Level::Warning,
            format!(
                "the next start migrates: {}; see CHANGELOG.md for long locks, or run `ridewire migrate` first",
                pending.join(", ")
            ),
        ),
    }
}

/// Returns the error messages of Postgres for the statements that this role may not run. `explain` checks the privileges of a
/// statement without running it.
async fn denied(client: &Client) -> Vec<String> {
    let prefix = format!("ridewire_check_{:08x}", fastrand::u32(..));
    let explained = sql::ALL.iter().enumerate().map(|(number, statement)| {
        let name = format!("{prefix}_{number}");
        async move {
            let count = parameter_types(statement).map_or(0, |types| types.len());
            let nulls = vec!["null"; count].join(", ");
            let nulls = if count == 0 { nulls } else { format!("({nulls})") };
            let all = format!("prepare {name} as {statement}\n; explain execute {name} {nulls}; deallocate {name}");
            let error = client.simple_query(&all).await.err()?;
            // Through a pooler this may run on another backend. The statement then ends with the session of its own backend.
            drop(client.simple_query(&format!("deallocate {name}")).await);
            let error = error.as_db_error().filter(|error| *error.code() == SqlState::INSUFFICIENT_PRIVILEGE)?;
            Some(error.message().to_owned())
        }
    });
    // Pipelined: sent one after another without waiting for responses.
    let denied: BTreeSet<String> = join_all(explained).await.into_iter().flatten().collect();
    let more = denied.len().saturating_sub(MAX_SHOWN);
    let mut shown: Vec<_> = denied.into_iter().take(MAX_SHOWN).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incompatible_schema_is_an_error() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let sound = SchemaState { applied: 3, ..SchemaState::default() };
        assert_eq!(schema_finding(&sound).0, Level::Ok);
        assert_eq!(
            schema_finding(&SchemaState { pending: names(&["V1__core"]), ..SchemaState::default() }).0,
            Level::Ok
        );
        let (level, text) = schema_finding(&SchemaState { pending: names(&["V4__x", "V5__y"]), ..sound.clone() });
        assert!(level == Level::Warning && text.contains("V4__x, V5__y"), "{text}");
        assert_eq!(schema_finding(&SchemaState { unknown: names(&["V9__z"]), ..sound.clone() }).0, Level::Error);
        assert_eq!(schema_finding(&SchemaState { divergent: names(&["V1__core"]), ..sound }).0, Level::Error);
    }
}
