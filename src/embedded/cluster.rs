//! The cluster's files: made whole or not at all.

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

/// How a cluster is called while `initdb` is at it; a name that starts like this is never taken for a cluster.
const UNFINISHED: &str = "postgres.new-";

/// Creates the data directory and returns its absolute path.
///
/// It stays ours; as root it must be passable, since what Postgres owns lies below.
pub(crate) fn open_data_dir(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    if !data_dir.exists() {
        let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
        let created = DirBuilder::new().recursive(true).mode(mode).create(data_dir);
        // Set afterwards, because the umask may have taken something away.
        let closed = created.and_then(|()| fs::set_permissions(data_dir, Permissions::from_mode(mode)));
        closed.map_err(EmbeddedError::io("create the directory", data_dir))?;
    }
    fs::canonicalize(data_dir).map_err(EmbeddedError::io("open the directory", data_dir))
}

/// The major version that made `cluster`, or `None` when it does not exist.
pub(super) fn made_by(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    match fs::read_to_string(cluster.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| EmbeddedError::NotACluster(cluster.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EmbeddedError::io("read PG_VERSION in", cluster)(error)),
    }
}

/// Creates the cluster `postgres` in the data directory.
///
/// `initdb` works beside it, and a rename makes the result the cluster: one that was interrupted leaves nothing
/// that a later start would take for whole.
pub(super) async fn create(
    cluster: &Path,
    programs: &Programs,
    account: &Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    let data_dir = cluster.parent().unwrap_or(Path::new("/"));
    remove_unfinished(data_dir);
    // A name of its own, because the `initdb` of a killed server may still be writing to its own.
    let unfinished = data_dir.join(format!("{UNFINISHED}{:08x}", fastrand::u32(..)));
    let created = DirBuilder::new().mode(0o700).create(&unfinished);
    created.map_err(EmbeddedError::io("create the directory", &unfinished))?;
    account.own(&unfinished)?;

    let program = programs.initdb();
    let mut command = account.command(&program);
    command.arg("--pgdata").arg(&unfinished).arg(format!("--username={USER}"));
    // The order of text is ours to define (C: by bytes), not that of a locale which changes with the system.
    command.args(["--encoding=UTF8", "--locale=C"]);
    // Whoever reaches the socket may come in; its directory says who that is.
    command.args(["--auth-local=trust", "--auth-host=reject", "--no-instructions"]);
    if !durable {
        command.arg("--no-sync");
    }
    // In a group of its own: a Ctrl-C of the terminal asks us, who end it as a whole.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(EmbeddedError::io("run", &program))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let interrupted = Interrupted { group, data_dir };
    let output = child.wait_with_output().await.map_err(EmbeddedError::io("run", &program))?;
    std::mem::forget(interrupted);
    if !output.status.success() {
        remove_unfinished(data_dir);
        let said = [output.stdout, output.stderr].concat();
        return Err(EmbeddedError::Initdb { status: output.status, output: last_lines(&said) });
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

/// An `initdb` that is under way. Dropped, since a signal has ended the start, it takes what is there of the cluster along.
struct Interrupted<'a> {
    group: Option<Pid>,
    data_dir: &'a Path,
}

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
        // What was killed may still be ending, and one of its files come after the directory was listed.
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

/// Removes what interrupted starts have left; what cannot be removed now is in nobody's way.
fn remove_unfinished(data_dir: &Path) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, path = %entry.path().display(), "left an unfinished cluster");
        }
    }
}
