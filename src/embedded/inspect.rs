//! Inspection of a data directory without changing anything.

use std::fs;
use std::io;
use std::path::Path;

use super::EmbeddedError;
use super::account::Account;
use super::cluster::major_version;
use super::programs::Programs;
use super::socket::SocketDirectory;

/// What a start would use.
#[derive(Debug)]
pub struct Inspection {
    /// The major version of the programs.
    pub version: u32,
    /// Whether the cluster exists already.
    pub has_cluster: bool,
    /// The URL of the Postgres that runs in the data directory, if any.
    pub url: Option<String>,
}

/// Checks the preconditions of [`super::EmbeddedPostgres::start_with`], as far as possible without creating anything.
pub async fn inspect(programs: Option<&Path>, data_dir: &Path) -> Result<Inspection, EmbeddedError> {
    let data_dir = match fs::canonicalize(data_dir) {
        Ok(data_dir) => data_dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => data_dir.to_owned(),
        Err(error) => return Err(EmbeddedError::io("open the directory", data_dir)(error)),
    };
    let cluster = data_dir.join("postgres");
    Account::of(&cluster)?;
    let major_version = major_version(&cluster)?;
    let programs = Programs::find(programs, &cluster, major_version).await?;
    let socket = SocketDirectory::of(&data_dir, &std::env::temp_dir())?;
    let is_running = socket.path().join(".s.PGSQL.5432").exists();
    Ok(Inspection {
        version: programs.major(),
        has_cluster: major_version.is_some(),
        url: is_running.then(|| socket.own_url()),
    })
}
