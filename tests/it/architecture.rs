//! The allowed imports between modules. A change of this table is a change of the architecture: update the map in
//! `src/lib.rs` too.

mod cycles;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate with the modules that it may import. A module may only import modules above it.
const MODULES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("embedded", &[]),
    ("config", &["embedded"]),
    ("telemetry", &["config"]),
    ("version", &[]),
    ("auth", &["domain"]),
    ("keys", &["auth", "config", "embedded"]),
    ("trust", &[]),
    ("happy_eyeballs", &[]),
    ("web", &["trust", "happy_eyeballs"]),
    ("jwks", &["auth", "web"]),
    ("signature", &[]),
    ("moderation", &["domain", "signature", "web"]),
    ("traces", &["domain", "web"]),
    ("memory", &[]),
    ("deferred", &[]),
    ("serving", &["config", "deferred", "memory"]),
    ("store", &["domain", "trust", "happy_eyeballs"]),
    ("realtime", &["domain", "store"]),
    ("writer", &["domain", "store"]),
    ("shards", &["domain", "store", "realtime", "writer"]),
    ("webhooks", &["domain", "signature", "web", "store"]),
    ("push", &["domain", "web", "store"]),
    ("audit", &["domain", "store"]),
    ("handovers", &["domain", "store"]),
    (
        "http",
        &[
            "domain",
            "auth",
            "jwks",
            "signature",
            "moderation",
            "traces",
            "deferred",
            "memory",
            "store",
            "realtime",
            "writer",
            "shards",
            "webhooks",
            "push",
            "audit",
            "handovers",
        ],
    ),
    ("demo", &["domain", "auth", "config", "keys", "writer", "http"]),
    (
        "app",
        &[
            "domain",
            "embedded",
            "config",
            "telemetry",
            "auth",
            "keys",
            "jwks",
            "moderation",
            "traces",
            "memory",
            "serving",
            "store",
            "realtime",
            "writer",
            "shards",
            "webhooks",
            "push",
            "audit",
            "handovers",
            "http",
            "demo",
        ],
    ),
    ("check", &["domain", "embedded", "config", "auth", "keys", "web", "jwks", "serving", "store", "realtime", "app"]),
    ("cli", &["domain", "config", "telemetry", "version", "keys", "web", "http", "demo", "app", "check"]),
];

/// The maximum number of lines of a source file.
const MAX_LINES: usize = 400;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns all Rust files below a directory.
fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// Returns all source files as (path, top-level module, text).
fn files() -> Vec<(PathBuf, String, String)> {
    let files = rust_files(&source()).into_iter().map(|path| {
        let below = path.strip_prefix(source()).unwrap();
        let module = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        (path, module, text)
    });
    let files: Vec<_> = files.collect();
    assert!(files.len() > 50, "the crate's files");
    files
}

/// Returns the modules that a line of code imports: `crate::store`, or each of `crate::{domain, store::sql}`.
fn imports(line: &str) -> Vec<&str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let code = line.split("//").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                // Only the first name of each path, not names in nested braces.
                let mut depth = 0;
                let parts = list.split(|c: char| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                });
                found.extend(parts.map(|part| part.trim().split(ends).next().unwrap_or_default()));
            }
            None => found.push(rest.split(ends).next().unwrap_or_default()),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn modules_import_only_allowed_modules() {
    let modules: BTreeSet<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (path, module, text) in files() {
        let path = path.strip_prefix(source()).unwrap().display().to_string();
        if module == "main" || module == "lib" {
            continue;
        }
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("src/{path}: the module `{module}` is missing in the table of this test"));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for import in imports(line) {
                if modules.contains(import) && import != module && !allowed.contains(&import) {
                    wrong.push(format!("src/{path}:{}: `{module}` may not import `{import}`: {line}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_module_table_has_no_cycles() {
    for (index, (module, allowed)) in MODULES.iter().enumerate() {
        for import in *allowed {
            let above = MODULES[..index].iter().any(|(name, _)| name == import);
            assert!(above, "`{module}` imports `{import}`, which is not above it in the table");
        }
    }
}

#[test]
fn imports_are_found_in_each_notation() {
    assert_eq!(imports("use crate::domain::{Error, Result};"), ["domain"]);
    assert_eq!(imports("use crate::{app, store::{Store, sql}, http};"), ["app", "store", "http"]);
    assert_eq!(imports("    let x = crate::auth::Keys::new(crate::config::X); // crate::http"), ["auth", "config"]);
    assert_eq!(imports("//! [`crate::http`]"), Vec::<&str>::new());
}

#[test]
fn no_source_file_exceeds_the_maximum_length() {
    for (path, _, text) in files() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines; the maximum is {MAX_LINES}: split the file", path.display());
    }
}
