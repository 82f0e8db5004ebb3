//! Finds the PostgreSQL server programs. Distributions install them outside of `PATH`, each in another directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tokio::process::Command;

use super::EmbeddedError;

/// The oldest major version that is supported.
const MIN_MAJOR_VERSION: u32 = 14;

/// The directories of the programs: the parent, the prefix of the version's directory, and the rest.
/// `scripts/postgres.sh` searches the same directories.
const INSTALL_DIRECTORIES: [(&str, &str, &str); 10] = [
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
    /// Finds the newest programs, or those of a given directory. For an existing cluster, only programs of its major
    /// version are used.
    pub(super) async fn find(
        named: Option<&Path>,
        cluster: &Path,
        major_version: Option<u32>,
    ) -> Result<Self, EmbeddedError> {
        let named = named.filter(|directory| !directory.as_os_str().is_empty());
        let directories = match named {
            Some(directory) => vec![directory.to_owned()],
            None => directories().await,
        };
        let mut found = Vec::new();
        for directory in directories {
            if let Some(programs) = Self::in_directory(&directory).await
                && !found.contains(&programs)
            {
                found.push(programs);
            }
        }
        if let (Some(directory), []) = (named, found.as_slice()) {
            return Err(EmbeddedError::NotPrograms(directory.to_owned()));
        }
        choose(found, cluster, major_version)
    }

    /// Returns the programs of a directory, if they exist, run and are new enough.
    async fn in_directory(directory: &Path) -> Option<Self> {
        // A link in PATH may be the only one; its target has `initdb` in the same directory.
        let target = fs::canonicalize(directory.join("postgres")).ok()?;
        let directory =
            [target.parent()?, directory].into_iter().find(|directory| directory.join("initdb").is_file())?;
        let directory = fs::canonicalize(directory).ok()?;
        let output = Command::new(directory.join("postgres")).arg("--version").output().await.ok()?;
        let (major, minor) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        (major >= MIN_MAJOR_VERSION).then_some(Self { directory, major, minor })
    }

    /// Returns the major version.
    pub(super) fn major(&self) -> u32 {
        self.major
    }

    /// Returns the path of the server program.
    pub(super) fn postgres(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    /// Returns the path of `initdb`.
    pub(super) fn initdb(&self) -> PathBuf {
        self.directory.join("initdb")
    }
}

fn choose(found: Vec<Programs>, cluster: &Path, major_version: Option<u32>) -> Result<Programs, EmbeddedError> {
    let versions: Vec<_> = found.iter().map(|programs| programs.major.to_string()).collect();
    // `max_by_key` returns the last of equals; the first directory searched should win.
    let fitting = found.into_iter().rev().filter(|programs| major_version.is_none_or(|major| programs.major == major));
    match (fitting.max_by_key(|programs| (programs.major, programs.minor)), major_version) {
        (Some(programs), _) => Ok(programs),
        (None, Some(major)) if !versions.is_empty() => {
            Err(EmbeddedError::VersionNotInstalled { cluster: cluster.to_owned(), major, found: versions.join(", ") })
        }
        (None, _) => Err(EmbeddedError::NoPrograms),
    }
}

async fn directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> =
        env::split_paths::<OsStr>(&path).filter(|directory| directory.is_absolute()).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        directories.extend(directory.is_absolute().then_some(directory));
    }
    for (parent, prefix, rest) in INSTALL_DIRECTORIES {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let versions = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
        directories.extend(versions.map(|entry| entry.path().join(rest)));
    }
    directories
}

/// Parses `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; `18beta1` counts as 18.0.
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
    fn a_version_is_parsed_from_the_output_of_postgres() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some((18, 0)));
        assert_eq!(parse_version("postgres (PostgreSQL) 9.6.24\n"), Some((9, 6)));
        assert_eq!(parse_version("postgres (EnterpriseDB) 15.2\n"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn the_newest_version_is_used_or_that_of_the_cluster() {
        let found = vec![programs("/a", 15, 2), programs("/b", 16, 3), programs("/c", 16, 3), programs("/d", 16, 1)];
        let chosen = |major_version| choose(found.clone(), Path::new("/cluster"), major_version);
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
