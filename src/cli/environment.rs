//! Detects environment variables that look like settings but are not: most likely misspelt ones.

use std::ffi::{OsStr, OsString};

use clap::Command;

/// The prefix of all our variables except `DATABASE_URL`.
const PREFIX: &str = "RIDEWIRE_";

/// The variables of this project's scripts and tests. A server that these start inherits them, and ignores them.
const DEVELOPMENT_VARIABLES: [&str; 19] = [
    "RIDEWIRE_BENCH",
    "RIDEWIRE_BIN",
    "RIDEWIRE_CHAOS_GROUP",
    "RIDEWIRE_CHAOS_GROUPS",
    "RIDEWIRE_CHAOS_JOURNAL",
    "RIDEWIRE_CHAOS_SEED",
    "RIDEWIRE_INSTALL_RUST",
    "RIDEWIRE_JAVA",
    "RIDEWIRE_JQ",
    "RIDEWIRE_PYTHON",
    "RIDEWIRE_SCHEDULE",
    "RIDEWIRE_SCHEDULES",
    "RIDEWIRE_SCHEDULES_FROM",
    "RIDEWIRE_SCHEDULES_SURVEY",
    "RIDEWIRE_SCHEDULE_LANES",
    "RIDEWIRE_SCREENSHOTS",
    "RIDEWIRE_SEED",
    "RIDEWIRE_SOAK",
    "RIDEWIRE_TEST_SEED",
];

/// Returns the variables that `command` and its subcommands read.
pub(super) fn settings(command: &Command) -> Vec<String> {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let names = commands.flat_map(Command::get_arguments).filter_map(|argument| argument.get_env()?.to_str());
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Returns an error message for each variable that has our prefix and is not a setting.
pub(super) fn unknown(settings: &[String], variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let mut unknown: Vec<_> = variables
        .filter_map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            let has_prefix = name.starts_with(PREFIX) && !is_set_by_kubernetes(&name, &value);
            let is_known = settings.contains(&name) || DEVELOPMENT_VARIABLES.contains(&name.as_str());
            (has_prefix && !is_known).then_some(name)
        })
        .collect();
    unknown.sort();
    let messages = unknown.iter().map(|name| match nearest(settings, name) {
        Some(nearest) => format!("{name} is not a setting; did you mean {nearest}?"),
        None => format!("{name} is not a setting; remove it, or see `ridewire serve --help`"),
    });
    messages.collect()
}

/// Returns the setting whose name is nearest, if it is similar enough.
fn nearest<'a>(settings: &'a [String], name: &str) -> Option<&'a str> {
    let similar = settings.iter().filter(|setting| setting.starts_with(PREFIX)).map(|setting| {
        let rest = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
        (strsim::normalized_damerau_levenshtein(&rest(setting), &rest(name)), setting)
    });
    let best = similar.max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(likeness, _)| *likeness >= 0.6).map(|(_, setting)| setting.as_str())
}

/// Whether Kubernetes set a variable. It sets variables in each container for each service of the namespace, and a service may
/// be named `ridewire` (Kubernetes documentation, "Service", section "Environment variables").
fn is_set_by_kubernetes(name: &str, value: &OsStr) -> bool {
    let is_address = || {
        let value = value.to_string_lossy();
        ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
    };
    let is_of_port = || {
        let protocols = ["_TCP", "_UDP", "_SCTP"];
        let base = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let number = protocols.iter().find_map(|protocol| base.strip_suffix(protocol));
        let number = number.and_then(|base| base.rsplit_once("_PORT_")).map(|(_, number)| number);
        number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_address())
        || is_of_port()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(variables: &[(&str, &str)]) -> Vec<String> {
        let settings = ["DATABASE_URL", "RIDEWIRE_DRAIN_WINDOW", "RIDEWIRE_LISTEN", "RIDEWIRE_LOG"].map(str::to_owned);
        unknown(&settings, variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn an_unknown_variable_is_reported_with_the_nearest_setting() {
        assert_eq!(
            messages(&[("RIDEWIRE_LISTEN", ""), ("RIDEWIRE_BIN", "x"), ("PATH", "/bin"), ("RIDE", "")]),
            [""; 0]
        );
        let found = messages(&[("RIDEWIRE_DRAIN_WINDW", "1s"), ("RIDEWIRE_ZEBRA", "1"), ("RIDEWIRE_PORT", "8080")]);
        assert_eq!(found[0], "RIDEWIRE_DRAIN_WINDW is not a setting; did you mean RIDEWIRE_DRAIN_WINDOW?");
        assert!(found[1].starts_with("RIDEWIRE_PORT is not a setting; "), "{found:?}");
        assert_eq!(found[2], "RIDEWIRE_ZEBRA is not a setting; remove it, or see `ridewire serve --help`");
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_ignored() {
        let set = [
            ("RIDEWIRE_SERVICE_HOST", "10.0.0.11"),
            ("RIDEWIRE_SERVICE_PORT", "8080"),
            ("RIDEWIRE_SERVICE_PORT_HTTP", "8080"),
            ("RIDEWIRE_PORT", "tcp://10.0.0.11:8080"),
            ("RIDEWIRE_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
            ("RIDEWIRE_PORT_8080_TCP_PROTO", "tcp"),
            ("RIDEWIRE_PORT_8080_TCP_PORT", "8080"),
            ("RIDEWIRE_PORT_8080_TCP_ADDR", "10.0.0.11"),
            ("RIDEWIRE_ADMIN_SERVICE_HOST", "10.0.0.12"),
        ];
        assert_eq!(messages(&set), [""; 0]);
        assert_eq!(messages(&[("RIDEWIRE_LISTEN_PORT", "8080")]).len(), 1);
    }

    #[test]
    fn the_variables_of_the_scripts_are_known() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let scripts = std::fs::read_dir(root.join("scripts")).unwrap().map(|entry| entry.unwrap().path());
        let scripts = scripts.filter(|path| path.is_file());
        let settings = settings(&<super::super::Cli as clap::CommandFactory>::command());
        for file in scripts.chain([root.join("Makefile"), root.join("Dockerfile"), root.join("compose.yaml")]) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (at, _) in text.match_indices(PREFIX) {
                let ends = |c: char| !(c.is_ascii_uppercase() || c == '_');
                let name = text[at..].split(ends).next().unwrap();
                let is_known = settings.iter().any(|setting| setting == name) || DEVELOPMENT_VARIABLES.contains(&name);
                assert!(is_known, "{}: {name} is neither a setting nor in DEVELOPMENT_VARIABLES", file.display());
            }
        }
    }
}
