//! The settings that were given, as the log may show them: without secrets.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// What stands for a value that is a secret, or may hold one.
const SET: &str = "(set)";

/// The longest value that is shown.
const LONGEST: usize = 200;

/// Parts of an address that hold no secret: of a database's, in a query or as `key=value`.
const PLAIN: [&str; 11] = [
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

/// The settings that were given on the command line or in the environment, by their variables:
/// `DATABASE_URL=postgres://ridewire@db/ridewire RIDEWIRE_JWT_SECRET=(set) RIDEWIRE_LISTEN=0.0.0.0:8080`.
pub(crate) fn shown(command: &Command, matches: &ArgMatches) -> String {
    let mut given = BTreeMap::new();
    collect(command, matches, &mut given);
    let given: Vec<String> = given.iter().map(|(variable, value)| format!("{variable}={value}")).collect();
    given.join(" ")
}

fn collect(command: &Command, matches: &ArgMatches, given: &mut BTreeMap<String, String>) {
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env().and_then(OsStr::to_str) else { continue };
        let id = argument.get_id().as_str();
        if !matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let values = matches.get_raw(id).into_iter().flatten();
        let values: Vec<String> = values.map(|value| masked(argument, &value.to_string_lossy())).collect();
        given.insert(variable.to_owned(), values.join(","));
    }
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        collect(command, matches, given);
    }
}

fn masked(argument: &Arg, value: &str) -> String {
    let is_database = argument.get_id().as_str().ends_with("database_url");
    // A key is public, but a secret that was put there by mistake is not.
    let is_secret = argument.is_hide_env_values_set() || argument.get_id() == "jwt_public_key";
    let shown = if value.contains("://") && (is_database || !is_secret) {
        address(value)
    } else if is_database {
        keywords(value)
    } else {
        (!is_secret).then(|| value.to_owned())
    };
    let is_short = |shown: &String| shown.len() <= LONGEST && !shown.contains(char::is_control);
    let shown = shown.filter(is_short).unwrap_or_else(|| SET.to_owned());
    if shown.contains(char::is_whitespace) { format!("{shown:?}") } else { shown }
}

/// An address without its password, and without what its query may hide; `None` where it cannot be told for certain what belongs
/// to the password, as where it has characters that should have been escaped.
fn address(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (credentials, place) = match rest.split_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    if place.contains('@') || credentials.is_some_and(|credentials| credentials.contains(['/', '?', '#'])) {
        return None;
    }
    // What is no port belongs to the password.
    let is_host = |host: &str| {
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let hosts = place.split(['/', '?', '#']).next().unwrap_or_default();
    if !hosts.split(',').all(is_host) {
        return None;
    }
    let user = credentials.and_then(|credentials| credentials.split(':').next());
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let is_plain = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| PLAIN.contains(&name));
    let query: Vec<&str> = query.split('&').filter(is_plain).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    Some(format!("{scheme}://{user}{place}{mark}{}", query.join("&")))
}

/// A database's address of `key=value` pairs, up to the first that may be secret: what follows may belong to that. `None` where it is
/// not plain where each ends.
fn keywords(text: &str) -> Option<String> {
    if text.contains(['\'', '\\']) {
        return None;
    }
    let pairs = text.split_whitespace().map(|pair| Some((pair, pair.split_once('=')?.0)));
    let pairs: Vec<(&str, &str)> = pairs.collect::<Option<_>>()?;
    let plain = pairs.into_iter().take_while(|(_, name)| PLAIN.contains(name));
    let plain: Vec<&str> = plain.map(|(pair, _)| pair).collect();
    (!plain.is_empty()).then(|| plain.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::config::Settings;

    fn given(arguments: &[&str]) -> String {
        // A variable of the tests' own environment would be shown as well.
        let command = Settings::augment_args(Command::new("ridewire")).mut_args(|argument| {
            let variable = argument.get_env().and_then(OsStr::to_str).map(|variable| format!("UNSET_{variable}"));
            match variable {
                Some(variable) => argument.env(&*variable.leak()),
                None => argument,
            }
        });
        let matches = command.clone().try_get_matches_from([&["ridewire"], arguments].concat()).unwrap();
        shown(&command, &matches).replace("UNSET_", "")
    }

    #[test]
    fn what_was_given_is_shown_and_no_default() {
        assert_eq!(given(&[]), "");
        let shown =
            given(&["--listen", "0.0.0.0:8080", "--cors-origins", "https://a.example,*", "--jwt-issuer", "an issuer"]);
        let expected =
            "RIDEWIRE_CORS_ORIGINS=https://a.example,* RIDEWIRE_JWT_ISSUER=\"an issuer\" RIDEWIRE_LISTEN=0.0.0.0:8080";
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_secret_is_shown_however_it_is_written() {
        let database = |address: &str| given(&["--database-url", address]).replace("DATABASE_URL=", "");
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
        let shown = given(&[
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
