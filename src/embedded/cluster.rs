//! Creation of the cluster's files, all or nothing.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::account::Account;
use super::log::last_lines;
use super::programs::Programs;
use super::{EmbeddedError, USER};

/// The prefix of the directory in which `initdb` works. Such a directory is never used as a cluster.
const UNFINISHED: &str = "postgres.new-";

/// Creates the data directory and returns its absolute path.
///
/// It belongs to the current user. As root it must be passable, since the files of Postgres are below it.
pub(crate) fn open_data_dir(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    if !data_dir.exists() {
        let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
        let created = DirBuilder::new().recursive(true).mode(mode).create(data_dir);
        // Set again, because the umask may have removed bits.
        let closed = created.and_then(|()| fs::set_permissions(data_dir, Permissions::from_mode(mode)));
        closed.map_err(EmbeddedError::io("create the directory", data_dir))?;
    }
    fs::canonicalize(data_dir).map_err(EmbeddedError::io("open the directory", data_dir))
}

/// Returns the major version that created `cluster`, or `None` if it does not exist.
pub(super) fn major_version(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    match fs::read_to_string(cluster.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| EmbeddedError::NotACluster(cluster.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EmbeddedError::io("read PG_VERSION in", cluster)(error)),
    }
}

/// Creates the cluster `postgres` in the data directory.
///
/// `initdb` works in another directory, which is then renamed. So an interrupted one leaves nothing that a later start
/// would use as a cluster.
pub(super) async fn create(
    cluster: &Path,
    programs: &Programs,
    account: &Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    let data_dir = cluster.parent().unwrap_or(Path::new("/"));
    remove_unfinished(data_dir);
    // A unique name, because the `initdb` of a killed server may still be writing to its own directory.
    let unfinished = data_dir.join(format!("{UNFINISHED}{:08x}", fastrand::u32(..)));
    let created = DirBuilder::new().mode(0o700).create(&unfinished);
    created.map_err(EmbeddedError::io("create the directory", &unfinished))?;
    account.chown(&unfinished)?;

    let program = programs.initdb();
    let mut command = account.command(&program);
    command.arg("--pgdata").arg(&unfinished).arg(format!("--username={USER}"));
    // The collation C (by bytes) does not change with the system's locale.
    command.args(["--encoding=UTF8", "--locale=C"]);
    // No authentication on the socket: the permissions of its directory control access.
    command.args(["--auth-local=trust", "--auth-host=reject", "--no-instructions"]);
    if !durable {
        command.arg("--no-sync");
    }
    // In a separate process group: on Ctrl-C, the server kills the group as a whole.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(EmbeddedError::io("run", &program))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let guard = InitdbGuard { group, data_dir };
    let output = child.wait_with_output().await.map_err(EmbeddedError::io("run", &program))?;
    std::mem::forget(guard);
    if !output.status.success() {
        remove_unfinished(data_dir);
        let output_text = [output.stdout, output.stderr].concat();
        return Err(EmbeddedError::Initdb { status: output.status, output: last_lines(&output_text) });
    }
    fs::rename(&unfinished, cluster).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            EmbeddedError::NotACluster(cluster.to_owned())
        }
        _ => EmbeddedError::io("create the directory", cluster)(error),
    })?;
    // The rename itself must be on disk before anything is committed into the cluster.
    File::open(data_dir).and_then(|directory| directory.sync_all()).map_err(EmbeddedError::io("sync", data_dir))
}

/// A guard for a running `initdb`. If it is dropped because a signal ended the start, it kills `initdb` and removes its
/// files.
struct InitdbGuard<'a> {
    group: Option<Pid>,
    data_dir: &'a Path,
}

impl Drop for InitdbGuard<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
        // A killed process may still be exiting, and may create a file after the directory was listed.
        for _ in 0..100 {
            remove_unfinished(self.data_dir);
            if !has_unfinished(self.data_dir) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn has_unfinished(data_dir: &Path) -> bool {
    let mut entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()))
}

/// Removes the directories of interrupted starts. Errors are ignored: such a directory does no harm.
fn remove_unfinished(data_dir: &Path) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, path = %entry.path().display(), "unfinished cluster not removed");
        }
    }
}
