//! Where the private Postgres listens: a Unix socket in a directory that nobody but its user (and root) enters.
//!
//! That directory is what keeps other local users out; there is no password and no TCP. Its place follows from
//! the data directory alone, so that every server on the same data directory names the same address.

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

/// How many bytes a socket's path may have, from `sockaddr_un`: Linux has 108 with the final NUL, others 104.
const LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The socket's directory, as text that both libpq and the `unix_socket_directories` setting take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketDirectory {
    path: PathBuf,
    text: String,
}

impl SocketDirectory {
    /// `run` in the data directory, or where that is too long, one below `temporary` named after it.
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
            .find_map(Self::fitting)
            .ok_or(EmbeddedError::SocketPath { directory: preferred, limit: LIMIT })
    }

    fn fitting(path: PathBuf) -> Option<Self> {
        let text = path.to_str()?.to_owned();
        // Both characters mean something in a list of directories, which the setting and libpq's host are.
        let fits = text.len() + "/.s.PGSQL.5432".len() <= LIMIT && !text.contains([',', '"']);
        fits.then_some(Self { path, text })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `unix_socket_directories`: a list of one.
    pub(super) fn setting(&self) -> String {
        format!("\"{}\"", self.text)
    }

    /// The address of one database, with nothing in it that a shell would not take as it is.
    pub(super) fn url(&self, database: &str) -> String {
        format!("postgresql://{USER}@{}/{}", encode(&self.text), encode(database))
    }

    /// The address of our own database.
    pub(super) fn own_url(&self) -> String {
        self.url(DATABASE)
    }

    /// Creates the directory for `account` alone; refuses one that someone else has put there.
    pub(super) fn prepare(&self, account: &Account) -> Result<(), EmbeddedError> {
        let path = self.path();
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(EmbeddedError::io("create the directory", path)(error));
            }
            _ => {}
        }
        // Not following a link: in the temporary directory anyone may have left one.
        let metadata = fs::symlink_metadata(path).map_err(EmbeddedError::io("look at", path))?;
        if !metadata.is_dir() || !account.may_take(metadata.uid()) {
            let owner = name_of(Uid::from_raw(metadata.uid()));
            return Err(EmbeddedError::NotOurs { directory: path.to_owned(), owner });
        }
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(EmbeddedError::io("close", path))?;
        account.own(path)
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
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
    fn the_address_is_one_that_the_driver_understands() {
        let socket = SocketDirectory::of(Path::new("/srv/it's a ride/ü"), Path::new("/tmp")).unwrap();
        let config: Config = socket.url("ride wire").parse().unwrap();
        assert_eq!(config.get_hosts(), [Host::Unix("/srv/it's a ride/ü/run".into())]);
        assert_eq!(config.get_user(), Some("ridewire"));
        assert_eq!(config.get_dbname(), Some("ride wire"));
    }

    #[test]
    fn a_directory_that_no_socket_fits_in_is_replaced_by_a_short_one() {
        let short = |data_dir: &str| SocketDirectory::of(Path::new(data_dir), Path::new("/tmp"));
        let longest = format!("/{}", "d".repeat(LIMIT - "//run/.s.PGSQL.5432".len()));
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
