//! A wrong system clock.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Compiles a library and returns its path. A process that loads the library (`LD_PRELOAD`) sees a clock that is two hours
/// ahead. The C compiler that links the Rust programs builds it.
pub fn clock_ahead() -> String {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock_ahead.c");
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock_ahead-{}.so", std::process::id()));
            let output = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
            let output = output.expect("cc, which links the Rust programs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            library.to_str().expect("a path in UTF-8").to_owned()
        })
        .clone()
}
