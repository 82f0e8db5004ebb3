//! Checks the limits of this machine.

use nix::sys::resource::{Resource, getrlimit};

use super::{Level, Report};
use crate::config::Settings;
use crate::serving;

/// Checks whether the server can raise its limit of open files as far as it needs.
pub(super) fn check(settings: &Settings, report: &mut Report) {
    let (connections, base) = (settings.limits.max_connections, serving::required_files(0));
    let needed = serving::required_files(connections);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < needed => report.add(
            Level::Warning,
            "open files",
            format!(
                "at most {hard} are allowed, but RIDEWIRE_MAX_CONNECTIONS={connections} needs {needed}; raise the hard limit \
                 (`ulimit -H -n`, LimitNOFILE), or set RIDEWIRE_MAX_CONNECTIONS={}",
                hard.saturating_sub(base).max(1)
            ),
        ),
        Ok((_, hard)) => report.ok("open files", format!("{hard} are allowed, {needed} are needed")),
        Err(error) => report.add(Level::Warning, "open files", format!("the limit cannot be read: {error}")),
    }
}
