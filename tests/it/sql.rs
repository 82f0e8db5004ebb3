//! The statements: each is a file, each file is a statement, and Postgres understands them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::Database;

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
        if let Err(error) = client.prepare(&text).await {
            panic!("sql/{name}: {}", error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string));
        }
    }
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
