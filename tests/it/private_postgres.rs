//! A server with a private Postgres: how both stop, and the permissions of the data directory.

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

use crate::support::{SECRET, TIMEOUT, eventually, program, ridewire};

/// A data directory. Its Postgres is stopped when the test ends.
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

    /// Returns the pid of its Postgres while it runs.
    fn postgres(&self) -> Option<i32> {
        let pid: i32 = fs::read_to_string(self.record()).ok()?.lines().next()?.parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(self.path().to_str().unwrap()).then_some(pid)
    }

    /// Returns the complete and incomplete clusters in it.
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
    let line = timeout(TIMEOUT, lines.next_line())
        .await
        .expect("the server starts")
        .unwrap()
        .expect("the server does not exit");
    assert!(line.starts_with("listening on "), "{line}");
}

fn signal(server: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(server.id().unwrap()).unwrap()), signal).unwrap();
}

async fn ended(server: &mut Child) -> std::process::ExitStatus {
    timeout(TIMEOUT, server.wait()).await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_termination_signal_also_stops_the_private_postgres() {
    let data = Data::new();
    for sent in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGINT] {
        let mut server = data.serve(&mut ridewire());
        listening(&mut server).await;
        assert!(data.postgres().is_some());
        signal(&server, sent);
        assert!(ended(&mut server).await.success(), "{sent}");
        assert!(!data.record().exists() && data.postgres().is_none(), "{sent} leaves Postgres behind");
    }
    // `nohup` ignores SIGHUP, and the server must respect that.
    let mut kept = Command::new("sh");
    kept.args(["-c", "trap '' HUP; exec \"$0\""]).arg(program()).kill_on_drop(true);
    let mut server = data.serve(&mut kept);
    listening(&mut server).await;
    signal(&server, Signal::SIGHUP);
    assert!(data.postgres().is_some());
    signal(&server, Signal::SIGTERM);
    assert!(ended(&mut server).await.success());
    let secret = data.path().join("jwt-secret");
    let open = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(open(secret), 0o600);
    // As root, Postgres runs as another user, which must be able to pass root's directory.
    assert_eq!(open(data.path()), if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_during_initdb_leaves_no_files() {
    for sent in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let data = Data::new();
        let mut server = data.serve(&mut ridewire());
        eventually("initdb is running", async || {
            data.clusters().iter().any(|name| name.starts_with("postgres.new")).then_some(())
        })
        .await;
        signal(&server, sent);
        let status = ended(&mut server).await;
        // A fast machine may have completed the cluster before the signal.
        let left = data.clusters();
        assert!(left.is_empty() || left == ["postgres"], "{sent}: {status}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_file_that_another_user_may_have_written_is_not_used() {
    let data = Data::new();
    fs::create_dir(data.path()).unwrap();
    let secret = data.path().join("jwt-secret");
    let foreign_secret = data.0.path().join("foreign_secret");
    fs::write(&foreign_secret, SECRET).unwrap();
    fs::set_permissions(&foreign_secret, Permissions::from_mode(0o600)).unwrap();
    let rejected = async |why: &str| {
        for arguments in [&["serve"][..], &["token", "--sub", "u", "--role", "service"]] {
            let mut command = ridewire();
            command.args(arguments).env("RIDEWIRE_DATA_DIR", data.path()).env("RIDEWIRE_LISTEN", "127.0.0.1:0");
            let output = timeout(TIMEOUT, command.output()).await.expect("it ends").unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && stderr.contains("jwt-secret"), "{why}: {stderr}");
            assert!(output.stdout.is_empty(), "{why}");
        }
        fs::remove_file(&secret).unwrap();
    };
    symlink(&foreign_secret, &secret).unwrap();
    rejected("a link").await;
    fs::hard_link(&foreign_secret, &secret).unwrap();
    rejected("a hard link to another file").await;
    fs::copy(&foreign_secret, &secret).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    rejected("readable by other users").await;
    if nix::unistd::geteuid().is_root() {
        fs::copy(&foreign_secret, &secret).unwrap();
        std::os::unix::fs::chown(&secret, Some(12_345), None).unwrap();
        rejected("another user's").await;
    }
}
