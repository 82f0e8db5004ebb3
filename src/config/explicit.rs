//! The explicitly set settings, redacted for the log.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// The placeholder of a value that is a secret, or may contain one.
const REDACTED: &str = "(set)";

/// The most bytes of a value that is not redacted.
const MAX_LENGTH: usize = 200;

/// The parameters of a database address that contain no secret, in a URL's query or as `key=value`.
const PUBLIC_PARAMETERS: [&str; 11] = [
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "port",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

/// Returns the settings that were set on the command line or in the environment, by the names of their variables:
/// `DATABASE_URL=postgres://ridewire@db/ridewire RIDEWIRE_JWT_SECRET=(set) RIDEWIRE_LISTEN=0.0.0.0:8080`.
pub(crate) fn explicit_settings(command: &Command, matches: &ArgMatches) -> String {
    let mut settings = BTreeMap::new();
    collect(command, matches, &mut settings);
    let settings: Vec<String> = settings.iter().map(|(variable, value)| format!("{variable}={value}")).collect();
    settings.join(" ")
}

fn collect(command: &Command, matches: &ArgMatches, settings: &mut BTreeMap<String, String>) {
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env().and_then(OsStr::to_str) else { continue };
        let id = argument.get_id().as_str();
        if !matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let values = matches.get_raw(id).into_iter().flatten();
        let values: Vec<String> = values.map(|value| redact(argument, &value.to_string_lossy())).collect();
        settings.insert(variable.to_owned(), values.join(","));
    }
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        collect(command, matches, settings);
    }
}

/// Returns a value without its secrets.
fn redact(argument: &Arg, value: &str) -> String {
    let is_database = argument.get_id().as_str().ends_with("database_url");
    // A public key is no secret, but a secret that was set there by mistake is.
    let is_secret = argument.is_hide_env_values_set() || argument.get_id() == "jwt_public_key";
    let shown = if value.contains("://") && (is_database || !is_secret) {
        redact_url(value)
    } else if is_database {
        redact_keywords(value)
    } else {
        (!is_secret).then(|| value.to_owned())
    };
    let is_short = |shown: &String| shown.len() <= MAX_LENGTH && !shown.contains(char::is_control);
    let shown = shown.filter(is_short).unwrap_or_else(|| REDACTED.to_owned());
    if shown.contains(char::is_whitespace) { format!("{shown:?}") } else { shown }
}

/// Returns a URL without its password and without the query parameters that may contain secrets. Returns `None` if the password
/// cannot be delimited with certainty, for example because it contains unescaped characters.
fn redact_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (credentials, location) = match rest.split_once('@') {
        Some((credentials, location)) => (Some(credentials), location),
        None => (None, rest),
    };
    if location.contains('@') || credentials.is_some_and(|credentials| credentials.contains(['/', '?', '#'])) {
        return None;
    }
    // Text after a colon that is not a port may belong to the password.
    let is_host = |host: &str| {
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let hosts = location.split(['/', '?', '#']).next().unwrap_or_default();
    if !hosts.split(',').all(is_host) {
        return None;
    }
    let user = credentials.and_then(|credentials| credentials.split(':').next());
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let (location, query) = location.split_once('?').unwrap_or((location, ""));
    let is_public = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| PUBLIC_PARAMETERS.contains(&name));
    let query: Vec<&str> = query.split('&').filter(is_public).collect();
    let separator = if query.is_empty() { "" } else { "?" };
    Some(format!("{scheme}://{user}{location}{separator}{}", query.join("&")))
}

/// Returns the `key=value` pairs of a database address up to the first one that may be secret; the text after it may belong to
/// the secret. Returns `None` if the pairs cannot be delimited with certainty.
fn redact_keywords(text: &str) -> Option<String> {
    if text.contains(['\'', '\\']) {
        return None;
    }
    let pairs = text.split_whitespace().map(|pair| Some((pair, pair.split_once('=')?.0)));
    let pairs: Vec<(&str, &str)> = pairs.collect::<Option<_>>()?;
    let public = pairs.into_iter().take_while(|(_, name)| PUBLIC_PARAMETERS.contains(name));
    let public: Vec<&str> = public.map(|(pair, _)| pair).collect();
    (!public.is_empty()).then(|| public.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::config::Settings;

    fn settings(arguments: &[&str]) -> String {
        // The variables are renamed, so that those of the tests' own environment do not count.
        let command = Settings::augment_args(Command::new("ridewire")).mut_args(|argument| {
            let variable = argument.get_env().and_then(OsStr::to_str).map(|variable| format!("UNSET_{variable}"));
            match variable {
                Some(variable) => argument.env(&*variable.leak()),
                None => argument,
            }
        });
        let matches = command.clone().try_get_matches_from([&["ridewire"], arguments].concat()).unwrap();
        explicit_settings(&command, &matches).replace("UNSET_", "")
    }

    #[test]
    fn explicit_values_are_shown_and_defaults_are_not() {
        assert_eq!(settings(&[]), "");
        let shown = settings(&[
            "--listen",
            "0.0.0.0:8080",
            "--cors-origins",
            "https://a.example,*",
            "--jwt-issuer",
            "an issuer",
        ]);
        let expected =
            "RIDEWIRE_CORS_ORIGINS=https://a.example,* RIDEWIRE_JWT_ISSUER=\"an issuer\" RIDEWIRE_LISTEN=0.0.0.0:8080";
        assert_eq!(shown, expected);
    }

    #[test]
    fn secrets_are_redacted_in_all_notations() {
        let database = |address: &str| settings(&["--database-url", address]).replace("DATABASE_URL=", "");
        for (address, shown) in [
            ("postgres://ride:ZEBRA@db:5432/ride?sslmode=require", "postgres://ride@db:5432/ride?sslmode=require"),
            ("postgres://db/ride?user=ride&password=ZEBRA", "postgres://db/ride?user=ride"),
            ("postgres://db/ride", "postgres://db/ride"),
            ("postgres://a,b:5433,[::1],[::1]:5432/ride", "postgres://a,b:5433,[::1],[::1]:5432/ride"),
            ("postgres://ride:x@h:ZEBRA/ride", "(set)"),
            ("postgres://ride:ZEB@RA@db/ride", "(set)"),
            ("postgres://ride:ZEB/RA@db/ride", "(set)"),
            ("postgres://ride:ZEB?RA@db/ride", "(set)"),
            ("postgres://db/ride?password=ZEB@RA", "(set)"),
            ("host=db user=ride password=ZEBRA", "\"host=db user=ride\""),
            ("host=db password=x port=ZEBRA", "host=db"),
            ("password=ZEBRA host=db", "(set)"),
            ("host=db password = ZEBRA", "(set)"),
            ("host=db password='ZE BRA'", "(set)"),
            ("ZEBRA", "(set)"),
        ] {
            assert_eq!(database(address), shown, "{address}");
        }
        let shown = settings(&[
            "--jwt-secret",
            "ZEBRA",
            "--moderation-url",
            "https://moderation.example/ZEBRA",
            "--moderation-secret",
            "whsec_ZEBRA",
            "--jwks",
            "https://user:ZEBRA@issuer.example/keys?token=ZEBRA",
            "--jwt-public-key",
            "ZEBRA",
        ]);
        let expected = "RIDEWIRE_JWKS=https://user@issuer.example/keys RIDEWIRE_JWT_PUBLIC_KEY=(set) \
            RIDEWIRE_JWT_SECRET=(set) RIDEWIRE_MODERATION_SECRET=(set) RIDEWIRE_MODERATION_URL=(set)";
        assert_eq!(shown, expected);
    }
}
