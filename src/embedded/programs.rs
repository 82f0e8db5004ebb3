//! Finding PostgreSQL's own programs. Distributions keep the server's out of `PATH`, each elsewhere.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tokio::process::Command;

use super::EmbeddedError;

/// The oldest major version whose `initdb` and settings we use.
const OLDEST: u32 = 14;

/// Where the programs of each version are: the parent, the beginning of the version's directory, and what
/// follows it. `scripts/postgres.sh` looks in the same places.
const PLACES: [(&str, &str, &str); 10] = [
    ("/usr/lib/postgresql", "", "bin"),                          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                                   // the PostgreSQL project's own RPMs
    ("/usr/libexec", "postgresql", ""),                          // Alpine
    ("/usr/lib", "postgresql", "bin"),                           // openSUSE
    ("/usr/lib64", "postgresql-", "bin"),                        // Gentoo
    ("/usr/local", "pgsql", "bin"),                              // built from source
    ("/opt/homebrew/opt", "postgresql", "bin"),                  // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql", "bin"),                     // Homebrew on Intel
    ("/Library/PostgreSQL", "", "bin"),                          // the installer for macOS
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"), // Postgres.app
];

/// The programs of one installed version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    directory: PathBuf,
    major: u32,
    minor: u32,
}

impl Programs {
    /// The newest programs here, or in the directory that is named; for a cluster that exists, those of the major version that
    /// made it.
    pub(super) async fn find(
        named: Option<&Path>,
        cluster: &Path,
        made_by: Option<u32>,
    ) -> Result<Self, EmbeddedError> {
        let named = named.filter(|directory| !directory.as_os_str().is_empty());
        let directories = match named {
            Some(directory) => vec![directory.to_owned()],
            None => directories().await,
        };
        let mut found = Vec::new();
        for directory in directories {
            if let Some(programs) = Self::within(&directory).await
                && !found.contains(&programs)
            {
                found.push(programs);
            }
        }
        if let (Some(directory), []) = (named, found.as_slice()) {
            return Err(EmbeddedError::NotPrograms(directory.to_owned()));
        }
        choose(found, cluster, made_by)
    }

    /// The programs in one directory, when they are there, run, and are new enough.
    async fn within(directory: &Path) -> Option<Self> {
        // A link in PATH may stand alone; its target has `initdb` beside it.
        let target = fs::canonicalize(directory.join("postgres")).ok()?;
        let directory = [target.parent()?, directory].into_iter().find(|place| place.join("initdb").is_file())?;
        let directory = fs::canonicalize(directory).ok()?;
        let output = Command::new(directory.join("postgres")).arg("--version").output().await.ok()?;
        let (major, minor) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        (major >= OLDEST).then_some(Self { directory, major, minor })
    }

    /// The major version.
    pub(super) fn major(&self) -> u32 {
        self.major
    }

    /// The server itself.
    pub(super) fn postgres(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    /// What makes a cluster.
    pub(super) fn initdb(&self) -> PathBuf {
        self.directory.join("initdb")
    }
}

fn choose(found: Vec<Programs>, cluster: &Path, made_by: Option<u32>) -> Result<Programs, EmbeddedError> {
    let versions: Vec<_> = found.iter().map(|programs| programs.major.to_string()).collect();
    // `max_by_key` takes the last of equals; the first place that was looked at should win.
    let fitting = found.into_iter().rev().filter(|programs| made_by.is_none_or(|major| programs.major == major));
    match (fitting.max_by_key(|programs| (programs.major, programs.minor)), made_by) {
        (Some(programs), _) => Ok(programs),
        (None, Some(major)) if !versions.is_empty() => {
            Err(EmbeddedError::OtherVersion { cluster: cluster.to_owned(), major, found: versions.join(", ") })
        }
        (None, _) => Err(EmbeddedError::NoPrograms),
    }
}

async fn directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = env::split_paths::<OsStr>(&path).filter(|place| place.is_absolute()).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        directories.extend(directory.is_absolute().then_some(directory));
    }
    for (parent, prefix, rest) in PLACES {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let versions = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
        directories.extend(versions.map(|entry| entry.path().join(rest)));
    }
    directories
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; a `18beta1` counts as 18.0.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let number = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let (major, rest) = number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
    let minor = rest.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
    Some((major.parse().ok()?, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(directory: &str, major: u32, minor: u32) -> Programs {
        Programs { directory: directory.into(), major, minor }
    }

    #[test]
    fn a_version_is_read_from_what_postgres_says() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some((18, 0)));
        assert_eq!(parse_version("postgres (PostgreSQL) 9.6.24\n"), Some((9, 6)));
        assert_eq!(parse_version("postgres (EnterpriseDB) 15.2\n"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn the_newest_version_is_used_and_for_a_cluster_its_own() {
        let found = vec![programs("/a", 15, 2), programs("/b", 16, 3), programs("/c", 16, 3), programs("/d", 16, 1)];
        let chosen = |made_by| choose(found.clone(), Path::new("/cluster"), made_by);
        assert_eq!(chosen(None).unwrap(), programs("/b", 16, 3));
        assert_eq!(chosen(Some(15)).unwrap(), programs("/a", 15, 2));
        let error = chosen(Some(14)).unwrap_err().to_string();
        assert!(
            error.contains("/cluster was created by PostgreSQL 14") && error.contains("RIDEWIRE_PG_BIN"),
            "{error}"
        );
        assert!(matches!(choose(Vec::new(), Path::new("/cluster"), Some(14)), Err(EmbeddedError::NoPrograms)));
    }
}
