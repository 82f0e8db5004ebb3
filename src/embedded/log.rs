//! The log of the private Postgres, and its last lines for error messages.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::EmbeddedError;

/// The number of bytes of a log's end that are read, and the number of lines that are shown.
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 12;

/// The log file of Postgres: `postgres.log`, one for each start. The previous one is kept.
#[derive(Debug)]
pub(super) struct Log(PathBuf);

impl Log {
    /// Renames the log of the last start and creates a new one. Only the current user can read it, because it may
    /// contain data.
    pub(super) fn begin(data_dir: &Path) -> Result<(Self, File), EmbeddedError> {
        let path = data_dir.join("postgres.log");
        match fs::rename(&path, data_dir.join("postgres.log.old")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EmbeddedError::io("rename", &path)(error));
            }
            _ => {}
        }
        let opened = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(EmbeddedError::io("create", &path))?;
        Ok((Self(path), file))
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns its last lines, as far as they can be read.
    pub(super) fn tail(&self) -> String {
        let read = || {
            let mut file = File::open(&self.0)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut end = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut end)?;
            Ok::<_, io::Error>(end)
        };
        read().map_or_else(|error| format!("(unreadable: {error})"), |end| last_lines(&end))
    }
}

/// Returns the last lines of a program's output.
pub(super) fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut lines: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(TAIL_LINES).collect();
    lines.reverse();
    lines.join("\n")
}
