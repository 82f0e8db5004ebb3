//! The limit of open files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files other than connections: the database, the log, and more.
const OTHER_FILES: u64 = 1_000;

/// Raises the limit of open files to what this number of connections needs, as far as the kernel allows. The initial limit of a login or
/// service, mostly 1,024, is meant for programs that use `select`.
pub fn raise_file_limit(connections: usize) {
    let wanted = required_files(connections);
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match wanted.min(hard) {
        enough if enough > soft => setrlimit(Resource::RLIMIT_NOFILE, enough, hard),
        _ => Ok(()),
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "limit of open files could not be raised");
    }
}

/// Returns how many open files this number of connections needs.
pub fn required_files(connections: usize) -> u64 {
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES)
}
