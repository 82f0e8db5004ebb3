//! Logs on standard error: a message and fields, as text or as JSON.
//!
//! Logs contain no data that a client sends. So the filter passes only warnings and errors of libraries, and a panic's message
//! is logged only if it is a constant. A separate thread writes the lines of the access log (target `access`). All other lines
//! are written by the thread that logs them ([`lines`]).

mod json;
mod lines;
mod panics;

use std::io::IsTerminal;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

use self::json::Json;
use self::lines::Lines;
use crate::config::{LogFormat, LogSettings};

/// The target of the access log. `http` and `serving` log each request there.
const ACCESS: &str = "access";

/// The timeout of the last write of the access log, at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a line can be logged with any filter: our own lines, and the warnings and errors of libraries. At lower levels
/// libraries log the data that they process, such as statements with their parameters and requests with their headers.
fn is_free_of_data(line: &Metadata<'_>) -> bool {
    let target = line.target();
    target == ACCESS || target == "ridewire" || target.starts_with("ridewire::") || *line.level() <= Level::WARN
}

/// Guard of the logging. Dropping it waits until the access log is written.
#[must_use = "lines logged after the guard is dropped may be lost"]
#[derive(Debug)]
pub(crate) struct Logging {
    lines: Lines,
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.lines.flush(FLUSH_TIMEOUT);
    }
}

/// Starts logging.
pub(crate) fn start(settings: &LogSettings) -> Logging {
    start_with(&settings.log, settings.log_format)
}

fn start_with(filter: &str, format: LogFormat) -> Logging {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Only errors of salvo: it logs a warning for each response without a body.
    let filter = match "salvo_core=error".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let lines = Lines::start();
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        // A line that cannot be written is lost. An error message about it would go to the same output, and end the server.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => logger.finish().with(filter_fn(is_free_of_data)).init(),
        LogFormat::Json => logger.event_format(Json).finish().with(filter_fn(is_free_of_data)).init(),
    }
    panics::install_hook();
    Logging { lines }
}
