//! Errors of the private Postgres. The messages are for the operator.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why the private Postgres could not be started, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There are no usable `postgres` and `initdb` on this machine.
    #[error(
        "no PostgreSQL 14 or newer is installed. Install its server programs (Debian and Ubuntu: `apt-get install \
         postgresql`, Fedora: `dnf install postgresql-server`, Alpine: `apk add postgresql`, macOS: `brew install \
         postgresql@17`), name their directory in RIDEWIRE_PG_BIN, or name a running server in DATABASE_URL"
    )]
    NoPrograms,

    /// `RIDEWIRE_PG_BIN` is wrong.
    #[error(
        "RIDEWIRE_PG_BIN names {}, where there are no `postgres` and `initdb` of PostgreSQL 14 or newer; name their \
         directory, or leave it unset to search for them",
        .0.display()
    )]
    NotPrograms(PathBuf),

    /// The major version of the cluster is not installed. Postgres cannot read the files of another major version.
    #[error(
        "{} was created by PostgreSQL {major}, which is not installed (found: {found}). Install it, name its programs \
         in RIDEWIRE_PG_BIN, or set RIDEWIRE_DATA_DIR to another directory to begin anew",
        cluster.display()
    )]
    VersionNotInstalled {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The major version that created it.
        major: u32,
        /// The installed versions.
        found: String,
    },

    /// Another server runs on the same data directory.
    #[error(
        "another server is running in {}. For a further replica beside it set DATABASE_URL={url}; for a server of its \
         own set RIDEWIRE_DATA_DIR to another directory",
        data_dir.display()
    )]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
        /// The URL of the other server's Postgres.
        url: String,
    },

    /// As root: the user that must run Postgres may not enter a directory above its files.
    #[error(
        "Postgres does not run as root, and the user `{account}`, as which it would run, may not enter {}. Set \
         RIDEWIRE_DATA_DIR (or TMPDIR, if it is that) to a directory which that user can reach, as /var/lib/ridewire is",
        directory.display()
    )]
    NoAccess {
        /// The outermost directory that the user may not enter.
        directory: PathBuf,
        /// The user's name.
        account: String,
    },

    /// As root: the user that must run Postgres may not execute the programs.
    #[error(
        "Postgres does not run as root, and the user `{account}`, as which it would run, may not run {}. Let \
         that user execute it, or start the server as another user than root",
        program.display()
    )]
    NotExecutable {
        /// The program.
        program: PathBuf,
        /// The user's name.
        account: String,
    },

    /// As root: there is no other user to run Postgres.
    #[error(
        "Postgres does not run as root, and there is neither a user `postgres` nor a user `nobody` to run it as. Create \
         one, or start the server as another user than root"
    )]
    NoAccount,

    /// A directory belongs to another user.
    #[error(
        "{} belongs to the user {owner}. Run the server as that user, or set RIDEWIRE_DATA_DIR to another directory",
        directory.display()
    )]
    WrongOwner {
        /// The directory.
        directory: PathBuf,
        /// Its owner's name or number.
        owner: String,
    },

    /// The cluster's directory contains something else.
    #[error("{} is neither a Postgres cluster nor empty; move it away, or set RIDEWIRE_DATA_DIR", .0.display())]
    NotACluster(PathBuf),

    /// No directory has a path short enough for a socket.
    #[error(
        "{} is too long for a socket's path (at most {limit} bytes in all), and so is the temporary directory. Set \
         RIDEWIRE_DATA_DIR or TMPDIR to a shorter one",
        directory.display()
    )]
    SocketPath {
        /// The preferred directory of the socket.
        directory: PathBuf,
        /// The maximum length of a socket's path.
        limit: usize,
    },

    /// `initdb` failed.
    #[error("initdb failed ({status}). Fix what it reports, or name a running server in DATABASE_URL:\n{output}")]
    Initdb {
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its output.
        output: String,
    },

    /// Postgres exited without being stopped.
    #[error("the private Postgres ended ({status}). Fix what the last lines of {} report:\n{tail}", log.display())]
    Exited {
        /// Its exit status.
        status: ExitStatus,
        /// The path of its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// Postgres runs but does not respond.
    #[error(
        "the private Postgres has not responded for a minute. Fix what the last lines of {} report:\n{tail}",
        log.display()
    )]
    StartTimeout {
        /// The path of its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// Postgres responded with an error.
    #[error("the private Postgres rejected a statement of the start; postgres.log in the data directory may say why")]
    Database(#[from] tokio_postgres::Error),

    /// An operation of the operating system failed.
    #[error(
        "cannot {doing} {} (give the server's user access, or set RIDEWIRE_DATA_DIR to another directory)",
        path.display()
    )]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl EmbeddedError {
    /// Returns a function for `map_err` that adds the operation and the path.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
