//! Imports between files are acyclic: the files and directories of a directory do not import each other, directly or indirectly.
//!
//! A file may use the items of its parent module, and a parent those of its submodules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::rust_files;

/// The path of a module, from the root of its crate.
type Module = Vec<String>;

/// The imports and the re-exports of a file.
#[derive(Debug, Default)]
struct Imports {
    uses: Vec<Module>,
    /// The path of each re-exported name.
    reexports: BTreeMap<String, Module>,
}

/// Returns the paths of a `use` tree: of `a::{b, c::{self, D as E}}` these are `a::b`, `a::c` and `a::c::D`.
fn paths(tree: &str) -> Vec<Module> {
    let tree = tree.trim();
    let Some((prefix, list)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        return vec![name.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let prefix: Module = prefix.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let list = list.trim_end().strip_suffix('}').expect("each brace is closed");
    let mut depth = 0;
    let parts = list.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let below = parts.filter(|part| !part.trim().is_empty()).flat_map(paths);
    below
        .map(|path| {
            prefix.iter().cloned().chain(path.into_iter().filter(|part| part != "self" || prefix.is_empty())).collect()
        })
        .collect()
}

/// Returns the code of a file without its comments and its unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns a path of `module` as a path from the crate's root.
fn absolute(module: &Module, path: &Module) -> Option<Module> {
    let mut base = module.clone();
    let mut rest = path.as_slice();
    match rest.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        _ => {}
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// Returns the imports of a file: its `use` declarations, and the paths in its code that begin with `crate` or `super`.
fn imports(module: &Module, text: &str) -> Imports {
    let code = code(text);
    let mut imports = Imports::default();
    let mut rest = code.as_str();
    while let Some(at) = rest.find("use ") {
        let (before, after) = rest.split_at(at);
        rest = &after["use ".len()..];
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        if !(line.is_empty() || line.starts_with("pub")) {
            continue;
        }
        let (tree, behind) = rest.split_once(';').expect("a declaration ends with a semicolon");
        rest = behind;
        for path in paths(tree).iter().filter_map(|path| absolute(module, path)) {
            if line.is_empty() {
                imports.uses.push(path);
            } else if let Some(name) = path.last() {
                imports.reexports.insert(name.clone(), path);
            }
        }
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let path = code[at..].split(|c| !is_name(c)).next().unwrap_or_default();
            let path: Module = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            imports.uses.extend(absolute(module, &path));
        }
    }
    imports
}

/// Returns the file that defines the item of a path.
fn file(files: &BTreeMap<Module, Imports>, path: &[String], depth: usize) -> Option<Module> {
    let (found, imports) = (0..=path.len()).rev().find_map(|length| files.get_key_value(&path[..length]))?;
    let behind = path.get(found.len()).and_then(|name| imports.reexports.get(name));
    // The depth is bounded, so circular re-exports end.
    behind.filter(|_| depth < 8).and_then(|path| file(files, path, depth + 1)).or_else(|| Some(found.clone()))
}

/// Returns the imports that are part of a cycle among the files below a directory.
fn cyclic_imports(root: &Path) -> Vec<String> {
    let mut files = BTreeMap::new();
    for path in rust_files(root) {
        let below = path.strip_prefix(root).unwrap().with_extension("");
        let module: Module = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module != ["main"] && module != ["lib"] {
            let text = fs::read_to_string(&path).unwrap();
            files.insert(module.clone(), imports(&module, &text));
        }
    }
    // For each directory, the imports among its modules, each with an example.
    let mut siblings: BTreeMap<Module, BTreeMap<Module, BTreeMap<Module, String>>> = BTreeMap::new();
    for (from, imports) in &files {
        for to in imports.uses.iter().filter_map(|path| file(&files, path, 0)) {
            let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if common == from.len() || common == to.len() {
                continue;
            }
            let example = format!("{} imports {}", from.join("/"), to.join("/"));
            let graph = siblings.entry(from[..common].to_vec()).or_default();
            graph.entry(from[..=common].to_vec()).or_default().insert(to[..=common].to_vec(), example);
        }
    }
    let mut cycles = Vec::new();
    for graph in siblings.values() {
        for (from, imported) in graph {
            for (to, example) in imported {
                if reachable(graph, to).contains(from) {
                    cycles.push(example.clone());
                }
            }
        }
    }
    cycles
}

/// Returns all modules that a module imports, directly or indirectly.
fn reachable(graph: &BTreeMap<Module, BTreeMap<Module, String>>, from: &Module) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    found
}

#[test]
fn imports_between_files_are_acyclic() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in ["src", "benches/ridewire"] {
        let cycles = cyclic_imports(&root.join(directory));
        assert!(cycles.is_empty(), "cyclic imports in {directory}:\n{}", cycles.join("\n"));
    }
}

#[test]
fn cyclic_imports_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    fs::create_dir(directory.path().join("a")).unwrap();
    write("a.rs", "mod x;\npub use self::x::{X, Y as Z};\n");
    write("a/x.rs", "use super::Parent;\n/// [`crate::c`]\nuse crate::b::{self, Deep::{One, Two}};\n");
    write("b.rs", "fn call() {\n    crate::c::call();\n}\n");
    write("c.rs", "use std::fmt;\n");
    assert_eq!(cyclic_imports(directory.path()), Vec::<String>::new());
    write("c.rs", "pub use std::fmt;\nuse crate::a::X;\n");
    assert_eq!(cyclic_imports(directory.path()), ["a/x imports b", "b imports c", "c imports a/x"]);
    write("c.rs", "#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n");
    assert_eq!(cyclic_imports(directory.path()), Vec::<String>::new());
}
