//! A server with a Postgres of its own: how both end, and whom the data directory is open to.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, SECRET, eventually, ridewire};

/// A data directory, whose Postgres ends with the test whatever happens.
struct Data(TempDir);

impl Data {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("rw-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o711)).unwrap();
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn record(&self) -> PathBuf {
        self.path().join("postgres/postmaster.pid")
    }

    /// The pid of its Postgres, while it runs.
    fn postgres(&self) -> Option<i32> {
        let pid: i32 = fs::read_to_string(self.record()).ok()?.lines().next()?.parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(self.path().to_str().unwrap()).then_some(pid)
    }

    /// What of clusters is in it, whole or not.
    fn clusters(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name == "postgres" || name.starts_with("postgres.new")).collect()
    }

    fn serve(&self, command: &mut Command) -> Child {
        let command = command.env("RIDEWIRE_DATA_DIR", self.path()).env("RIDEWIRE_LISTEN", "127.0.0.1:0");
        command.stdout(Stdio::piped()).spawn().unwrap()
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some(pid) = self.postgres() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
    }
}

async fn listening(server: &mut Child) {
    let mut lines = BufReader::new(server.stdout.as_mut().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts").unwrap().expect("it does not end");
    assert!(line.starts_with("listening on "), "{line}");
}

fn signal(server: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(server.id().unwrap()).unwrap()), signal).unwrap();
}

async fn ended(server: &mut Child) -> std::process::ExitStatus {
    timeout(PATIENCE, server.wait()).await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_signal_that_asks_for_an_end_stops_the_private_postgres_too() {
    let data = Data::new();
    for asked in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGINT] {
        let mut server = data.serve(&mut ridewire());
        listening(&mut server).await;
        assert!(data.postgres().is_some());
        signal(&server, asked);
        assert!(ended(&mut server).await.success(), "{asked}");
        assert!(!data.record().exists() && data.postgres().is_none(), "{asked} leaves Postgres behind");
    }
    // `nohup` has it ignored, which means that it is to be.
    let mut kept = Command::new("sh");
    kept.args(["-c", "trap '' HUP; exec \"$0\"", env!("CARGO_BIN_EXE_ridewire")]).kill_on_drop(true);
    let mut server = data.serve(&mut kept);
    listening(&mut server).await;
    signal(&server, Signal::SIGHUP);
    assert!(data.postgres().is_some());
    signal(&server, Signal::SIGTERM);
    assert!(ended(&mut server).await.success());
    let secret = data.path().join("jwt-secret");
    let open = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(open(secret), 0o600);
    // Root's is passed through by the user that Postgres runs as.
    assert_eq!(open(data.path()), if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_while_the_cluster_is_made_leaves_nothing_of_it() {
    for asked in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let data = Data::new();
        let mut server = data.serve(&mut ridewire());
        eventually("the cluster is being made", async || {
            data.clusters().iter().any(|name| name.starts_with("postgres.new")).then_some(())
        })
        .await;
        signal(&server, asked);
        let status = ended(&mut server).await;
        // A machine that is quicker than the signal has a whole one.
        let left = data.clusters();
        assert!(left.is_empty() || left == ["postgres"], "{asked}: {status}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_somebody_else_can_have_put_there_is_not_used() {
    let data = Data::new();
    fs::create_dir(data.path()).unwrap();
    let secret = data.path().join("jwt-secret");
    let planted = data.0.path().join("planted");
    fs::write(&planted, SECRET).unwrap();
    fs::set_permissions(&planted, Permissions::from_mode(0o600)).unwrap();
    let rejected = async |why: &str| {
        for arguments in [&["serve"][..], &["token", "--sub", "u", "--role", "service"]] {
            let mut command = ridewire();
            command.args(arguments).env("RIDEWIRE_DATA_DIR", data.path()).env("RIDEWIRE_LISTEN", "127.0.0.1:0");
            let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains("jwt-secret"), "{why}: {said}");
            assert!(output.stdout.is_empty(), "{why}");
        }
        fs::remove_file(&secret).unwrap();
    };
    symlink(&planted, &secret).unwrap();
    rejected("a link").await;
    fs::hard_link(&planted, &secret).unwrap();
    rejected("another name of a file").await;
    fs::copy(&planted, &secret).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    rejected("readable by all").await;
    if nix::unistd::geteuid().is_root() {
        fs::copy(&planted, &secret).unwrap();
        std::os::unix::fs::chown(&secret, Some(12_345), None).unwrap();
        rejected("another user's").await;
    }
}
