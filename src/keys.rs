//! The keys that verify tokens, according to the settings, and the development secret.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::auth::{ClaimValidation, KeyError, Keys, Signer};
use crate::config::{DatabaseSettings, KeySettings};
use crate::embedded::{self, EmbeddedError};

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// With an external database there may be several replicas, and each would generate a different secret.
    #[error(
        "set RIDEWIRE_JWT_SECRET, RIDEWIRE_JWT_PUBLIC_KEY or RIDEWIRE_JWKS: with a DATABASE_URL no secret is generated"
    )]
    NoKey,
    /// Only a shared secret can sign tokens.
    #[error("set RIDEWIRE_JWT_SECRET: only a secret can sign tokens")]
    NoSecret,
    /// With a public key or a JWKS, the server would not accept tokens signed with a generated secret.
    #[error(
        "{0} is set, so the server accepts only its issuer's tokens: ask the issuer for a token, or set RIDEWIRE_JWT_SECRET"
    )]
    IssuerSigns(&'static str),
    /// No server has run with this data directory.
    #[error("{}: no server has generated a secret here yet; start the server first, or set RIDEWIRE_DATA_DIR to the data directory of the running server", .0.display())]
    NoServer(PathBuf),
    /// Other users may know the secret of the data directory.
    #[error("{}: it is {why}, so another user may know the secret; find out why, and delete the file: the next start generates a new secret, and tokens signed with the old one become invalid", .path.display())]
    UnsafeSecretFile {
        /// The file.
        path: PathBuf,
        /// What is unsafe about it.
        why: &'static str,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] EmbeddedError),
    /// Neither a key nor a file. The message does not repeat it, because it may be a secret.
    #[error(
        "RIDEWIRE_JWT_PUBLIC_KEY: it is neither PEM text nor a file; give text that begins with -----BEGIN, or a path"
    )]
    NeitherKeyNorFile,
    /// A key is invalid.
    #[error("{setting}: {error}")]
    Unusable {
        /// The setting.
        setting: &'static str,
        /// The error.
        error: KeyError,
    },
    /// The file of the setting cannot be read.
    #[error(
        "RIDEWIRE_JWT_PUBLIC_KEY: cannot read {path}: {error}; name a PEM file that the server's user may read, or give its text",
        path = .path.display()
    )]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The file of the development secret cannot be read or written.
    #[error(
        "cannot read or write {path}: {error}; give the server's user access to that directory, or set RIDEWIRE_DATA_DIR to another",
        path = .path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

/// Returns the keys of the settings, without those of a JWKS. If the settings name no key and the Postgres is private,
/// it is the development secret, which is generated at its first use.
pub fn verification_keys(settings: &KeySettings, database: &DatabaseSettings) -> Result<Keys, KeysError> {
    let generated = match (&settings.jwt_secret, &database.database_url) {
        (None, None) => Some(development_secret(&database.data_dir())?),
        _ => None,
    };
    keys_of_settings(settings, generated.as_deref())
}

/// Like [`verification_keys`], but generates no secret; returns `None` if the first start would generate one.
pub fn existing_keys(settings: &KeySettings, database: &DatabaseSettings) -> Result<Option<Keys>, KeysError> {
    let generated = match (&settings.jwt_secret, &database.database_url) {
        (None, None) => existing_secret(&secret_path(&database.data_dir()))?,
        _ => None,
    };
    match keys_of_settings(settings, generated.as_deref()) {
        Err(KeysError::NoKey) if database.database_url.is_none() => Ok(None),
        keys => keys.map(Some),
    }
}

/// Returns the keys of the settings, or the development secret `generated` if they name none.
fn keys_of_settings(settings: &KeySettings, generated: Option<&str>) -> Result<Keys, KeysError> {
    let unusable = |setting| move |error| KeysError::Unusable { setting, error };
    let from_pem = settings
        .jwt_public_key
        .as_deref()
        .map(|key| Keys::from_pem(&pem(key)?).map_err(unusable("RIDEWIRE_JWT_PUBLIC_KEY")));
    let from_secret = match (&settings.jwt_secret, generated) {
        (Some(secret), _) => Some(secret.as_str()),
        // The development secret is not added to configured keys.
        (None, generated) if from_pem.is_none() && settings.jwks.is_none() => generated,
        (None, _) => None,
    };
    let from_secret = from_secret.map(|secret| Keys::from_secret(secret.as_bytes()));
    let from_secret = from_secret.transpose().map_err(unusable("RIDEWIRE_JWT_SECRET"))?;
    match (from_pem.transpose()?, from_secret) {
        (Some(pem), Some(secret)) => Ok(pem.and(secret)),
        (Some(keys), None) | (None, Some(keys)) => Ok(keys),
        (None, None) if settings.jwks.is_some() => Ok(Keys::default()),
        (None, None) => Err(KeysError::NoKey),
    }
}

/// Returns a signer for tokens that a server with these settings accepts, and where the secret comes from. It generates
/// no secret, since no server would accept the tokens.
pub fn signer(settings: &KeySettings, database: &DatabaseSettings) -> Result<(Signer, String), KeysError> {
    let (secret, source) = signing(settings, database)?;
    let signer = Signer::new(secret.as_bytes());
    let signer = signer.map_err(|error| KeysError::Unusable { setting: "RIDEWIRE_JWT_SECRET", error })?;
    Ok((signer.with(&claim_validation(settings)), source))
}

fn signing(settings: &KeySettings, database: &DatabaseSettings) -> Result<(String, String), KeysError> {
    if let Some(secret) = &settings.jwt_secret {
        return Ok((secret.clone(), "RIDEWIRE_JWT_SECRET".to_owned()));
    }
    if settings.jwt_public_key.is_some() {
        return Err(KeysError::IssuerSigns("RIDEWIRE_JWT_PUBLIC_KEY"));
    }
    if settings.jwks.is_some() {
        return Err(KeysError::IssuerSigns("RIDEWIRE_JWKS"));
    }
    if database.database_url.is_some() {
        return Err(KeysError::NoSecret);
    }
    let path = secret_path(&database.data_dir());
    match existing_secret(&path)? {
        Some(secret) => Ok((secret, path.display().to_string())),
        None => Err(KeysError::NoServer(path)),
    }
}

/// Returns the requirements on tokens' claims.
pub fn claim_validation(settings: &KeySettings) -> ClaimValidation {
    ClaimValidation {
        issuer: settings.jwt_issuer.clone(),
        audience: settings.jwt_audience.clone(),
        ..ClaimValidation::default()
    }
}

/// Returns a PEM key from the setting itself or from the file that it names. In an environment file, where the key is
/// one line, line ends are written as `\n`.
fn pem(key: &str) -> Result<Vec<u8>, KeysError> {
    if key.trim_start().starts_with("-----BEGIN") {
        return Ok(key.replace("\\r", "").replace("\\n", "\n").into_bytes());
    }
    // A value that is neither may be a secret in the wrong setting.
    if !key.contains('/') && !Path::new(key).exists() {
        return Err(KeysError::NeitherKeyNorFile);
    }
    fs::read(key).map_err(|error| KeysError::KeyFile { path: key.into(), error })
}

fn secret_path(data_dir: &Path) -> PathBuf {
    data_dir.join("jwt-secret")
}

/// Returns the secret in the data directory. It is generated at its first use, readable only by the server's user.
fn development_secret(data_dir: &Path) -> Result<String, KeysError> {
    let path = secret_path(&embedded::open_data_dir(data_dir)?);
    // Two UUIDs: 244 random bits of the operating system.
    let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(secret.as_bytes()).map(|()| secret).map_err(|error| KeysError::File { path, error })
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            existing_secret(&path)?.ok_or(KeysError::File { path, error })
        }
        Err(error) => Err(KeysError::File { path, error }),
    }
}

/// Reads the secret from a file. It checks that no other user can have written or read the file, because the secret
/// grants every role. `None` if the file does not exist.
fn existing_secret(path: &Path) -> Result<Option<String>, KeysError> {
    let unsafe_file = |why| Err(KeysError::UnsafeSecretFile { path: path.to_owned(), why });
    let failed = |error| KeysError::File { path: path.to_owned(), error };
    // Do not follow symbolic links, and do not block on a pipe.
    let flags = O_NOFOLLOW | O_NONBLOCK;
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => return unsafe_file("a symbolic link"),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return unsafe_file("not a regular file");
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return unsafe_file("another user's file");
    }
    if metadata.nlink() != 1 {
        return unsafe_file("a file with several hard links");
    }
    if metadata.mode() & 0o077 != 0 {
        return unsafe_file("accessible to other users (its mode is not 600)");
    }
    let mut secret = String::new();
    file.read_to_string(&mut secret).map_err(failed)?;
    Ok(Some(secret))
}
