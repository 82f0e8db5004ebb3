//! The log of the private Postgres, and what of it is worth repeating in an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::EmbeddedError;

/// How much of a log's end is looked at, and how many lines of it are shown.
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 12;

/// Where Postgres writes what happens to it: `postgres.log`, one file a start, the one before kept.
#[derive(Debug)]
pub(super) struct Log(PathBuf);

impl Log {
    /// Puts the last start's log aside and begins a new one, readable for us alone: it may quote data.
    pub(super) fn begin(data_dir: &Path) -> Result<(Self, File), EmbeddedError> {
        let path = data_dir.join("postgres.log");
        match fs::rename(&path, data_dir.join("postgres.log.old")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EmbeddedError::io("put aside", &path)(error));
            }
            _ => {}
        }
        let opened = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(EmbeddedError::io("create", &path))?;
        Ok((Self(path), file))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Its last lines, as far as they can be read.
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

/// The last lines of some program's output.
pub(super) fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut lines: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(TAIL_LINES).collect();
    lines.reverse();
    lines.join("\n")
}
