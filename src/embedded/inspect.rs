//! What a start would find, without changing anything.

use std::fs;
use std::io;
use std::path::Path;

use super::EmbeddedError;
use super::account::Account;
use super::cluster::made_by;
use super::programs::Programs;
use super::socket::SocketDirectory;

/// What a start would find.
#[derive(Debug)]
pub struct Inspection {
    /// The major version of the programs that it would use.
    pub version: u32,
    /// Whether there is a cluster already.
    pub has_cluster: bool,
    /// The address of the Postgres that runs in the data directory, if one does.
    pub url: Option<String>,
}

/// Checks what [`super::EmbeddedPostgres::start_with`] would rely on, as far as nothing has to be created for that.
pub async fn inspect(programs: Option<&Path>, data_dir: &Path) -> Result<Inspection, EmbeddedError> {
    let data_dir = match fs::canonicalize(data_dir) {
        Ok(data_dir) => data_dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => data_dir.to_owned(),
        Err(error) => return Err(EmbeddedError::io("open the directory", data_dir)(error)),
    };
    let cluster = data_dir.join("postgres");
    Account::of(&cluster)?;
    let made_by = made_by(&cluster)?;
    let programs = Programs::find(programs, &cluster, made_by).await?;
    let socket = SocketDirectory::of(&data_dir, &std::env::temp_dir())?;
    let is_running = socket.path().join(".s.PGSQL.5432").exists();
    Ok(Inspection {
        version: programs.major(),
        has_cluster: made_by.is_some(),
        url: is_running.then(|| socket.own_url()),
    })
}
