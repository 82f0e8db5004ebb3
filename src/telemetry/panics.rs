//! Panics as log lines.
//!
//! A formatted panic message may contain a client's data; the one of an invalid string index does. So the message is logged only
//! if it is a constant. The location is always logged, and with `RUST_BACKTRACE=1` the backtrace as well.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

/// Installs a hook that logs all panics, instead of the text that Rust writes to standard error.
pub(super) fn install_hook() {
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let reason = info.payload().downcast_ref::<&'static str>().copied();
    let location = info.location().map(|at| format!("{}:{}", shortened(at.file()), at.line()));
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(reason, location, thread = thread.name(), backtrace, "panicked");
}

/// Returns the path of a source file without the directories of the build machine.
fn shortened(file: &str) -> &str {
    // The directory of the registry contains one directory per crate.
    let of_crate = file.split_once("/registry/src/").and_then(|(_, below)| below.split_once('/'));
    match of_crate {
        Some((_, file)) => file,
        None if file.starts_with('/') => file.rsplit('/').next().unwrap_or_default(),
        None => file,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    use super::*;
    use crate::config::LogFormat;

    #[test]
    fn paths_of_the_build_machine_are_removed() {
        let of_crate = "/home/builder/.cargo/registry/src/a-registry-1949cf8c6b5b557f/hyper-1.12.0/src/body.rs";
        assert_eq!(shortened(of_crate), "hyper-1.12.0/src/body.rs");
        assert_eq!(shortened("/rustc/0123/library/core/src/str.rs"), "str.rs");
        assert_eq!(shortened("src/http.rs"), "src/http.rs");
    }

    const CHILD: &str = "RIDEWIRE_TEST_OF_PANICS";

    /// The logger and the panic hook are process-wide, so the test runs itself in a child process.
    #[test]
    fn panics_are_logged_without_formatted_messages() {
        if std::env::var_os(CHILD).is_some() {
            let _logging = crate::telemetry::start_with("info", LogFormat::Json);
            let quoting =
                thread::Builder::new().name("quoting".to_owned()).spawn(|| panic!("ZEBRA {}", std::process::id()));
            assert!(quoting.unwrap().join().is_err());
            let constant = thread::Builder::new().name("constant".to_owned()).spawn(|| panic!("a constant"));
            assert!(constant.unwrap().join().is_err());
            tracing::info!(target: "access", "the last line");
            return;
        }
        let this = "telemetry::panics::tests::panics_are_logged_without_formatted_messages";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", this, "--nocapture"]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
        let output = child.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !log.contains("ZEBRA"), "{log}");
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines.len(), 3, "{log}");
        assert!(lines[0]["message"] == "panicked" && lines[0]["thread"] == "quoting", "{log}");
        assert!(lines[0]["location"].as_str().unwrap().starts_with("src/telemetry/panics.rs:"), "{log}");
        assert_eq!((&lines[0]["reason"], &lines[1]["reason"]), (&Value::Null, &Value::from("a constant")));
        assert_eq!(lines[2]["message"], "the last line");
    }
}
