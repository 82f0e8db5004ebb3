//! One server a data directory: a file that the kernel unlocks however its server ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::EmbeddedError;

/// The data directory is ours while this lives. The file says at which address its Postgres is.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the data directory, or says where the Postgres of the server is that has it.
    pub(super) fn take(data_dir: &Path, url: &str) -> Result<Self, EmbeddedError> {
        let path = data_dir.join("lock");
        // Not truncated on opening: it may be another's.
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(EmbeddedError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Its address is ours too, unless the temporary directory differs; so its own word comes first.
                let mut told = String::new();
                let url = match file.read_to_string(&mut told) {
                    Ok(length) if length > 0 => told.trim().to_owned(),
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
        // Closing alone would not do while a child that was just forked, and has not run its program yet, holds
        // the same open file. An error leaves it to the closing.
        let _ = self.0.unlock();
    }
}
