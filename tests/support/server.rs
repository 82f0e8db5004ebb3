//! A server: the real program, as a process of its own.

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
use super::{PATIENCE, Stream, eventually};

/// What the tests' tokens are signed with.
pub const SECRET: &str = "a secret of the tests, and of nobody else";

/// The program, with nothing of our own environment, and at a port of its own.
pub fn ridewire() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ridewire"));
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
    /// Starts one on this database.
    pub async fn start(database: &Database) -> Self {
        Self::with(database, &[]).await
    }

    /// Starts one with further settings.
    pub async fn with(database: &Database, settings: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = database.directory.join(format!("server-{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = ridewire();
        command
            .env("DATABASE_URL", &database.url)
            .env("RIDEWIRE_JWT_SECRET", SECRET)
            .env("RIDEWIRE_LISTEN", "127.0.0.1:0")
            // A Postgres that is there is waited for, however busy the machine is. Tests of one that is away say less.
            .env("RIDEWIRE_DATABASE_TIMEOUT", "60s")
            // Not used with a DATABASE_URL; the guard knows the process by it.
            .env("RIDEWIRE_DATA_DIR", &database.directory)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("a log file"));
        // Of what is set to nothing here, nothing is set.
        settings.iter().filter(|(_, value)| value.is_empty()).for_each(|(name, _)| {
            command.env_remove(name);
        });
        let mut child = command.spawn().expect("ridewire starts");
        database.guard.watch(child.id().expect("ridewire runs"));
        let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ready = timeout(PATIENCE, output.next_line()).await;
        let Ok(Ok(Some(line))) = ready else {
            panic!("ridewire did not say where it listens: {ready:?}\n{}", read(&log));
        };
        let base = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("unexpected output: {line}")).to_owned();
        Self { base, child, output, log, http: reqwest::Client::new() }
    }

    /// `127.0.0.1:…`
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Somebody who asks this server.
    pub fn user(&self, name: &str, role: Role) -> User {
        User::new(self.http.clone(), &self.base, name, role)
    }

    /// A rider.
    pub fn rider(&self, name: &str) -> User {
        self.user(name, Role::Rider)
    }

    /// A driver.
    pub fn driver(&self, name: &str) -> User {
        self.user(name, Role::Driver)
    }

    /// Support.
    pub fn support(&self) -> User {
        self.user("support_1", Role::Support)
    }

    /// The platform around.
    pub fn service(&self) -> User {
        self.user("platform", Role::Service)
    }

    /// Makes `ride` one of `rider_1`, driven by `driver_1`: its chat is open, and its log is at 1.
    pub async fn open_ride(&self, ride: &str) -> (User, User) {
        let service = self.service();
        eventually("the ride is made", async || {
            let answer = service.put_ride(ride, "rider_1", Some("driver_1")).await;
            // Where a test has little patience with Postgres, the answer to a first attempt may be lost.
            (answer.status != 503).then(|| if answer.status == 200 { answer } else { answer.expect(201) })
        })
        .await;
        (self.rider("rider_1"), self.driver("driver_1"))
    }

    /// A stream of a ride that begins now, past its `stream:sync`.
    pub async fn live(&self, user: &User, ride: &str) -> Stream {
        let mut stream = user.on(self).stream(ride, "").await;
        stream.next_sync().await;
        stream
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Kills it on the spot.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it was running");
    }

    /// Asks it to stop, as a deployment would.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("a signal");
    }

    /// Asks it to stop with SIGTERM and waits for its end.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let ended = timeout(PATIENCE * 2, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("ridewire does not stop:\n{}", read(&self.log))).expect("its status")
    }

    /// What it has logged. Lines of the access log come some milliseconds after their response.
    pub fn log(&self) -> String {
        self.whole_log()
    }

    /// All that it has logged.
    pub fn whole_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The next line of its output.
    pub async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.output.next_line()).await.expect("a line").expect("its output")
    }
}

/// The end of a log.
fn read(log: &std::path::Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(8 * 1024);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = read(&self.log);
            #[allow(clippy::print_stderr, reason = "what a failed test needs to be understood")]
            if !log.is_empty() {
                eprintln!("--- the end of the log of the server at {}\n{log}---", self.base);
            }
        }
        let _ = self.child.start_kill();
    }
}
