//! The cluster's files: made whole or not at all.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::log::last_lines;
use super::programs::Programs;
use super::{EmbeddedError, USER};

/// How a cluster is called while `initdb` is at it; a name that starts like this is never taken for a cluster.
const UNFINISHED: &str = "postgres.new-";

/// Creates the data directory and returns its absolute path.
///
/// It stays ours; as root it must be passable, since what Postgres owns lies below.
pub(super) fn open_data_dir(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    if !data_dir.exists() {
        let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
        let created = DirBuilder::new().recursive(true).create(data_dir);
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
    let output = command.kill_on_drop(true).output().await.map_err(EmbeddedError::io("run", &program))?;
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
