//! `scripts/rust.sh`, the first step of `make run`: its report about the installed Rust.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const REQUIRED: &str = env!("CARGO_PKG_RUST_VERSION");

/// A machine with the system's programs and an empty home directory.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(machine.path("bin")).unwrap();
        machine
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.0.path().join(below)
    }

    /// Installs a program, which is a shell script.
    fn install(&self, program: &str, script: &str) {
        write_program(&self.path("bin").join(program), script);
    }

    /// Runs the script without a terminal.
    fn run(&self, install: &str) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rust.sh"));
        script.env_clear().env("PATH", path).env("HOME", self.0.path()).env("RIDEWIRE_INSTALL_RUST", install);
        script.stdin(Stdio::null()).output().unwrap()
    }
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

fn is_cargo_of_the_system() -> bool {
    ["/usr/bin/cargo", "/bin/cargo"].iter().any(|path| Path::new(path).exists())
}

#[test]
fn a_current_rust_prints_nothing() {
    let machine = Machine::new();
    machine.install("cargo", &format!("echo 'cargo {REQUIRED}.0 (0123abcde 2026-01-01)'"));
    let output = machine.run("");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn an_outdated_rust_is_reported_with_the_required_version() {
    let machine = Machine::new();
    machine.install("cargo", "echo 'cargo 1.9.3 (0123abcde 2026-01-01)'");
    let output = machine.run("1");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        error.contains("Rust 1.9.3 is installed") && error.contains(&format!("Rust {REQUIRED} or newer")),
        "{error}"
    );
}

#[test]
fn without_rust_and_without_a_terminal_it_reports_how_to_install_it_and_installs_nothing() {
    if is_cargo_of_the_system() {
        return;
    }
    let machine = Machine::new();
    machine.install("curl", "echo 'unexpected download' >&2; exit 1");
    let output = machine.run("");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains("RIDEWIRE_INSTALL_RUST=1") && error.contains("https://rustup.rs"), "{error}");
    assert!(!error.contains("unexpected download"), "{error}");
}

#[test]
fn rust_is_installed_with_rustup_on_request() {
    if is_cargo_of_the_system() {
        return;
    }
    let machine = Machine::new();
    // Replaces the download of rustup's installer, which would install cargo into the home directory.
    let installer = format!(
        "mkdir -p \\$HOME/.cargo/bin\nprintf '#!/bin/sh\\necho cargo {REQUIRED}.1\\n' >\\$HOME/.cargo/bin/cargo\nchmod +x \\$HOME/.cargo/bin/cargo"
    );
    let curl = format!(
        "for last in \"$@\"; do :; done\n[ \"$last\" = https://sh.rustup.rs ] || exit 1\nwhile [ \"$1\" != -o ]; do shift; done\ncat >\"$2\" <<END\n{installer}\nEND"
    );
    machine.install("curl", &curl);
    let output = machine.run("1");
    assert!(output.status.success(), "{output:?}");
    assert!(machine.path(".cargo/bin/cargo").exists());
    assert!(machine.run("").status.success(), "the installed Rust is found");
}
