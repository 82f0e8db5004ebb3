//! Errors of the command line and of the environment, as a person reads them: which variable, which option, which form is expected.

use std::error::Error as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

/// The exit code of a command line or a setting that cannot be used.
pub(super) const USAGE: u8 = 2;

/// Prints an error of clap, or what was asked of it, such as the help.
pub(super) fn report(error: &Error, command: &Command) -> ExitCode {
    match described(error, command) {
        Some(text) => {
            #[allow(clippy::print_stderr, reason = "logging has not begun")]
            {
                eprintln!("ridewire: {text}");
            }
        }
        // Where nobody reads it, nothing is to be done.
        None => drop(error.print()),
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// What is wrong with the value of a setting; `None` for other errors.
fn described(error: &Error, command: &Command) -> Option<String> {
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
        // It may be a secret.
        _ if argument.is_hide_env_values_set() => String::new(),
        Some(ContextValue::String(value)) => format!("{value:?} cannot be used: "),
        _ => String::new(),
    };
    Some(format!("{}: {value}{expected}", name(argument)))
}

/// A setting by both of its names.
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

/// clap does not say whose value it is.
fn not_unicode(command: &Command) -> Option<String> {
    let argument = arguments(command).find(|argument| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.to_str().is_none())
    })?;
    Some(format!("{}: its value is not UTF-8; write it as text", name(argument)))
}
