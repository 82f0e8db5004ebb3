//! The command line.
//!
//! Each subcommand has the groups of settings that it uses. Exit codes: 0 for success, 1 where what was asked for failed, 2 where the
//! command line or a setting cannot be used; of `ridewire check` the worst finding (see [`crate::check`]).

mod environment;
mod usage;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::task::spawn_blocking;

use crate::app::{self, Address, Database};
use crate::check::{self, CheckOptions};
use crate::config::{
    AddressSettings, DatabaseSettings, KeySettings, LogFormat, LogSettings, PostgresSettings, Settings, duration, shown,
};
use crate::domain::{Role, UserId};
use crate::version::VERSION;
use crate::{demo, http, keys, telemetry, web};

/// An error that is a line of the log already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Logged(String);

/// Real-time messaging for rides over plain HTTP: REST, Server-Sent Events and long polling on Postgres.
#[derive(Debug, Parser)]
#[command(
    name = "ridewire",
    version = VERSION,
    override_usage = "ridewire [COMMAND] [OPTIONS]",
    after_help = "Without a command, ridewire serves: `ridewire --demo` is `ridewire serve --demo`."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default). Prints `listening on http://…` once requests are answered.
    Serve(Box<Serve>),
    /// Check the configuration, the database and the machine, and print what is wrong; change nothing.
    ///
    /// Takes all settings of the server. The exit code is 0 if all is well, 1 if there is a warning, 2 if there is an error.
    Check(Box<Check>),
    /// Print a token signed with the configured secret.
    Token(Token),
    /// Run the migrations and exit.
    Migrate(Migrate),
    /// Print openapi.yaml.
    Openapi,
    /// Exit 0 when /readyz of a running server is fine: for containers.
    Healthcheck(Healthcheck),
}

#[derive(Debug, Args)]
struct Serve {
    /// Make a ride and print lines to try; drive another one while somebody follows it, for the console to show.
    #[arg(long, env = "RIDEWIRE_DEMO", help_heading = "Demo")]
    demo: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    options: CheckOptions,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Token {
    /// The user.
    #[arg(long)]
    sub: String,
    /// What they are.
    #[arg(long, value_enum)]
    role: Role,
    /// How long it is good for.
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    #[command(flatten)]
    keys: KeySettings,
    #[command(flatten)]
    database: DatabaseSettings,
}

#[derive(Debug, Args)]
struct Migrate {
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    postgres: PostgresSettings,
    #[command(flatten)]
    logs: LogSettings,
}

#[derive(Debug, Args)]
struct Healthcheck {
    #[command(flatten)]
    addresses: AddressSettings,
}

/// Parses the command line and runs the command to its end.
///
/// Not an `async fn`: the compiler generates a future's code in the crate that polls it. If the program polled this one, it
/// would compile the whole server again, on top of the library (25 s of a build).
pub fn run() -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    let matches = command.clone().try_get_matches_from(arguments(std::env::args_os()));
    let parsed = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, shown(&command, &matches))));
    let (cli, shown) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return Ok(usage::report(&error, &command)),
    };
    let unknown = environment::unknown(&environment::settings(&command), std::env::vars_os());
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(run_command(cli, &shown, unknown))
}

/// Runs the command. `shown` are the settings that were given, `unknown` complaints about variables that are no settings.
async fn run_command(cli: Cli, shown: &str, unknown: Vec<String>) -> anyhow::Result<ExitCode> {
    match cli.command {
        // It reports them together with everything else.
        Command::Check(check) => return checked(&check, unknown).await,
        Command::Openapi => print(http::openapi::yaml()?.trim_end())?,
        _ if !unknown.is_empty() => {
            #[allow(clippy::print_stderr, reason = "logging has not begun")]
            {
                unknown.iter().for_each(|complaint| eprintln!("ridewire: {complaint}"));
            }
            return Ok(ExitCode::from(usage::USAGE));
        }
        Command::Serve(serve) => {
            let format = serve.settings.logs.log_format;
            let _logging = begin(&serve.settings.logs, shown);
            ended(format, self::serve(serve.settings, serve.demo).await)?;
        }
        Command::Token(token) => print(&self::token(&token)?)?,
        Command::Migrate(migrate) => {
            let _logging = begin(&migrate.logs, shown);
            ended(migrate.logs.log_format, self::migrate(&migrate).await)?;
        }
        Command::Healthcheck(healthcheck) => self::healthcheck(&healthcheck.addresses).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The command line, with the command that is meant where none is named.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = given.collect();
    let is_for_all = |first: &OsString| ["-h", "--help", "-V", "--version"].iter().any(|option| first == option);
    let names_command =
        arguments.get(1).is_some_and(|first| is_for_all(first) || !first.to_string_lossy().starts_with('-'));
    if !names_command {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

/// To standard output, which others read; a reader that has gone is no failure of ours.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
}

async fn checked(check: &Check, unknown: Vec<String>) -> anyhow::Result<ExitCode> {
    let report = check::run(&check.settings, &check.options, unknown).await;
    print(report.to_string().trim_end())?;
    Ok(ExitCode::from(report.worst().exit_code()))
}

fn token(token: &Token) -> anyhow::Result<String> {
    let user = UserId::parse(&token.sub).context("--sub")?;
    let (signer, source) = keys::signer(&token.keys, &token.database)?;
    let signed = signer.sign(&user, token.role, token.ttl)?;
    #[allow(clippy::print_stderr, reason = "standard output is the token alone")]
    {
        eprintln!("signed with {source}");
    }
    Ok(signed)
}

/// Starts logging, until what is returned is dropped. The first line has the version, and the settings that were given.
fn begin(settings: &LogSettings, shown: &str) -> telemetry::Logging {
    let logging = telemetry::start(settings);
    tracing::info!(version = VERSION, settings = shown, "starting");
    logging
}

/// Where the log is JSON, the error that ends the program is its last line, and not text beside it.
fn ended(format: LogFormat, result: anyhow::Result<()>) -> anyhow::Result<()> {
    result.map_err(|error| match format {
        LogFormat::Text => error,
        LogFormat::Json => {
            let error = format!("{error:#}");
            tracing::error!(error, "ended by an error");
            Logged(error).into()
        }
    })
}

async fn migrate(migrate: &Migrate) -> anyhow::Result<()> {
    Ok(Database::open(&migrate.database, &migrate.postgres).await?.close().await?)
}

async fn serve(settings: Settings, is_demo: bool) -> anyhow::Result<()> {
    let asked = settings.clone();
    let ready = async |address: Address, api: &http::Api| {
        let listening = print(&format!("listening on {address}"));
        let shown = match is_demo {
            true => demo::lines(&asked, &address.to_string(), api).await.and_then(|lines| print(&lines)),
            false => Ok(()),
        };
        if let Err(error) = listening.and(shown) {
            tracing::warn!(%error, "could not say that the server is ready");
        }
    };
    Ok(app::serve(settings, is_demo, ready).await?)
}

/// Asks a server on the configured address, as its container would.
async fn healthcheck(settings: &AddressSettings) -> anyhow::Result<()> {
    let url = settings.readiness_url();
    match spawn_blocking(move || web::get_own(&url)).await?? {
        (200, _) => Ok(()),
        (_, said) => bail!("not ready: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_serve_where_none_is_named() {
        let with = |given: &[&str]| arguments(given.iter().map(OsString::from));
        assert_eq!(with(&["ridewire"]), ["ridewire", "serve"]);
        assert_eq!(with(&["ridewire", "--demo"]), ["ridewire", "serve", "--demo"]);
        for unchanged in [&["ridewire", "--help"][..], &["ridewire", "-V"], &["ridewire", "token", "--sub", "u"]] {
            assert_eq!(with(unchanged), unchanged);
        }
        Cli::command().debug_assert();
    }
}
