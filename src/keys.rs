//! Which keys tokens are verified with, and where the development secret is kept.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::auth::{Expect, KeyError, Keys};
use crate::config::Settings;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// With a database of one's own, a made-up secret would be a different one on every replica.
    #[error(
        "set RIDEWIRE_JWT_SECRET, RIDEWIRE_JWT_PUBLIC_KEY or RIDEWIRE_JWKS: with a DATABASE_URL no secret is made up"
    )]
    NoKey,
    /// Only a shared secret can sign.
    #[error("set RIDEWIRE_JWT_SECRET: tokens can be signed with a secret alone")]
    NoSecret,
    /// A key that is none.
    #[error("{setting}: {error}")]
    Unusable {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// The keys that the settings hold, those of a set not among them; the development secret where they name none and the Postgres is private.
pub fn verifying(settings: &Settings) -> Result<Keys, KeysError> {
    let unusable = |setting| move |error| KeysError::Unusable { setting, error };
    let by_pem = settings
        .jwt_public_key
        .as_deref()
        .map(|key| Keys::from_pem(&pem(key)?).map_err(unusable("RIDEWIRE_JWT_PUBLIC_KEY")));
    let by_secret = match secret(settings)? {
        // A development secret is not added to keys that were named.
        Some(secret) if settings.jwt_secret.is_some() || (by_pem.is_none() && settings.jwks.is_none()) => {
            Some(Keys::from_secret(secret.as_bytes()).map_err(unusable("RIDEWIRE_JWT_SECRET"))?)
        }
        _ => None,
    };
    match (by_pem.transpose()?, by_secret) {
        (Some(pem), Some(secret)) => Ok(pem.and(secret)),
        (Some(keys), None) | (None, Some(keys)) => Ok(keys),
        (None, None) if settings.jwks.is_some() => Ok(Keys::default()),
        (None, None) => Err(KeysError::NoKey),
    }
}

/// The secret that tokens are signed with.
pub fn signing(settings: &Settings) -> Result<String, KeysError> {
    secret(settings)?.ok_or(KeysError::NoSecret)
}

/// What tokens must say besides.
pub fn expectations(settings: &Settings) -> Expect {
    Expect { issuer: settings.jwt_issuer.clone(), audience: settings.jwt_audience.clone(), ..Expect::default() }
}

fn secret(settings: &Settings) -> Result<Option<String>, KeysError> {
    match (&settings.jwt_secret, &settings.database_url) {
        (Some(secret), _) => Ok(Some(secret.clone())),
        (None, Some(_)) => Ok(None),
        (None, None) => development_secret(&settings.data_dir()).map(Some),
    }
}

/// A key as it is, or the file that holds it.
fn pem(key: &str) -> Result<Vec<u8>, KeysError> {
    if key.trim_start().starts_with("-----BEGIN") {
        return Ok(key.as_bytes().to_vec());
    }
    fs::read(key).map_err(|error| KeysError::File { path: key.into(), error })
}

/// The secret in the data directory, made at its first use and readable by us alone.
fn development_secret(data_dir: &Path) -> Result<String, KeysError> {
    let path = data_dir.join("jwt-secret");
    let failed = |error| KeysError::File { path: path.clone(), error };
    fs::create_dir_all(data_dir).map_err(failed)?;
    // Two UUIDs: 244 bits of the operating system's randomness.
    let made = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => file.write_all(made.as_bytes()).map(|()| made).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(&path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}
