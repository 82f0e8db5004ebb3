//! Stops an orphaned Postgres, whose server was killed, before the next start.
//!
//! Postgres records its pid in `postmaster.pid` and refuses to start while a process with that pid exists. Pids are
//! reused, in a container after every restart. So the pid alone proves nothing: it may block a start without a reason,
//! and a signal to it (as `pg_ctl stop` sends) may hit an unrelated process. Therefore the process is identified by its
//! command line, which has the cluster's path.
//!
//! If the check misses an orphan, only the pid file is removed. That is safe: Postgres still refuses to start while shared
//! memory of the same cluster is in use.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::{EmbeddedError, STOP_TIMEOUT};

/// Stops the Postgres that still runs on `cluster`, and removes its pid file. The caller must hold the data directory's
/// lock.
pub(super) async fn stop_orphan(cluster: &Path) -> Result<(), EmbeddedError> {
    let pid_file = cluster.join("postmaster.pid");
    let text = match fs::read_to_string(&pid_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EmbeddedError::io("read", &pid_file)(error)),
    };
    // A file that a crash has truncated has no pid. Zero and negative numbers would be process groups.
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).filter(|pid| *pid > 1);
    if let Some(pid) = pid
        && is_postgres_of(pid, cluster).await
    {
        tracing::warn!(postgres.pid = pid, "stopping an orphaned Postgres, whose server was killed");
        stop(pid, cluster).await;
    }
    match fs::remove_file(&pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EmbeddedError::io("remove", &pid_file)(error)),
        _ => Ok(()),
    }
}

/// Stops it as [`super::EmbeddedPostgres::stop`] does. It is not a child of this process, so its exit is polled.
async fn stop(pid: i32, cluster: &Path) {
    for (signal, timeout) in [(Signal::SIGINT, STOP_TIMEOUT), (Signal::SIGKILL, Duration::from_secs(5))] {
        // An error means that it has exited, or that this user may not stop it. The loop detects the former; Postgres
        // itself reports the latter when it starts.
        let _ = kill(Pid::from_raw(pid), signal);
        let started = Instant::now();
        while started.elapsed() < timeout {
            if !is_postgres_of(pid, cluster).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Returns whether `pid` is the Postgres of this cluster. A process that has exited but was not waited for has no
/// command line, so it is not.
async fn is_postgres_of(pid: i32, cluster: &Path) -> bool {
    let mut line = command_line(pid).await;
    line.push(b' ');
    let wanted = [b"/postgres -D ", cluster.as_os_str().as_encoded_bytes(), b" "].concat();
    line.windows(wanted.len()).any(|part| part == wanted)
}

/// Returns a process's command line, with spaces between arguments; empty if the process does not exist.
async fn command_line(pid: i32) -> Vec<u8> {
    if Path::new("/proc/self/cmdline").exists() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        return line.into_iter().map(|byte| if byte == 0 { b' ' } else { byte }).collect();
    }
    // Systems without /proc (macOS) have this `ps`.
    let mut ps = Command::new("ps");
    ps.args(["-ww", "-o", "command=", "-p", &pid.to_string()]).stdin(Stdio::null());
    ps.output().await.map(|output| output.stdout.trim_ascii_end().to_vec()).unwrap_or_default()
}
