//! A server: the `ridewire` program as a separate process.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::cluster::Database;
use super::user::{Role, User};
use super::{Stream, TIMEOUT, eventually};

/// The secret that signs the tests' tokens.
pub const SECRET: &str = "a secret that only the tests use";

/// Returns the path of the program: `$RIDEWIRE_BIN`, or the one that cargo has built with the tests.
pub fn program() -> OsString {
    std::env::var_os("RIDEWIRE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_ridewire").into())
}

/// Returns the command that runs the program: without the environment of the test process, and with a free port.
pub fn ridewire() -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("RIDEWIRE_LISTEN", "127.0.0.1:0");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// `http://127.0.0.1:…`
    pub base: String,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    http: reqwest::Client,
}

impl Server {
    /// Starts a server on this database.
    pub async fn start(database: &Database) -> Self {
        Self::start_with(database, &[]).await
    }

    /// Starts a server with further environment variables. A variable with an empty value is unset.
    pub async fn start_with(database: &Database, settings: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = database.directory.join(format!("server-{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = ridewire();
        command
            .env("DATABASE_URL", &database.url)
            .env("RIDEWIRE_JWT_SECRET", SECRET)
            .env("RIDEWIRE_LISTEN", "127.0.0.1:0")
            // On a busy machine a running Postgres may respond late. Tests of an outage set a shorter timeout.
            .env("RIDEWIRE_DATABASE_TIMEOUT", "60s")
            // The server ignores it where DATABASE_URL is set; the guard identifies the process by it.
            .env("RIDEWIRE_DATA_DIR", &database.directory)
            .envs((!database.has_feed).then_some(("RIDEWIRE_FEED", "off")))
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("a log file"));
        // A variable with an empty value is unset.
        settings.iter().filter(|(_, value)| value.is_empty()).for_each(|(name, _)| {
            command.env_remove(name);
        });
        let mut child = command.spawn().expect("ridewire starts");
        database.guard.watch(child.id().expect("ridewire runs"));
        let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ready = timeout(TIMEOUT, output.next_line()).await;
        let Ok(Ok(Some(line))) = ready else {
            panic!("ridewire did not print its address: {ready:?}\n{}", log_end(&log));
        };
        let base = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("unexpected output: {line}")).to_owned();
        Self { base, child, output, log, http: reqwest::Client::new() }
    }

    /// `127.0.0.1:…`
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Returns a client of this server with a token for this user.
    pub fn user(&self, name: &str, role: Role) -> User {
        User::new(self.http.clone(), &self.base, name, role)
    }

    /// Returns a client with a rider's token.
    pub fn rider(&self, name: &str) -> User {
        self.user(name, Role::Rider)
    }

    /// Returns a client with a driver's token.
    pub fn driver(&self, name: &str) -> User {
        self.user(name, Role::Driver)
    }

    /// Returns a client with support's token.
    pub fn support(&self) -> User {
        self.user("support_1", Role::Support)
    }

    /// Returns a client with the platform's token (role `service`).
    pub fn service(&self) -> User {
        self.user("platform", Role::Service)
    }

    /// Creates a ride of `rider_1` and `driver_1`. Its chat is open and its log has one event.
    pub async fn open_ride(&self, ride: &str) -> (User, User) {
        let service = self.service();
        eventually("the ride is created", async || {
            let response = service.put_ride(ride, "rider_1", Some("driver_1")).await;
            // Where a test sets a short database timeout, the first attempt may get 503 although it is committed.
            (response.status != 503).then(|| if response.status == 200 { response } else { response.expect(201) })
        })
        .await;
        (self.rider("rider_1"), self.driver("driver_1"))
    }

    /// Opens a stream of a ride that begins now, and reads its `stream:sync`.
    pub async fn live_stream(&self, user: &User, ride: &str) -> Stream {
        let mut stream = user.on(self).stream(ride, "").await;
        stream.next_sync().await;
        stream
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// Returns whether the process has not exited.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Kills the process (SIGKILL).
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the server ran");
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("a signal");
    }

    /// Sends SIGTERM and waits until the process has exited.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let ended = timeout(TIMEOUT * 2, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("ridewire does not stop:\n{}", log_end(&self.log)));
        // A task that holds a handle on the writer delays each stop.
        assert!(!self.log().contains("shutdown timed out for the writer"), "{}", log_end(&self.log));
        status.expect("its status")
    }

    /// Returns the log. Lines of the access log are written some milliseconds after their response.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the next line of the standard output, or `None` at its end.
    pub async fn next_output_line(&mut self) -> Option<String> {
        timeout(TIMEOUT, self.output.next_line()).await.expect("a line").expect("its output")
    }
}

/// Returns the last 8 KiB of a log.
fn log_end(log: &std::path::Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(8 * 1024);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = log_end(&self.log);
            #[allow(clippy::print_stderr, reason = "a failed test needs the server's log")]
            if !log.is_empty() {
                eprintln!("--- the end of the log of the server at {}\n{log}---", self.base);
            }
        }
        let _ = self.child.start_kill();
    }
}
