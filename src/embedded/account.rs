//! The operating system user that runs Postgres: the current one, or another one if the current one is root.
//!
//! A cluster keeps the user that created it. So a data directory works both when the server runs as root and when it
//! runs as that user.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs, io};

use nix::unistd::{Gid, Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::EmbeddedError;

/// Prefixes of environment variables that Postgres must not inherit: libpq's, which would change its settings, and our
/// secrets.
const REMOVED_VARIABLES: [&str; 3] = ["PG", "RIDEWIRE_", "DATABASE_URL"];

/// The user that runs Postgres.
#[derive(Debug, Clone)]
pub(super) struct Account {
    uid: Uid,
    gid: Gid,
    name: String,
    /// Whether it is another user than the current one.
    is_other_user: bool,
}

impl Account {
    /// Determines the user that runs the Postgres of `cluster`, which may not exist yet.
    pub(super) fn of(cluster: &Path) -> Result<Self, EmbeddedError> {
        let owner = match fs::metadata(cluster) {
            Ok(metadata) => Some((Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(EmbeddedError::io("inspect", cluster)(error)),
        };
        let current = geteuid();
        match owner {
            Some((uid, _)) if !current.is_root() && uid != current => {
                Err(EmbeddedError::WrongOwner { directory: cluster.to_owned(), owner: name_of(uid) })
            }
            _ if !current.is_root() => {
                Ok(Self { uid: current, gid: getegid(), name: name_of(current), is_other_user: false })
            }
            Some((uid, gid)) if !uid.is_root() => Ok(Self { uid, gid, name: name_of(uid), is_other_user: true }),
            _ => ["postgres", "nobody"]
                .into_iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .map(|user| Self { uid: user.uid, gid: user.gid, name: user.name, is_other_user: true })
                .ok_or(EmbeddedError::NoAccount),
        }
    }

    /// Returns a command that runs as this user, in a directory that every user can enter.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Error messages are in one language, whatever the locale is.
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
        for (name, _) in env::vars_os() {
            if REMOVED_VARIABLES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                command.env_remove(name);
            }
        }
        if self.is_other_user {
            // The standard library drops the supplementary groups along with the uid.
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }

    /// Checks that this user can enter `directory`; the error names the directory that prevents it.
    ///
    /// The check runs a program there, because mode bits do not include ACLs.
    pub(super) async fn check_access(&self, directory: &Path, program: &Path) -> Result<(), EmbeddedError> {
        if !self.is_other_user || self.can_enter(directory, program).await? {
            return Ok(());
        }
        let mut ancestors: Vec<&Path> = directory.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            if self.can_enter(ancestor, program).await? {
                continue;
            }
            return Err(if ancestor.parent().is_none() {
                EmbeddedError::NotExecutable { program: program.to_owned(), account: self.name.clone() }
            } else {
                EmbeddedError::NoAccess { directory: ancestor.to_owned(), account: self.name.clone() }
            });
        }
        Ok(())
    }

    async fn can_enter(&self, directory: &Path, program: &Path) -> Result<bool, EmbeddedError> {
        let mut command = self.command(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).current_dir(directory);
        match command.status().await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(EmbeddedError::io("run", program)(error)),
        }
    }

    /// Changes the owner of one file or directory to this user.
    pub(super) fn chown(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.is_other_user {
            return Ok(());
        }
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        lchown(path, Some(uid), Some(gid)).map_err(EmbeddedError::io("change the owner of", path))
    }

    /// Changes the owner of a cluster that root has copied here (a restored backup), which this user could not read
    /// otherwise.
    pub(super) fn take_ownership(&self, cluster: &Path) -> Result<(), EmbeddedError> {
        let doing = "change the owner of";
        let metadata = fs::symlink_metadata(cluster).map_err(EmbeddedError::io(doing, cluster))?;
        if !self.is_other_user || metadata.uid() != 0 {
            return Ok(());
        }
        // The top directory comes last. If this is interrupted, the next start finds root as its owner and repeats it.
        let mut paths = vec![cluster.to_owned()];
        let mut next = 0;
        while let Some(path) = paths.get(next).cloned() {
            next += 1;
            let listed = fs::symlink_metadata(&path).and_then(|metadata| list(&path, metadata.is_dir()));
            paths.extend(listed.map_err(EmbeddedError::io(doing, &path))?);
        }
        paths.iter().rev().try_for_each(|path| self.chown(path))
    }

    /// Returns whether a directory of this owner was created by this user, or by root for it.
    pub(super) fn accepts_owner(&self, owner: u32) -> bool {
        owner == self.uid.as_raw() || (self.is_other_user && owner == 0)
    }
}

/// Returns a user's name, or its uid, for messages.
pub(super) fn name_of(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn list(path: &Path, is_dir: bool) -> io::Result<Vec<PathBuf>> {
    if !is_dir {
        return Ok(Vec::new());
    }
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect()
}
