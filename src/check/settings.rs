//! Checks for settings that are invalid, alone or in combination.

use std::time::Duration;

use super::{Level, Report};
use crate::app::{moderation, validated};
use crate::config::Settings;

/// The common idle timeout of load balancers.
const COMMON_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the checks. `unknown` are error messages about unknown environment variables.
pub(super) fn check(settings: &Settings, unknown: Vec<String>, report: &mut Report) {
    let unusable = [
        validated::origins(settings).err(),
        validated::traces(settings).err(),
        moderation::of(&settings.moderation).err(),
    ];
    let errors = unknown.into_iter().chain(unusable.into_iter().flatten().map(|error| error.to_string()));
    let errors: Vec<_> = errors.collect();
    let is_silent_for_long = settings.heartbeat >= COMMON_IDLE_TIMEOUT;
    if is_silent_for_long {
        let heartbeat = humantime::format_duration(settings.heartbeat);
        report.add(
            Level::Warning,
            "settings",
            format!(
                "RIDEWIRE_HEARTBEAT is {heartbeat}, but load balancers commonly end a stream that is silent for 60s; choose \
                 a shorter time than their idle timeout"
            ),
        );
    }
    if errors.is_empty() && !is_silent_for_long {
        report.ok("settings", "valid");
    }
    errors.into_iter().for_each(|error| report.error("settings", error));
}
