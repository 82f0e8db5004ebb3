//! The Postgres that a killed server has left behind: stopped before the next start, if it still runs.
//!
//! Postgres records its pid in `postmaster.pid` and refuses to start while a process of that number lives. Pids
//! are used again, in a container after every restart, so the number alone proves nothing: it may block a
//! start for no reason, and a signal to it (`pg_ctl stop` asks no further) may hit a stranger. Whether it is
//! the one is told by its command line, which names the cluster. Being wrong is safe in one direction only, and
//! that is the one taken: with the file gone, Postgres still refuses to start while shared memory of the same
//! cluster is in use.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::{EmbeddedError, PATIENCE};

/// Ends what still runs on `cluster`, and removes the record of it. The data directory's lock must be held.
pub(super) async fn recover(cluster: &Path) -> Result<(), EmbeddedError> {
    let record = cluster.join("postmaster.pid");
    let text = match fs::read_to_string(&record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EmbeddedError::io("read", &record)(error)),
    };
    // A record that was cut short by a crash names nobody. Zero and less would be process groups.
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).filter(|pid| *pid > 1);
    if let Some(pid) = pid
        && is_postgres_of(pid, cluster).await
    {
        tracing::warn!(postgres.pid = pid, "stopping the Postgres that a killed server has left behind");
        end(pid, cluster).await;
    }
    match fs::remove_file(&record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EmbeddedError::io("remove", &record)(error)),
        _ => Ok(()),
    }
}

/// Stops it as [`super::EmbeddedPostgres::stop`] does. It is no child of ours, so its end has to be looked for.
async fn end(pid: i32, cluster: &Path) {
    for (signal, patience) in [(Signal::SIGINT, PATIENCE), (Signal::SIGKILL, Duration::from_secs(5))] {
        // An error means that it is gone, or not ours to stop; the former is what the loop looks for, and the
        // latter Postgres itself reports when it starts.
        let _ = kill(Pid::from_raw(pid), signal);
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if !is_postgres_of(pid, cluster).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether `pid` is the server process of this very cluster. One that has ended and was not yet waited for has
/// no command line any more, and is not.
async fn is_postgres_of(pid: i32, cluster: &Path) -> bool {
    let mut line = command_line(pid).await;
    line.push(b' ');
    let wanted = [b"/postgres -D ", cluster.as_os_str().as_encoded_bytes(), b" "].concat();
    line.windows(wanted.len()).any(|part| part == wanted)
}

/// A process's command line, its words separated by spaces; nothing when there is no such process.
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
