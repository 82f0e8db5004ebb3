//! Why the private Postgres is not there, in words for whoever starts the server.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why the private Postgres could not be started, or stopped being there.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No usable `postgres` and `initdb` on this machine.
    #[error(
        "no PostgreSQL 14 or newer is installed. Install its server programs (Debian and Ubuntu: `apt-get install \
         postgresql`, Fedora: `dnf install postgresql-server`, Alpine: `apk add postgresql`, macOS: `brew install \
         postgresql@17`), name their directory in RIDEWIRE_PG_BIN, or name a running server in DATABASE_URL"
    )]
    NoPrograms,

    /// `RIDEWIRE_PG_BIN` was given and is wrong.
    #[error(
        "RIDEWIRE_PG_BIN names {}, where there are no `postgres` and `initdb` of PostgreSQL 14 or newer; name their \
         directory, or leave it out to have it found",
        .0.display()
    )]
    NotPrograms(PathBuf),

    /// The cluster belongs to a major version that is not installed (Postgres does not read another's files).
    #[error(
        "{} was created by PostgreSQL {major}, which is not installed (found: {found}). Install it, name its programs \
         in RIDEWIRE_PG_BIN, or set RIDEWIRE_DATA_DIR to another directory to begin anew",
        cluster.display()
    )]
    OtherVersion {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The major version that made it.
        major: u32,
        /// The versions that are there.
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
        /// Where the other server's Postgres is.
        url: String,
    },

    /// We are root, and the user that Postgres must run as may not enter a directory above its files.
    #[error(
        "Postgres does not run as root, and the user `{account}`, as which it would run, may not enter {}. Set \
         RIDEWIRE_DATA_DIR (or TMPDIR, if it is that) to a directory which that user can reach, as /var/lib/ridewire is",
        directory.display()
    )]
    Unreachable {
        /// The outermost directory that keeps the user out.
        directory: PathBuf,
        /// The user's name.
        account: String,
    },

    /// We are root, and the user that Postgres must run as may not run the programs.
    #[error(
        "Postgres does not run as root, and the user `{account}`, as which it would run, may not run {}. Let \
         that user execute it, or start the server as another user than root",
        program.display()
    )]
    Forbidden {
        /// The program.
        program: PathBuf,
        /// The user's name.
        account: String,
    },

    /// We are root, and there is nobody else to run as.
    #[error(
        "Postgres does not run as root, and there is neither a user `postgres` nor a user `nobody` to run it as. Create \
         one, or start the server as another user than root"
    )]
    NoAccount,

    /// A directory that must be ours alone is someone else's.
    #[error(
        "{} belongs to the user {owner}. Run the server as that user, or set RIDEWIRE_DATA_DIR to another directory",
        directory.display()
    )]
    NotOurs {
        /// The directory.
        directory: PathBuf,
        /// Its owner's name or number.
        owner: String,
    },

    /// The cluster's directory holds something else.
    #[error("{} is neither a Postgres cluster nor empty; move it away, or set RIDEWIRE_DATA_DIR", .0.display())]
    NotACluster(PathBuf),

    /// No directory is short enough for a socket.
    #[error(
        "{} is too long for a socket's path (at most {limit} bytes in all), and so is the temporary directory. Set \
         RIDEWIRE_DATA_DIR or TMPDIR to a shorter one",
        directory.display()
    )]
    SocketPath {
        /// The directory that the socket was to be in.
        directory: PathBuf,
        /// How long a socket's path may be.
        limit: usize,
    },

    /// `initdb` failed.
    #[error("initdb failed ({status}). Mend what it reports, or name a running server in DATABASE_URL:\n{output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of what it said.
        output: String,
    },

    /// Postgres ended, and not because of us.
    #[error("the private Postgres ended ({status}). Mend what the last lines of {} report:\n{tail}", log.display())]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// Where its log is.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// Postgres runs and does not answer.
    #[error(
        "the private Postgres has not answered for a minute. Mend what the last lines of {} report:\n{tail}",
        log.display()
    )]
    Silent {
        /// Where its log is.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// Postgres answered with an error.
    #[error("the private Postgres refused what every start asks of it; postgres.log in the data directory may say why")]
    Database(#[from] tokio_postgres::Error),

    /// The operating system refused something.
    #[error(
        "cannot {doing} {} (let the server's user have it, or set RIDEWIRE_DATA_DIR to another directory)",
        path.display()
    )]
    Io {
        /// What was to be done, as a verb.
        doing: &'static str,
        /// What it was to be done to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl EmbeddedError {
    /// Says what was being done to what, for `map_err`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
