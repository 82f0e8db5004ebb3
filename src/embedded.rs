//! A private Postgres: a child process, so that the server runs with nothing set up beside it.
//!
//! It is a whole Postgres with the guarantees of one: what was committed survives a crash of the server, of
//! Postgres and of the machine. It uses the PostgreSQL programs that are installed (14 or newer), and keeps all
//! that it has in one data directory:
//!
//! | in the data directory | is |
//! |---|---|
//! | `postgres` | the cluster |
//! | `run` | the socket's directory |
//! | `lock` | held by the server that runs here; says where its Postgres is |
//! | `postgres.log` | Postgres' own log since the last start (`.old`: the one before) |
//!
//! - **One server a data directory.** A second gets an error that says how to join the first as a replica.
//! - **A start finds its way from wherever the last end left things:** an `initdb` cut short, a Postgres that lost
//!   its server to SIGKILL, a pid file that names a stranger.
//! - **Other local users cannot connect.** There is no TCP, and no password either: the Unix socket and its directory
//!   have the modes 0700, for the user that Postgres runs as. That user and root come in, who could read the files
//!   anyway.
//! - **Root is no exception.** Postgres refuses to run as root, so it runs as the user `postgres` then, else `nobody`,
//!   and only the cluster and the socket's directory are given to that user.
//! - **A Ctrl-C stops the server, and the server stops Postgres**, last: Postgres is in a process group of its own.
//!
//! It is not meant for several machines, nor does it upgrade a cluster to another major version.

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

/// How long Postgres may take to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long Postgres may say nothing at all when it starts.
const SILENCE: Duration = Duration::from_secs(60);

/// How much memory a process of Postgres may keep that it does not use now, in bytes.
const KEPT_BYTES: &str = "8388608";

/// What of the private Postgres may be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether a commit is on disk when it is answered. `false` is for tests: it saves the waiting, and a crash of
    /// the machine (not one of Postgres alone) may corrupt the cluster. It also takes as many connections as the servers of
    /// many tests at once.
    pub durable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { durable: true }
    }
}

/// How Postgres is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ends its sessions, writes everything out, stops.
    Fast,
    /// Stops on the spot; the next start replays the log. Nothing committed is lost.
    Immediate,
}

/// A running private Postgres. [`EmbeddedPostgres::stop`] ends it and waits; dropping it only asks it to stop.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    child: Child,
    socket: SocketDirectory,
    log: Log,
    // Last: dropped after everything else.
    _lock: Lock,
}

/// The data directory unless one is chosen: `.ridewire`, or `/var/lib/ridewire` for root, whose home and working
/// directory the user that Postgres runs as may not reach.
pub fn default_data_dir() -> PathBuf {
    PathBuf::from(if nix::unistd::geteuid().is_root() { "/var/lib/ridewire" } else { ".ridewire" })
}

impl EmbeddedPostgres {
    /// Starts Postgres in `data_dir`, which is created when missing, and waits until the database `ridewire` is
    /// there.
    ///
    /// # Errors
    ///
    /// Each [`EmbeddedError`] says what to do about it. Postgres gets a minute to say anything; while it says that
    /// it is recovering from a crash, it is waited for, however long that takes.
    pub async fn start(data_dir: &Path, options: Options) -> Result<Self, EmbeddedError> {
        let programs = std::env::var_os("RIDEWIRE_PG_BIN").map(PathBuf::from);
        Self::start_with(programs.as_deref(), data_dir, options).await
    }

    /// The same with the PostgreSQL programs of one directory, where one is named.
    pub async fn start_with(programs: Option<&Path>, data_dir: &Path, options: Options) -> Result<Self, EmbeddedError> {
        let data_dir = cluster::open_data_dir(data_dir)?;
        let cluster = data_dir.join("postgres");
        let account = Account::of(&cluster)?;
        let socket = SocketDirectory::of(&data_dir, &std::env::temp_dir())?;
        let lock = Lock::take(&data_dir, &socket.own_url())?;

        let made_by = cluster::made_by(&cluster)?;
        let programs = Programs::find(programs, &cluster, made_by).await?;
        account.reaches(&data_dir, &programs.postgres()).await?;
        if made_by.is_some() {
            account.adopt(&cluster)?;
            orphan::recover(&cluster).await?;
        } else {
            tracing::info!(path = %cluster.display(), "creating a private Postgres");
            cluster::create(&cluster, &programs, &account, options.durable).await?;
        }
        socket.prepare(&account)?;
        account.reaches(socket.path(), &programs.postgres()).await?;

        let (log, output) = Log::begin(&data_dir)?;
        let child = spawn(&programs, &account, &cluster, &socket, output, options)?;
        // From here on the child is stopped on every way out.
        let mut postgres = Self { child, socket, log, _lock: lock };
        let client = postgres.accepting().await?;
        create_database(&client).await?;
        tracing::info!(postgres.pid = postgres.pid(), path = %cluster.display(), "the private Postgres is ready");
        Ok(postgres)
    }

    /// The address of the database `ridewire`, for `DATABASE_URL`, `psql` and drivers alike.
    pub fn url(&self) -> String {
        self.socket.own_url()
    }

    /// The address of another database of this Postgres, whether or not it exists.
    pub fn url_for(&self, database: &str) -> String {
        self.socket.url(database)
    }

    /// The pid of Postgres while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Resolves when Postgres has ended by itself, and says how. May be dropped and called again.
    pub async fn exited(&mut self) -> EmbeddedError {
        match self.child.wait().await {
            Ok(status) => EmbeddedError::Exited { status, log: self.log.path().to_owned(), tail: self.log.tail() },
            Err(error) => EmbeddedError::io("wait for the Postgres of", self.log.path())(error),
        }
    }

    /// Stops Postgres and waits for its end; one that takes more than 30 seconds is killed, which costs the next
    /// start a recovery, and no commit. Sessions should be closed before.
    ///
    /// # Errors
    ///
    /// When the operating system refuses to stop it or to tell of its end.
    pub async fn stop(mut self, mode: StopMode) -> Result<(), EmbeddedError> {
        self.signal(match mode {
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        });
        let ended = match timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => {
                tracing::warn!("the private Postgres does not stop, and is killed");
                self.child.kill().await
            }
        };
        ended.map_err(EmbeddedError::io("wait for the Postgres of", self.log.path()))?;
        // Only an empty one goes, which is what Postgres leaves unless it was killed.
        let _ = std::fs::remove_dir(self.socket.path());
        Ok(())
    }

    /// Signals Postgres, if it has not ended already.
    fn signal(&self, signal: Signal) {
        // The pid is there until its end was waited for, so it cannot be another's by now. What is left of errors
        // is that it has just ended.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits until Postgres lets someone in, and comes in.
    async fn accepting(&mut self) -> Result<Client, EmbeddedError> {
        let url = self.url_for("postgres");
        let mut deadline = Instant::now() + SILENCE;
        loop {
            let answer = tokio::select! {
                // An end is looked at first: what answers after it would be someone else.
                biased;
                ended = self.exited() => return Err(ended),
                answer = timeout(Duration::from_secs(5), connect(&url)) => answer,
            };
            match answer {
                Ok(Ok(client)) => return Ok(client),
                // It is replaying its log: giving up would only make the next start begin that anew.
                Ok(Err(error)) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => {
                    deadline = Instant::now() + SILENCE;
                }
                Ok(Err(error)) if error.as_db_error().is_some() => return Err(error.into()),
                Ok(Err(_)) | Err(_) if Instant::now() < deadline => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(EmbeddedError::Silent { log: self.log.path().to_owned(), tail: self.log.tail() });
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        // Killing it would cost the next start a recovery, so it is asked to stop, and not waited for.
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
    // `orphan` knows the process by the cluster's path among its arguments.
    command.arg("-D").arg(cluster);
    // Settings are given at each start, not written to the cluster: what this version wants always holds.
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
    // glibc's allocator would give back what each larger statement has used, and ask for it again with the next.
    command.env("MALLOC_TRIM_THRESHOLD_", KEPT_BYTES).env("MALLOC_MMAP_THRESHOLD_", KEPT_BYTES);
    let errors = output.try_clone().map_err(EmbeddedError::io("run", &program))?;
    // A group of its own keeps the terminal's Ctrl-C from it, which would end sessions that are still in use.
    command.stdout(output).stderr(Stdio::from(errors)).process_group(0);
    command.spawn().map_err(EmbeddedError::io("run", &program))
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client, and what breaks it the client sees as well.
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
