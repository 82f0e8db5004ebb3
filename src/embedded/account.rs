//! The user that Postgres runs as: ours, or, since Postgres refuses to run as root, another when we are root.
//!
//! A cluster stays with the user that made it, so that what was started once as root and once as that user
//! works both times.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs, io};

use nix::unistd::{Gid, Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::EmbeddedError;

/// Variables that Postgres must not inherit: libpq's, which would change its settings, and our secrets.
const WITHHELD: [&str; 3] = ["PG", "RIDEWIRE_", "DATABASE_URL"];

/// The user that Postgres runs as.
#[derive(Debug, Clone)]
pub(super) struct Account {
    uid: Uid,
    gid: Gid,
    name: String,
    /// Whether that is another user than ours.
    switches: bool,
}

impl Account {
    /// Decides who runs the Postgres of `cluster`, which may not exist yet.
    pub(super) fn of(cluster: &Path) -> Result<Self, EmbeddedError> {
        let owner = match fs::metadata(cluster) {
            Ok(metadata) => Some((Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(EmbeddedError::io("look at", cluster)(error)),
        };
        let us = geteuid();
        match owner {
            Some((uid, _)) if !us.is_root() && uid != us => {
                Err(EmbeddedError::NotOurs { directory: cluster.to_owned(), owner: name_of(uid) })
            }
            _ if !us.is_root() => Ok(Self { uid: us, gid: getegid(), name: name_of(us), switches: false }),
            Some((uid, gid)) if !uid.is_root() => Ok(Self { uid, gid, name: name_of(uid), switches: true }),
            _ => ["postgres", "nobody"]
                .into_iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .map(|user| Self { uid: user.uid, gid: user.gid, name: user.name, switches: true })
                .ok_or(EmbeddedError::NoAccount),
        }
    }

    /// A command that runs as this user, in a directory which every user may enter.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Whoever reads its errors can look them up in one language, whatever the locale here.
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
        for (name, _) in env::vars_os() {
            if WITHHELD.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                command.env_remove(name);
            }
        }
        if self.switches {
            // The standard library drops our supplementary groups along with the uid.
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }

    /// Makes sure that this user can get into `directory`, and says which one keeps it out.
    ///
    /// The kernel is asked, by a program that starts there, because mode bits do not tell of ACLs.
    pub(super) async fn reaches(&self, directory: &Path, program: &Path) -> Result<(), EmbeddedError> {
        if !self.switches || self.enters(directory, program).await? {
            return Ok(());
        }
        let mut ways: Vec<&Path> = directory.ancestors().collect();
        ways.reverse();
        for ancestor in ways {
            if self.enters(ancestor, program).await? {
                continue;
            }
            return Err(if ancestor.parent().is_none() {
                EmbeddedError::Forbidden { program: program.to_owned(), account: self.name.clone() }
            } else {
                EmbeddedError::Unreachable { directory: ancestor.to_owned(), account: self.name.clone() }
            });
        }
        Ok(())
    }

    async fn enters(&self, directory: &Path, program: &Path) -> Result<bool, EmbeddedError> {
        let mut command = self.command(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).current_dir(directory);
        match command.status().await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(EmbeddedError::io("run", program)(error)),
        }
    }

    /// Gives one file or directory to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.switches {
            return Ok(());
        }
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        lchown(path, Some(uid), Some(gid)).map_err(EmbeddedError::io("change the owner of", path))
    }

    /// Gives a cluster that root copied here (a restored backup) to this user, who could not read it otherwise.
    pub(super) fn adopt(&self, cluster: &Path) -> Result<(), EmbeddedError> {
        let doing = "change the owner of";
        let metadata = fs::symlink_metadata(cluster).map_err(EmbeddedError::io(doing, cluster))?;
        if !self.switches || metadata.uid() != 0 {
            return Ok(());
        }
        // The top comes last: should this be interrupted, the next start sees root there and begins again.
        let mut paths = vec![cluster.to_owned()];
        let mut next = 0;
        while let Some(path) = paths.get(next).cloned() {
            next += 1;
            let listed = fs::symlink_metadata(&path).and_then(|metadata| list(&path, metadata.is_dir()));
            paths.extend(listed.map_err(EmbeddedError::io(doing, &path))?);
        }
        paths.iter().rev().try_for_each(|path| self.own(path))
    }

    /// Whether this user, or root on its behalf, made a directory of this owner.
    pub(super) fn may_take(&self, owner: u32) -> bool {
        owner == self.uid.as_raw() || (self.switches && owner == 0)
    }
}

/// A user's name where it has one, for messages.
pub(super) fn name_of(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn list(path: &Path, is_dir: bool) -> io::Result<Vec<PathBuf>> {
    if !is_dir {
        return Ok(Vec::new());
    }
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect()
}
