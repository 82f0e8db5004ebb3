//! The statements: each is a file, each file is a statement, and Postgres understands them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use ridewire::store::{Prepared, Store, StoreConfig, sql};

use crate::support::{Database, PATIENCE, eventually};

/// The statements' files below `sql/`, by path, without the migrations.
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
async fn every_statement_fits_the_migrated_schema() {
    let database = Database::create().await;
    let client = database.client().await;
    for (name, text) in statements() {
        let prepared = client.prepare(&text).await.unwrap_or_else(|error| {
            panic!("sql/{name}: {}", error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string))
        });
        // Where nothing is prepared, the statement itself has to say what its parameters are.
        let said = ridewire::store::parameter_types(&text);
        assert_eq!(said.as_deref(), Some(prepared.params()), "sql/{name}: cast each parameter where it first stands");
    }
}

/// Tables that may be read whole: they hold a row a replica, or a secret.
const SMALL: [&str; 2] = ["replicas", "secrets"];

/// Plans are made once for each connection, often while the tables are empty, and then kept however large these grow. So
/// none may read more than it looks up, not even when that costs nothing yet.
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
        readers_of_everything(&plan[0]["Plan"], &leading, &mut |reader| wrong.push(format!("sql/{name}: {reader}")));
        client.batch_execute("deallocate statement").await.unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The nodes of a plan that look up nothing: scans without a condition on the first column of an index.
fn readers_of_everything(node: &serde_json::Value, leading: &BTreeMap<String, String>, found: &mut impl FnMut(String)) {
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
        readers_of_everything(child, leading, found);
    }
}

/// How the one connection of a store looks up what was sent before, by the plan that it keeps.
async fn kept_plan(store: &Store) -> String {
    let session = store.session().await.unwrap();
    session.prepare(&[sql::MESSAGES_BY_CLIENT_ID]).await.unwrap();
    let name = "select name from pg_prepared_statements where statement = $1";
    let name: String = session.query(name, &[&sql::MESSAGES_BY_CLIENT_ID]).await.unwrap()[0].get(0);
    let plan = session.query(&format!("explain execute {name} ('{{}}', '{{}}', '{{}}')"), &[]).await.unwrap();
    plan.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

/// After `analyze` an empty table is known to be empty, and to read all of it costs nothing. Such plans are not kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_made_when_a_table_was_known_to_be_empty_is_not_kept() {
    let database = Database::create().await;
    let client = database.client().await;
    // It would have the plan made anew within a minute, and hide what is tested.
    client.batch_execute("alter table messages set (autovacuum_enabled = off); analyze").await.unwrap();
    let postgres = database.url.parse().unwrap();
    // Shorter than it is in a server.
    let plans_age = Duration::from_millis(200);
    let config = StoreConfig { postgres, connections: 1, patience: PATIENCE, prepared: Prepared::On, plans_age };
    let store = Store::new(config).unwrap();
    let looks_up = |plan: &str| plan.contains("Index Cond: (((");
    let plan = kept_plan(&store).await;
    assert!(!looks_up(&plan), "then there is nothing to be seen here: {plan}");
    let fill =
        "insert into messages (id, ride_id, seq, sender_id, sender_role, client_message_id, content_hash, created_at)
                select gen_random_uuid(), 'ride', seq, 'rider', 'rider', 'm-' || seq, '', now()
                from generate_series(1, 1000) as seq";
    client.batch_execute(fill).await.unwrap();
    eventually("a plan that looks up", async || looks_up(&kept_plan(&store).await).then_some(())).await;
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

/// What an upsert leaves as it was, because it never changes.
const NEVER_CHANGED: [(&str, &str); 4] =
    [("participants", "role"), ("participants", "joined_at"), ("rides", "rider_id"), ("rides", "created_at")];

/// The names of a list in brackets that follows `before`.
fn names<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let (_, list) = text.split_once(before).unwrap_or_else(|| panic!("{before} in {text}"));
    list.split_once('(').unwrap().1.split_once(')').unwrap().0.split(',').map(str::trim).collect()
}

/// A column that is forgotten keeps what it was, while what is known in memory moves on.
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
            let is_left = keys.contains(&column) || NEVER_CHANGED.contains(&(table, column));
            assert_ne!(set.contains(column), is_left, "sql/{name}: {column}");
        }
    }
    assert!(found > 5, "the upserts");
}

#[test]
fn statements_are_kept_in_files_alone_and_in_lower_case() {
    const WORDS: [&str; 12] = [
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
            assert!(!WORDS.contains(&word), "sql/{name}: {word}");
        }
    }
}
