//! A private Postgres as a child process, so that the server needs no database to be set up.
//!
//! It has the durability of any Postgres: committed data survives a crash of the server, of Postgres and of the
//! machine. It uses the installed PostgreSQL programs (14 or newer), and stores everything in one data directory:
//!
//! | file | content |
//! |---|---|
//! | `postgres` | the cluster |
//! | `run` | the directory of the socket |
//! | `lock` | is locked by the server that uses the directory; has the URL of its Postgres |
//! | `postgres.log` | the log of Postgres since the last start (`.old`: the log before) |
//!
//! - **One server per data directory.** A second one fails with an error that explains how to join the first as a
//!   replica.
//! - **A start recovers from any state that the last end left:** an interrupted `initdb`, a Postgres whose server was
//!   killed, a stale pid file whose pid belongs to another process.
//! - **Other local users cannot connect.** There is no TCP and no password. The Unix socket and its directory have mode
//!   0700 and belong to the user that runs Postgres. Only that user and root can connect, who can read the files
//!   anyway.
//! - **It works as root.** Postgres refuses to run as root, so it then runs as the user `postgres`, or `nobody`. Only
//!   the cluster and the socket's directory belong to that user.
//! - **Ctrl-C stops the server, and the server stops Postgres last.** Postgres is in its own process group.
//!
//! It is not designed for several machines, and it does not upgrade a cluster to another major version.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use self::account::Account;
pub(crate) use self::cluster::open_data_dir;
pub use self::error::EmbeddedError;
pub use self::inspect::{Inspection, inspect};
use self::lock::Lock;
use self::log::Log;
use self::programs::Programs;
use self::socket::SocketDirectory;

mod account;
mod cluster;
mod error;
mod inspect;
mod lock;
mod log;
mod orphan;
mod programs;
mod socket;
#[cfg(test)]
mod tests;

const USER: &str = "ridewire";
const DATABASE: &str = "ridewire";

/// The time that Postgres may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that Postgres may take to respond after a start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The memory that an idle process of Postgres may keep allocated, in bytes.
const MALLOC_THRESHOLD_BYTES: &str = "8388608";

/// Options of the private Postgres.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether a commit is on disk before Postgres responds. `false` is for tests: it saves the wait for the disk, and
    /// a crash of the machine (not of Postgres alone) may corrupt the cluster. It also raises the number of
    /// connections, for the servers of many concurrent tests.
    pub durable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { durable: true }
    }
}

/// How Postgres is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Terminates the sessions, writes a checkpoint, and stops.
    Fast,
    /// Stops immediately; the next start replays the write-ahead log. No commit is lost.
    Immediate,
}

/// A running private Postgres. [`EmbeddedPostgres::stop`] stops it and waits; dropping it only sends the stop signal.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    child: Child,
    socket: SocketDirectory,
    log: Log,
    // Last: dropped after everything else.
    _lock: Lock,
}

/// The default data directory: `.ridewire`, or `/var/lib/ridewire` for root, because the user that runs Postgres may
/// have no access to root's home and working directory.
pub fn default_data_dir() -> PathBuf {
    PathBuf::from(if nix::unistd::geteuid().is_root() { "/var/lib/ridewire" } else { ".ridewire" })
}

impl EmbeddedPostgres {
    /// Starts Postgres in `data_dir`, which is created if it is missing, and waits until the database `ridewire`
    /// exists.
    ///
    /// # Errors
    ///
    /// Each [`EmbeddedError`] explains what to do. Postgres must respond within a minute. While it reports that it is
    /// recovering from a crash, the wait continues without a limit.
    pub async fn start(data_dir: &Path, options: Options) -> Result<Self, EmbeddedError> {
        let programs = std::env::var_os("RIDEWIRE_PG_BIN").map(PathBuf::from);
        Self::start_with(programs.as_deref(), data_dir, options).await
    }

    /// Like [`Self::start`], with the PostgreSQL programs of a given directory.
    pub async fn start_with(programs: Option<&Path>, data_dir: &Path, options: Options) -> Result<Self, EmbeddedError> {
        let data_dir = cluster::open_data_dir(data_dir)?;
        let cluster = data_dir.join("postgres");
        let account = Account::of(&cluster)?;
        let socket = SocketDirectory::of(&data_dir, &std::env::temp_dir())?;
        let lock = Lock::take(&data_dir, &socket.own_url())?;

        let major_version = cluster::major_version(&cluster)?;
        let programs = Programs::find(programs, &cluster, major_version).await?;
        account.check_access(&data_dir, &programs.postgres()).await?;
        if major_version.is_some() {
            account.take_ownership(&cluster)?;
            orphan::stop_orphan(&cluster).await?;
        } else {
            tracing::info!(path = %cluster.display(), "creating a private Postgres");
            cluster::create(&cluster, &programs, &account, options.durable).await?;
        }
        socket.prepare(&account)?;
        account.check_access(socket.path(), &programs.postgres()).await?;

        let (log, output) = Log::begin(&data_dir)?;
        let child = spawn(&programs, &account, &cluster, &socket, output, options)?;
        // From here on, every return path stops the child.
        let mut postgres = Self { child, socket, log, _lock: lock };
        let client = postgres.wait_until_ready().await?;
        create_database(&client).await?;
        tracing::info!(postgres.pid = postgres.pid(), path = %cluster.display(), "private Postgres ready");
        Ok(postgres)
    }

    /// Returns the URL of the database `ridewire`, for `DATABASE_URL`, `psql` and drivers.
    pub fn url(&self) -> String {
        self.socket.own_url()
    }

    /// Returns the URL of another database of this Postgres, which may not exist.
    pub fn url_for(&self, database: &str) -> String {
        self.socket.url(database)
    }

    /// Returns the pid of Postgres while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until Postgres exits by itself, and returns why. It is cancellation-safe.
    pub async fn exited(&mut self) -> EmbeddedError {
        match self.child.wait().await {
            Ok(status) => EmbeddedError::Exited { status, log: self.log.path().to_owned(), tail: self.log.tail() },
            Err(error) => EmbeddedError::io("wait for the Postgres of", self.log.path())(error),
        }
    }

    /// Stops Postgres and waits for its exit. If it takes more than 30 seconds, it is killed; the next start then
    /// recovers without losing a commit. Close sessions before.
    ///
    /// # Errors
    ///
    /// If the operating system cannot stop it or report its exit.
    pub async fn stop(mut self, mode: StopMode) -> Result<(), EmbeddedError> {
        self.signal(match mode {
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        });
        let ended = match timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => {
                tracing::warn!("private Postgres did not stop in time, killing it");
                self.child.kill().await
            }
        };
        ended.map_err(EmbeddedError::io("wait for the Postgres of", self.log.path()))?;
        // `remove_dir` removes only an empty directory. It is empty unless Postgres was killed.
        let _ = std::fs::remove_dir(self.socket.path());
        Ok(())
    }

    /// Sends a signal to Postgres, if it has not exited.
    fn signal(&self, signal: Signal) {
        // The pid is reserved until the child was waited for, so it cannot belong to another process. The only possible
        // error is that the child has just exited.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits until Postgres accepts a connection, and returns it.
    async fn wait_until_ready(&mut self) -> Result<Client, EmbeddedError> {
        let url = self.url_for("postgres");
        let mut deadline = Instant::now() + START_TIMEOUT;
        loop {
            let connected = tokio::select! {
                // The exit is polled first: a response after it would come from another process.
                biased;
                ended = self.exited() => return Err(ended),
                connected = timeout(Duration::from_secs(5), connect(&url)) => connected,
            };
            match connected {
                Ok(Ok(client)) => return Ok(client),
                // It is replaying its log. Giving up would only make the next start begin the replay again.
                Ok(Err(error)) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => {
                    deadline = Instant::now() + START_TIMEOUT;
                }
                Ok(Err(error)) if error.as_db_error().is_some() => return Err(error.into()),
                Ok(Err(_)) | Err(_) if Instant::now() < deadline => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(EmbeddedError::StartTimeout { log: self.log.path().to_owned(), tail: self.log.tail() });
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        // A kill would require a recovery at the next start, so only the stop signal is sent, without a wait.
        self.signal(Signal::SIGINT);
    }
}

fn spawn(
    programs: &Programs,
    account: &Account,
    cluster: &Path,
    socket: &SocketDirectory,
    output: File,
    options: Options,
) -> Result<Child, EmbeddedError> {
    let program = programs.postgres();
    let mut command = account.command(&program);
    // `orphan` identifies the process by the cluster's path among its arguments.
    command.arg("-D").arg(cluster);
    // Settings are passed at each start and not written to the cluster, so the settings of this version always apply.
    let on_disk = if options.durable { "on" } else { "off" };
    for (name, value) in [
        ("listen_addresses", ""),
        ("port", "5432"),
        ("unix_socket_directories", &socket.setting()),
        ("unix_socket_permissions", "0700"),
        ("max_connections", if options.durable { "100" } else { "600" }),
        ("shared_buffers", "128MB"),
        ("fsync", on_disk),
        ("full_page_writes", on_disk),
        ("synchronous_commit", "on"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
        ("cluster_name", "ridewire"),
    ] {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    // glibc's allocator would otherwise return the memory of each larger statement, and request it again for the next
    // one.
    command.env("MALLOC_TRIM_THRESHOLD_", MALLOC_THRESHOLD_BYTES).env("MALLOC_MMAP_THRESHOLD_", MALLOC_THRESHOLD_BYTES);
    let errors = output.try_clone().map_err(EmbeddedError::io("run", &program))?;
    // A separate process group does not receive the terminal's Ctrl-C, which would end sessions that are still in use.
    command.stdout(output).stderr(Stdio::from(errors)).process_group(0);
    command.spawn().map_err(EmbeddedError::io("run", &program))
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client, and the client also receives its errors.
    tokio::spawn(connection);
    Ok(client)
}

async fn create_database(client: &Client) -> Result<(), EmbeddedError> {
    let found = client.query_opt("select 1 from pg_database where datname = $1", &[&DATABASE]).await?;
    if found.is_none() {
        client.batch_execute(&format!("create database {DATABASE}")).await?;
    }
    Ok(())
}
