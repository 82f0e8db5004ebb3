//! A clock that is wrong.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A library that sets the clock of a process that loads it (`LD_PRELOAD`) two hours ahead. The compiler of C that links our
/// programs makes it.
pub fn clock_ahead() -> String {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock_ahead.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock_ahead-{}.so", std::process::id()));
        let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
        let made = made.expect("cc, which links our programs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        library.to_str().expect("a path in UTF-8").to_owned()
    })
    .clone()
}
