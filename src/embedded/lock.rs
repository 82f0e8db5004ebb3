//! The lock of a data directory: a file lock, which the kernel releases however the server ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::EmbeddedError;

/// Holds the data directory. The file contains the URL of its Postgres.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Locks the data directory. The error has the URL of the Postgres that uses it.
    pub(super) fn take(data_dir: &Path, url: &str) -> Result<Self, EmbeddedError> {
        let path = data_dir.join("lock");
        // Not truncated on opening: another server may hold it.
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(EmbeddedError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // The URL in the file is right even if the two servers have different temporary directories, so it is
                // preferred.
                let mut address = String::new();
                let url = match file.read_to_string(&mut address) {
                    Ok(length) if length > 0 => address.trim().to_owned(),
                    _ => url.to_owned(),
                };
                return Err(EmbeddedError::Locked { data_dir: data_dir.to_owned(), url });
            }
            Err(TryLockError::Error(error)) => return Err(EmbeddedError::io("lock", &path)(error)),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{url}"));
        written.map_err(EmbeddedError::io("write to", &path))?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough while a forked child, which has not executed its program yet, holds the same open file.
        // After an error, closing releases the lock.
        let _ = self.0.unlock();
    }
}
