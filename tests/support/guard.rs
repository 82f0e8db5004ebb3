//! Stops the processes that the tests have started, however the test process ends. Rust does not drop statics, and a killed
//! process drops nothing; a separate shell therefore does this.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Collects pids until the test process has ended. Then stops each process that is still the same process: a Postgres with the
/// directory among its arguments, or a server with the directory in its environment. Then stops each Postgres of the directory that
/// such a process has started. Then removes the directory, on which a disk may be mounted.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
# A test may have stopped processes.
stop_postgres() { kill -CONT "$1" $(cat "/proc/$1/task/$1/children"); kill -INT "$1"; }
while read -r pid; do pids="$pids $pid"; done
for pid in $pids; do
    if grep -qsaF "$0/postgres" "/proc/$pid/cmdline"; then stop_postgres "$pid"
    elif grep -qsaF "$0" "/proc/$pid/environ"; then kill -KILL "$pid"
    fi
done
for arguments in $(grep -lsaF "$0/postgres" /proc/[0-9]*/cmdline); do
    pid=${arguments#/proc/} pid=${pid%/cmdline}
    stop_postgres "$pid" && pids="$pids $pid"
done
tries=0
for pid in $pids; do
    while [ $tries -lt 100 ] && grep -qsaF "$0" "/proc/$pid/cmdline"; do tries=$((tries + 1)); sleep 0.1; done
done
umount -l "$0"
rm -rf "$0"
"#;

/// A shell that waits for the end of the test process.
#[derive(Debug)]
pub struct ProcessGuard {
    pids: Mutex<Option<ChildStdin>>,
    shell: Child,
}

impl ProcessGuard {
    /// Creates a directory below /tmp, and starts the shell for it.
    pub fn with_directory() -> (PathBuf, Arc<Self>) {
        let directory = tempfile::Builder::new()
            .prefix("rw-")
            // The user that Postgres runs as needs execute permission on the directory.
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in("/tmp")
            .expect("a directory below /tmp")
            .keep();
        let guard = Arc::new(Self::of(&directory));
        (directory, guard)
    }

    /// Starts the shell for the processes of `directory` and the directory itself.
    fn of(directory: &Path) -> Self {
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell");
        Self { pids: Mutex::new(shell.stdin.take()), shell }
    }

    /// Registers a process that must not outlive the test process.
    pub fn watch(&self, pid: u32) {
        let mut pids = self.pids.lock().unwrap();
        writeln!(pids.as_mut().expect("the guard is open"), "{pid}").expect("the guard runs");
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        drop(self.pids.lock().unwrap().take());
        let _ = self.shell.wait();
    }
}
