//! Error messages for the command line and the environment: the variable, the option, and the expected form.

use std::error::Error as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

/// The exit code for an invalid command line or setting.
pub(super) const USAGE: u8 = 2;

/// Prints an error of clap, or its output, such as the help.
pub(super) fn report(error: &Error, command: &Command) -> ExitCode {
    match describe(error, command) {
        Some(text) => {
            #[allow(clippy::print_stderr, reason = "logging has not started")]
            {
                eprintln!("ridewire: {text}");
            }
        }
        // A failed write is ignored: the reader has closed the pipe.
        None => drop(error.print()),
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Describes an invalid value of a setting. Returns `None` for other errors.
fn describe(error: &Error, command: &Command) -> Option<String> {
    if error.kind() == ErrorKind::InvalidUtf8 {
        return not_unicode(command);
    }
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return None;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = shown.split_whitespace().next()?.strip_prefix("--")?;
    let argument = arguments(command).find(|argument| argument.get_long() == Some(long))?;
    let expected = match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(valid)), _) if !valid.is_empty() => format!("write one of {}", valid.join(", ")),
        (_, Some(source)) => source.to_string(),
        _ => "it needs a value".to_owned(),
    };
    let value = match error.get(ContextKind::InvalidValue) {
        // The value may be a secret.
        _ if argument.is_hide_env_values_set() => String::new(),
        Some(ContextValue::String(value)) => format!("{value:?} is invalid: "),
        _ => String::new(),
    };
    Some(format!("{}: {value}{expected}", name(argument)))
}

/// Returns both names of a setting.
fn name(argument: &Arg) -> String {
    let option = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    match argument.get_env() {
        Some(variable) => format!("{} ({option})", variable.display()),
        None => option,
    }
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    std::iter::once(command).chain(command.get_subcommands()).flat_map(Command::get_arguments)
}

/// Finds the setting whose value is not UTF-8. clap's error does not name it.
fn not_unicode(command: &Command) -> Option<String> {
    let argument = arguments(command).find(|argument| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.to_str().is_none())
    })?;
    Some(format!("{}: its value is not UTF-8; write it as text", name(argument)))
}
