//! The SQL statements: one per file, each valid on the migrated schema, with plans that scale.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use ridewire::store::{Prepared, Store, StoreConfig, pool_wait_histogram, sql};

use crate::support::{Database, TIMEOUT, eventually};

/// Returns the statement files below `sql/` without the migrations, by path.
fn statements() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut found = BTreeMap::new();
    for directory in fs::read_dir(&root).unwrap() {
        let directory = directory.unwrap().path();
        if directory.ends_with("migrations") {
            continue;
        }
        for file in fs::read_dir(&directory).unwrap() {
            let file = file.unwrap().path();
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read_to_string(&file).unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_can_be_prepared_on_the_migrated_schema() {
    let database = Database::create().await;
    let client = database.client().await;
    for (name, text) in statements() {
        let prepared = client.prepare(&text).await.unwrap_or_else(|error| {
            panic!("sql/{name}: {}", error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string))
        });
        // Without prepared statements, the text itself must determine the parameter types.
        let types = ridewire::store::parameter_types(&text);
        assert_eq!(types.as_deref(), Some(prepared.params()), "sql/{name}: cast each parameter at its first use");
    }
}

/// Tables that may be scanned: they have one row per replica, or one secret.
const SMALL: [&str; 2] = ["replicas", "secrets"];

/// A plan is made once per connection, often while tables are empty, and cached while they grow. So no plan may scan a whole
/// table, even if that is cheap at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_plan_made_on_an_empty_database_reads_a_whole_table_or_index() {
    let database = Database::create().await;
    let client = database.client().await;
    client.batch_execute(ridewire::store::SETTINGS).await.unwrap();
    let leading = "select indexrelid::regclass::text, pg_get_indexdef(indexrelid, 1, true) from pg_index";
    let leading = client.query(leading, &[]).await.unwrap();
    let leading: BTreeMap<String, String> = leading.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut wrong = Vec::new();
    for (name, text) in statements() {
        client.batch_execute(&format!("prepare statement as {text}")).await.unwrap();
        let row = client
            .query_one("select cardinality(parameter_types) from pg_prepared_statements where name = 'statement'", &[]);
        let count: i32 = row.await.unwrap().get(0);
        let nulls = vec!["null"; usize::try_from(count).unwrap()].join(", ");
        let nulls = if count == 0 { String::new() } else { format!("({nulls})") };
        let plan = client.query_one(&format!("explain (format json) execute statement {nulls}"), &[]).await.unwrap();
        let plan: serde_json::Value = plan.get(0);
        full_scans(&plan[0]["Plan"], &leading, &mut |reader| wrong.push(format!("sql/{name}: {reader}")));
        client.batch_execute("deallocate statement").await.unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Collects the nodes of a plan that scan without a condition on the first column of an index.
fn full_scans(node: &serde_json::Value, leading: &BTreeMap<String, String>, found: &mut impl FnMut(String)) {
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    let (kind, relation, index, condition) =
        (text("Node Type"), text("Relation Name"), text("Index Name"), text("Index Cond"));
    let looks_up = match kind {
        "Seq Scan" => SMALL.contains(&relation),
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" => {
            let words = |text: &str| -> BTreeSet<String> {
                text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect()
            };
            words(condition).is_superset(&words(&leading[index]))
        }
        _ => true,
    };
    if !looks_up {
        found(format!("{kind} of {relation} {index} (condition: {condition})"));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        full_scans(child, leading, found);
    }
}

/// Returns the cached plan of the duplicate lookup on the store's only connection.
async fn cached_plan(store: &Store) -> String {
    let session = store.session().await.unwrap();
    session.prepare(&[sql::MESSAGES_BY_CLIENT_ID]).await.unwrap();
    let name = "select name from pg_prepared_statements where statement = $1";
    let name: String = session.query(name, &[&sql::MESSAGES_BY_CLIENT_ID]).await.unwrap()[0].get(0);
    let plan = session.query(&format!("explain execute {name} ('{{}}', '{{}}', '{{}}')"), &[]).await.unwrap();
    plan.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

/// After `analyze`, the planner sees that a table is empty and prefers a scan. Such plans must not be cached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_made_on_an_empty_table_is_not_cached() {
    let database = Database::create().await;
    let client = database.client().await;
    // Autovacuum would trigger a new plan within a minute and hide the effect.
    client.batch_execute("alter table messages set (autovacuum_enabled = off); analyze").await.unwrap();
    let postgres = database.url.parse().unwrap();
    // Shorter than in production.
    let plan_ttl = Duration::from_millis(200);
    let config = StoreConfig {
        postgres,
        connections: 1,
        timeout: TIMEOUT,
        prepared: Prepared::On,
        plan_ttl,
        pool_wait: pool_wait_histogram().unwrap(),
    };
    let store = Store::new(config).unwrap();
    let looks_up = |plan: &str| plan.contains("Index Cond: (((");
    let plan = cached_plan(&store).await;
    assert!(!looks_up(&plan), "the plan must scan for this test to be valid: {plan}");
    let fill =
        "insert into messages (id, ride_id, seq, sender_id, sender_role, client_message_id, content_hash, created_at)
                select gen_random_uuid(), 'ride', seq, 'rider', 'rider', 'm-' || seq, '', now()
                from generate_series(1, 1000) as seq";
    client.batch_execute(fill).await.unwrap();
    eventually("a plan with an index lookup", async || looks_up(&cached_plan(&store).await).then_some(())).await;
}

#[test]
fn every_file_has_its_constant_and_every_constant_its_file() {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql.rs")).unwrap();
    let mut constants = BTreeSet::new();
    for line in source.lines() {
        let Some((name, file)) = line.trim().trim_end_matches(';').split_once(" = \"") else { continue };
        let file = file.trim_end_matches('"');
        let expected = file.trim_end_matches(".sql").replace('/', "_").to_uppercase();
        assert_eq!(name, expected, "a constant is named after its file");
        assert!(constants.insert(file.to_owned()), "{file} has two constants");
    }
    let files: BTreeSet<String> = statements().into_keys().collect();
    assert_eq!(constants, files);
}

/// Columns that an upsert does not set because they never change.
const NEVER_CHANGED: [(&str, &str); 4] =
    [("participants", "role"), ("participants", "joined_at"), ("rides", "rider_id"), ("rides", "created_at")];

/// Returns the names in the list in parentheses after `before`.
fn names<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let (_, list) = text.split_once(before).unwrap_or_else(|| panic!("{before} in {text}"));
    list.split_once('(').unwrap().1.split_once(')').unwrap().0.split(',').map(str::trim).collect()
}

/// A forgotten column would keep its old value in the database while the cache has the new one.
#[test]
fn an_upsert_sets_every_column_that_can_change() {
    let mut found = 0;
    for (name, text) in statements() {
        let Some((insert, update)) = text.split_once("do update") else { continue };
        found += 1;
        let table = insert.split_once("insert into ").unwrap().1.split_whitespace().next().unwrap();
        let set = update.split("where").next().unwrap().split("returning").next().unwrap();
        let set: BTreeSet<_> = set
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("set ").split_once('='))
            .map(|(column, _)| column.trim())
            .collect();
        let keys = names(&text, "on conflict");
        for column in names(&text, "insert into") {
            let is_unchanged = keys.contains(&column) || NEVER_CHANGED.contains(&(table, column));
            assert_ne!(set.contains(column), is_unchanged, "sql/{name}: {column}");
        }
    }
    assert!(found > 5, "the upserts");
}

#[test]
fn statements_are_only_in_files_and_in_lower_case() {
    const KEYWORDS: [&str; 12] = [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "FROM",
        "WHERE",
        "JOIN",
        "VALUES",
        "RETURNING",
        "ORDER",
        "AND",
        "NULL",
    ];
    for (name, text) in statements() {
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        for word in code.split(|c: char| !c.is_ascii_alphanumeric()) {
            assert!(!KEYWORDS.contains(&word), "sql/{name}: {word}");
        }
    }
}
