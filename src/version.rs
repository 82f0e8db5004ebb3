//! The version of this build, and the optional parts that it omits.

/// The version as `--version` and the log name it.
#[cfg(feature = "jemalloc")]
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version as `--version` and the log name it.
#[cfg(not(feature = "jemalloc"))]
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (built without jemalloc: see make dist)");
