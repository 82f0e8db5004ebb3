//! Logs, on standard error: a readable message and fields, as text or as JSON.
//!
//! Nothing that a client sends is in them: of libraries only warnings and errors pass, and of a panic only a message that is a
//! constant. Lines of the access log (target `access`) are written by a thread of their own, all others at once ([`lines`]).

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

/// The target of the access log: `http` and `serving` write a line there for each request.
const ACCESS: &str = "access";

/// How long the last lines of the access log may take to be written when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a line may be logged, whatever filter is asked for: what is ours, and what is wrong elsewhere. Below that, a library
/// logs what passes through it: statements with their parameters, requests with their headers.
fn is_free_of_data(line: &Metadata<'_>) -> bool {
    let target = line.target();
    target == ACCESS || target == "ridewire" || target.starts_with("ridewire::") || *line.level() <= Level::WARN
}

/// Logging. When it is dropped, it waits until the access log is written.
#[must_use = "lines are lost where it is dropped before the last one"]
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
    begin(&settings.log, settings.log_format)
}

fn begin(filter: &str, format: LogFormat) -> Logging {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Of salvo only what is wrong: it warns of every answer without a body.
    let filter = match "salvo_core=error".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let lines = Lines::start();
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        // A line that cannot be written is lost; saying so would be written to the same place, and end the server.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => logger.finish().with(filter_fn(is_free_of_data)).init(),
        LogFormat::Json => logger.event_format(Json).finish().with(filter_fn(is_free_of_data)).init(),
    }
    panics::log();
    Logging { lines }
}
