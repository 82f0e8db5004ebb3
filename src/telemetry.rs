//! Logs, on standard error: a readable message and fields.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

use crate::config::{LogFormat, LogSettings};

/// Whether a line may be logged, whatever filter is asked for: what is ours, and what is wrong elsewhere. Below that, a library
/// logs what passes through it: statements with their parameters, requests with their headers.
fn is_free_of_data(line: &Metadata<'_>) -> bool {
    let target = line.target();
    target == "ridewire" || target.starts_with("ridewire::") || *line.level() <= Level::WARN
}

/// Starts logging.
pub(crate) fn start(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    // Of salvo only what is wrong: it warns of every answer without a body.
    let filter = match "salvo_core=error".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written is lost; saying so would be written to the same place, and end the server.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Text => lines.finish().with(filter_fn(is_free_of_data)).init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().with(filter_fn(is_free_of_data)).init(),
    }
}
