//! The Unix socket of the private Postgres, in a directory that only its user (and root) can enter.
//!
//! The permissions of the directory are the only access control: there is no password and no TCP. Its path depends only
//! on the data directory, so every server on the same data directory computes the same URL.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use sha2::{Digest, Sha256};

use super::account::{Account, name_of};
use super::{DATABASE, EmbeddedError, USER};

/// The maximum length of a socket's path, from `sockaddr_un`: Linux has 108 bytes with the final NUL, others 104.
const MAX_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The socket's directory, as text that both libpq and `unix_socket_directories` accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketDirectory {
    path: PathBuf,
    text: String,
}

impl SocketDirectory {
    /// Returns `run` in the data directory. If that path is too long, returns a directory below `temporary`, named by a
    /// hash of it.
    pub(super) fn of(data_dir: &Path, temporary: &Path) -> Result<Self, EmbeddedError> {
        let preferred = data_dir.join("run");
        let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
        let mut name = String::from("ridewire-");
        for byte in digest.iter().take(8) {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        [preferred.clone(), temporary.join(name)]
            .into_iter()
            .find_map(Self::if_short_enough)
            .ok_or(EmbeddedError::SocketPath { directory: preferred, limit: MAX_PATH_BYTES })
    }

    fn if_short_enough(path: PathBuf) -> Option<Self> {
        let text = path.to_str()?.to_owned();
        // Both characters have a meaning in a list of directories, which the setting and libpq's host are.
        let fits = text.len() + "/.s.PGSQL.5432".len() <= MAX_PATH_BYTES && !text.contains([',', '"']);
        fits.then_some(Self { path, text })
    }

    /// Returns the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the value of `unix_socket_directories`: a list with one element.
    pub(super) fn setting(&self) -> String {
        format!("\"{}\"", self.text)
    }

    /// Returns the URL of a database, without characters that a shell would interpret.
    pub(super) fn url(&self, database: &str) -> String {
        format!("postgresql://{USER}@{}/{}", encode(&self.text), encode(database))
    }

    /// Returns the URL of the database `ridewire`.
    pub(super) fn own_url(&self) -> String {
        self.url(DATABASE)
    }

    /// Creates the directory for `account` only; fails if another user has created it.
    pub(super) fn prepare(&self, account: &Account) -> Result<(), EmbeddedError> {
        let path = self.path();
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(EmbeddedError::io("create the directory", path)(error));
            }
            _ => {}
        }
        // Do not follow a link: in the temporary directory anyone may have created one.
        let metadata = fs::symlink_metadata(path).map_err(EmbeddedError::io("inspect", path))?;
        if !metadata.is_dir() || !account.accepts_owner(metadata.uid()) {
            let owner = name_of(Uid::from_raw(metadata.uid()));
            return Err(EmbeddedError::WrongOwner { directory: path.to_owned(), owner });
        }
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(EmbeddedError::io("change the permissions of", path))?;
        account.chown(path)
    }
}

/// Percent-encodes all except the unreserved characters of RFC 3986.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use tokio_postgres::Config;
    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn the_driver_can_parse_the_url() {
        let socket = SocketDirectory::of(Path::new("/srv/it's a ride/ü"), Path::new("/tmp")).unwrap();
        let config: Config = socket.url("ride wire").parse().unwrap();
        assert_eq!(config.get_hosts(), [Host::Unix("/srv/it's a ride/ü/run".into())]);
        assert_eq!(config.get_user(), Some("ridewire"));
        assert_eq!(config.get_dbname(), Some("ride wire"));
    }

    #[test]
    fn a_directory_too_long_for_a_socket_is_replaced_by_a_short_one() {
        let short = |data_dir: &str| SocketDirectory::of(Path::new(data_dir), Path::new("/tmp"));
        let longest = format!("/{}", "d".repeat(MAX_PATH_BYTES - "//run/.s.PGSQL.5432".len()));
        assert_eq!(short(&longest).unwrap().path(), Path::new(&longest).join("run"));
        let too_long = longest + "d";
        let replaced = short(&too_long).unwrap();
        assert!(replaced.text.starts_with("/tmp/ridewire-") && replaced.text.len() == 30, "{replaced:?}");
        assert_eq!(replaced, short(&too_long).unwrap());
        assert_ne!(replaced, short(&(too_long.clone() + "d")).unwrap());
        assert!(short("/a,b").unwrap().text.starts_with("/tmp/"));
        let nowhere = SocketDirectory::of(Path::new(&too_long), Path::new(&too_long));
        assert!(matches!(nowhere, Err(EmbeddedError::SocketPath { .. })));
    }
}
