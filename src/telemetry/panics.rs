//! Panics, as log lines.
//!
//! A message that was put together may quote what a client has sent (that of a bad index into text does), so only one that is a
//! constant is logged; the place is there in any case. With `RUST_BACKTRACE=1` so is the backtrace.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

/// Has all panics logged from now on, in place of the text that Rust writes to standard error.
pub(super) fn log() {
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

/// A source file's path, without that of the machine which has built it.
fn shortened(file: &str) -> &str {
    // Below the folder of the registry is one for each crate.
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
    fn a_path_of_the_building_machine_is_left_out() {
        let of_crate = "/home/builder/.cargo/registry/src/a-registry-1949cf8c6b5b557f/hyper-1.12.0/src/body.rs";
        assert_eq!(shortened(of_crate), "hyper-1.12.0/src/body.rs");
        assert_eq!(shortened("/rustc/0123/library/core/src/str.rs"), "str.rs");
        assert_eq!(shortened("src/http.rs"), "src/http.rs");
    }

    const CHILD: &str = "RIDEWIRE_TEST_OF_PANICS";

    /// Logging and its panics are of a whole process. So this is started once more, by itself.
    #[test]
    fn panics_are_lines_of_the_log_without_what_they_quote() {
        if std::env::var_os(CHILD).is_some() {
            let _logging = crate::telemetry::begin("info", LogFormat::Json);
            let quoting =
                thread::Builder::new().name("quoting".to_owned()).spawn(|| panic!("ZEBRA {}", std::process::id()));
            assert!(quoting.unwrap().join().is_err());
            let constant = thread::Builder::new().name("constant".to_owned()).spawn(|| panic!("a constant"));
            assert!(constant.unwrap().join().is_err());
            tracing::info!(target: "access", "the last line");
            return;
        }
        let this = "telemetry::panics::tests::panics_are_lines_of_the_log_without_what_they_quote";
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
