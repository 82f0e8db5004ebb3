//! Which keys tokens are verified with, and where the development secret is kept.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::auth::{Expect, KeyError, Keys, Signer};
use crate::config::{DatabaseSettings, KeySettings};
use crate::embedded::{self, EmbeddedError};

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
    /// With a public key, or a set of them, a server does not accept what a made-up secret signs.
    #[error(
        "{0} is set, so the server verifies what its issuer signs: ask the issuer for a token, or set RIDEWIRE_JWT_SECRET"
    )]
    OthersSign(&'static str),
    /// No server has run here, or it runs with another directory.
    #[error("{}: no server has made a secret here yet; start one, or set RIDEWIRE_DATA_DIR to its data directory", .0.display())]
    NoServer(PathBuf),
    /// The secret of the data directory may be known to others.
    #[error("{}: it is {why}, so somebody else may know the secret; look who has put it there, and remove it", .path.display())]
    Planted {
        /// Which file.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// The data directory cannot be had.
    #[error(transparent)]
    DataDir(#[from] EmbeddedError),
    /// Neither a key nor a file. It is not repeated: it may be a secret.
    #[error(
        "RIDEWIRE_JWT_PUBLIC_KEY: it is neither PEM text nor a file; give text that begins with -----BEGIN, or a path"
    )]
    NeitherKeyNorFile,
    /// A key that is none.
    #[error("{setting}: {error}")]
    Unusable {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A file of the setting that cannot be read.
    #[error(
        "RIDEWIRE_JWT_PUBLIC_KEY: cannot read {path}: {error}; name a PEM file that the server's user may read, or give its text",
        path = .path.display()
    )]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file of the development secret cannot be read or written.
    #[error(
        "cannot read or write {path}: {error}; let the server's user have that directory, or set RIDEWIRE_DATA_DIR to another",
        path = .path.display()
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// The keys that the settings hold, those of a set not among them; the development secret, which is made at its first use, where they
/// name none and the Postgres is private.
pub fn verifying(settings: &KeySettings, database: &DatabaseSettings) -> Result<Keys, KeysError> {
    let made = match (&settings.jwt_secret, &database.database_url) {
        (None, None) => Some(development_secret(&database.data_dir())?),
        _ => None,
    };
    with_secret(settings, made.as_deref())
}

/// The same without making a secret: `None` where the first start makes one.
pub fn present(settings: &KeySettings, database: &DatabaseSettings) -> Result<Option<Keys>, KeysError> {
    let made = match (&settings.jwt_secret, &database.database_url) {
        (None, None) => existing_secret(&secret_path(&database.data_dir()))?,
        _ => None,
    };
    match with_secret(settings, made.as_deref()) {
        Err(KeysError::NoKey) if database.database_url.is_none() => Ok(None),
        keys => keys.map(Some),
    }
}

/// The keys that the settings hold, and `made`, the development secret, where they hold none.
fn with_secret(settings: &KeySettings, made: Option<&str>) -> Result<Keys, KeysError> {
    let unusable = |setting| move |error| KeysError::Unusable { setting, error };
    let by_pem = settings
        .jwt_public_key
        .as_deref()
        .map(|key| Keys::from_pem(&pem(key)?).map_err(unusable("RIDEWIRE_JWT_PUBLIC_KEY")));
    let by_secret = match (&settings.jwt_secret, made) {
        (Some(secret), _) => Some(secret.as_str()),
        // A development secret is not added to keys that were named.
        (None, made) if by_pem.is_none() && settings.jwks.is_none() => made,
        (None, _) => None,
    };
    let by_secret = by_secret.map(|secret| Keys::from_secret(secret.as_bytes()));
    let by_secret = by_secret.transpose().map_err(unusable("RIDEWIRE_JWT_SECRET"))?;
    match (by_pem.transpose()?, by_secret) {
        (Some(pem), Some(secret)) => Ok(pem.and(secret)),
        (Some(keys), None) | (None, Some(keys)) => Ok(keys),
        (None, None) if settings.jwks.is_some() => Ok(Keys::default()),
        (None, None) => Err(KeysError::NoKey),
    }
}

/// Signs tokens that the server of these settings accepts; and where the secret is from. None is made here, since no server would
/// accept what it signs.
pub fn signer(settings: &KeySettings, database: &DatabaseSettings) -> Result<(Signer, String), KeysError> {
    let (secret, source) = signing(settings, database)?;
    let signer = Signer::new(secret.as_bytes());
    let signer = signer.map_err(|error| KeysError::Unusable { setting: "RIDEWIRE_JWT_SECRET", error })?;
    Ok((signer.with(&expectations(settings)), source))
}

fn signing(settings: &KeySettings, database: &DatabaseSettings) -> Result<(String, String), KeysError> {
    if let Some(secret) = &settings.jwt_secret {
        return Ok((secret.clone(), "RIDEWIRE_JWT_SECRET".to_owned()));
    }
    if settings.jwt_public_key.is_some() {
        return Err(KeysError::OthersSign("RIDEWIRE_JWT_PUBLIC_KEY"));
    }
    if settings.jwks.is_some() {
        return Err(KeysError::OthersSign("RIDEWIRE_JWKS"));
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

/// What tokens must say besides.
pub fn expectations(settings: &KeySettings) -> Expect {
    Expect { issuer: settings.jwt_issuer.clone(), audience: settings.jwt_audience.clone(), ..Expect::default() }
}

/// A key as it is, or the file that holds it. In one line, as in an environment's file, a line's end is written `\n`.
fn pem(key: &str) -> Result<Vec<u8>, KeysError> {
    if key.trim_start().starts_with("-----BEGIN") {
        return Ok(key.replace("\\r", "").replace("\\n", "\n").into_bytes());
    }
    // What is neither may be a secret in the wrong place.
    if !key.contains('/') && !Path::new(key).exists() {
        return Err(KeysError::NeitherKeyNorFile);
    }
    fs::read(key).map_err(|error| KeysError::KeyFile { path: key.into(), error })
}

fn secret_path(data_dir: &Path) -> PathBuf {
    data_dir.join("jwt-secret")
}

/// The secret in the data directory, made at its first use and readable by us alone.
fn development_secret(data_dir: &Path) -> Result<String, KeysError> {
    let path = secret_path(&embedded::open_data_dir(data_dir)?);
    // Two UUIDs: 244 bits of the operating system's randomness.
    let made = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => file.write_all(made.as_bytes()).map(|()| made).map_err(|error| KeysError::File { path, error }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            existing_secret(&path)?.ok_or(KeysError::File { path, error })
        }
        Err(error) => Err(KeysError::File { path, error }),
    }
}

/// The secret in a file that nobody but us can have written or read: whoever knows it is everybody. `None` where there is no
/// such file.
fn existing_secret(path: &Path) -> Result<Option<String>, KeysError> {
    let planted = |why| Err(KeysError::Planted { path: path.to_owned(), why });
    let failed = |error| KeysError::File { path: path.to_owned(), error };
    // No link is followed, and no pipe waited for.
    let flags = O_NOFOLLOW | O_NONBLOCK;
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => return planted("a symbolic link"),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return planted("no file");
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return planted("another user's file");
    }
    if metadata.nlink() != 1 {
        return planted("a file that has another name as well");
    }
    if metadata.mode() & 0o077 != 0 {
        return planted("open to other users (chmod 600)");
    }
    let mut secret = String::new();
    file.read_to_string(&mut secret).map_err(failed)?;
    Ok(Some(secret))
}
