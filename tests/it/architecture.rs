//! What may know what. A change that needs another line here is a change of the architecture: of DESIGN and of the
//! map in `src/lib.rs`, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate, and those that it may import. Nothing may be imported that stands further down.
const MODULES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("embedded", &[]),
    ("config", &["embedded"]),
    ("telemetry", &["config"]),
    ("version", &[]),
    ("auth", &["domain"]),
    ("keys", &["auth", "config", "embedded"]),
    ("web", &[]),
    ("jwks", &["auth", "web"]),
    ("signature", &[]),
    ("moderation", &["domain", "signature", "web"]),
    ("traces", &["domain", "web"]),
    ("memory", &[]),
    ("serving", &["config", "memory"]),
    ("store", &["domain"]),
    ("realtime", &["domain", "store"]),
    ("writer", &["domain", "store"]),
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
            "memory",
            "store",
            "realtime",
            "writer",
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

/// The most lines of a source file.
const LONGEST: usize = 400;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files of the crate, with the module of the crate that they belong to and their text.
fn files() -> Vec<(PathBuf, String, String)> {
    let mut files = Vec::new();
    let mut directories = vec![source()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(source()).unwrap();
                let module = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, module, text));
            }
        }
    }
    assert!(files.len() > 50, "the crate's files");
    files
}

/// The modules that a line of code names: `crate::store`, or each of `crate::{domain, store::sql}`.
fn imports(line: &str) -> Vec<&str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let code = line.split("//").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                // Only the first names of the list, not what is inside of braces of their own.
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
fn imports_run_one_way() {
    let known: BTreeSet<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (path, module, text) in files() {
        let path = path.strip_prefix(source()).unwrap().display().to_string();
        if module == "main" || module == "lib" {
            continue;
        }
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("src/{path}: the module `{module}` has no place in the table of this test"));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for import in imports(line) {
                if known.contains(import) && import != module && !allowed.contains(&import) {
                    wrong.push(format!("src/{path}:{}: `{module}` may not know `{import}`: {line}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_itself_runs_one_way() {
    for (place, (module, allowed)) in MODULES.iter().enumerate() {
        for import in *allowed {
            let above = MODULES[..place].iter().any(|(name, _)| name == import);
            assert!(above, "`{module}` imports `{import}`, which stands below it or nowhere");
        }
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    assert_eq!(imports("use crate::domain::{Error, Result};"), ["domain"]);
    assert_eq!(imports("use crate::{app, store::{Store, sql}, http};"), ["app", "store", "http"]);
    assert_eq!(imports("    let x = crate::auth::Keys::new(crate::config::X); // crate::http"), ["auth", "config"]);
    assert_eq!(imports("//! [`crate::http`]"), Vec::<&str>::new());
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for (path, _, text) in files() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines: it is asking to be two files", path.display());
    }
}
