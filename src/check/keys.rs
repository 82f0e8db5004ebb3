//! Checks the keys that verify tokens.

use std::collections::BTreeSet;

use super::{Level, Report};
use crate::config::Settings;
use crate::jwks;
use crate::keys;

/// Words that occur in secrets copied from examples.
const EXAMPLE_WORDS: [&str; 5] = ["secret", "password", "changeme", "change-me", "example"];

/// The least number of distinct characters of a random secret. A random hexadecimal secret of 32 bytes has at least 12 in
/// practice.
const MIN_DISTINCT_CHARACTERS: usize = 10;

/// Loads the configured keys, and those of the issuer.
pub(super) async fn check(settings: &Settings, report: &mut Report) {
    match keys::existing_keys(&settings.keys, &settings.database) {
        Err(error) => report.error("keys", error),
        Ok(None) => {
            let place = settings.database.data_dir();
            report.ok("keys", format!("the first start creates a secret in {}", place.display()));
        }
        Ok(Some(_)) if settings.keys.jwt_secret.as_deref().is_some_and(is_guessable) => report.add(
            Level::Warning,
            "keys",
            "RIDEWIRE_JWT_SECRET can be guessed, and with it anyone can sign tokens; set one from `openssl rand -hex 32`",
        ),
        Ok(Some(keys)) if keys.iter().next().is_some() => {
            report.ok("keys", format!("for {} tokens", keys.algorithms()));
        }
        Ok(Some(_)) => {}
    }
    let Some(source) = settings.keys.jwks.as_deref() else { return };
    let read = match source.parse() {
        Ok(source) => jwks::read(source).await,
        Err(error) => Err(error),
    };
    match read {
        Ok(keys) => report.ok("issuer's keys", format!("{} from {source}", keys.algorithms())),
        Err(error) => report.error(
            "issuer's keys",
            format!("RIDEWIRE_JWKS: {error}; make sure that this machine can reach the issuer, or correct the address or file"),
        ),
    }
}

fn is_guessable(secret: &str) -> bool {
    let lower = secret.to_lowercase();
    let characters: BTreeSet<char> = secret.chars().collect();
    characters.len() < MIN_DISTINCT_CHARACTERS || EXAMPLE_WORDS.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_secret_is_not_guessable_and_a_copied_one_is() {
        for _ in 0..1_000 {
            let random = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
            assert!(!is_guessable(&random), "{random}");
        }
        for guessable in
            ["0123401234012340123401234012340123", "my-Secret-key-that-is-long-enough-32", &"ab".repeat(20)]
        {
            assert!(is_guessable(guessable), "{guessable}");
        }
    }
}
