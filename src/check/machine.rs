//! Limits of this machine.

use nix::sys::resource::{Resource, getrlimit};

use super::{Level, Report};
use crate::config::Settings;
use crate::serving;

/// Whether the server may raise its limit of open files as far as it needs.
pub(super) fn check(settings: &Settings, report: &mut Report) {
    let (connections, one) = (settings.limits.max_connections, serving::files(0));
    let needed = serving::files(connections);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, most)) if most < needed => report.add(
            Level::Warning,
            "open files",
            format!(
                "at most {most} are allowed, and RIDEWIRE_MAX_CONNECTIONS={connections} needs {needed}; raise the hard limit \
                 (`ulimit -H -n`, LimitNOFILE), or set RIDEWIRE_MAX_CONNECTIONS={}",
                most.saturating_sub(one).max(1)
            ),
        ),
        Ok((_, most)) => report.ok("open files", format!("{most} are allowed, {needed} needed")),
        Err(error) => report.add(Level::Warning, "open files", format!("the limit cannot be read: {error}")),
    }
}
