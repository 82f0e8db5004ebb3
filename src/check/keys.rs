//! The keys that tokens are verified with.

use std::collections::BTreeSet;

use super::{Level, Report};
use crate::config::Settings;
use crate::jwks;
use crate::keys;

/// What a secret has that somebody has copied from an example.
const COPIED: [&str; 5] = ["secret", "password", "changeme", "change-me", "example"];

/// Fewer different characters than any random secret of 32 bytes has in practice: one in hexadecimal has 12 at least.
const LEAST_CHARACTERS: usize = 10;

/// Loads them, and those of the issuer.
pub(super) async fn check(settings: &Settings, report: &mut Report) {
    match keys::present(&settings.keys, &settings.database) {
        Err(error) => report.error("keys", error),
        Ok(None) => {
            let place = settings.database.data_dir();
            report.ok("keys", format!("the first start makes a secret in {}", place.display()));
        }
        Ok(Some(_)) if settings.keys.jwt_secret.as_deref().is_some_and(is_guessable) => report.add(
            Level::Warning,
            "keys",
            "RIDEWIRE_JWT_SECRET may be guessed, and who knows it is everybody; set one that `openssl rand -hex 32` makes",
        ),
        Ok(Some(keys)) if keys.iter().next().is_some() => {
            report.ok("keys", format!("tokens by {}", keys.algorithms()));
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
            format!("RIDEWIRE_JWKS: {error}; let this machine reach the issuer, or correct the address or file"),
        ),
    }
}

fn is_guessable(secret: &str) -> bool {
    let lower = secret.to_lowercase();
    let characters: BTreeSet<char> = secret.chars().collect();
    characters.len() < LEAST_CHARACTERS || COPIED.iter().any(|word| lower.contains(word))
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
