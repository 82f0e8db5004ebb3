//! The command line.
//!
//! Each subcommand accepts the groups of settings that it uses. Exit codes: 0 for success, 1 for a failure, 2 for an invalid
//! command line or setting. The exit code of `ridewire check` is that of the worst finding (see [`crate::check`]).

mod environment;
mod settings_page;
mod usage;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::{self, Address, Database};
use crate::check::{self, CheckOptions};
use crate::config::{
    AddressSettings, DatabaseSettings, KeySettings, LogFormat, LogSettings, PostgresSettings, Settings, duration,
    explicit_settings,
};
use crate::domain::{Role, ShardMap, UserId};
use crate::version::VERSION;
use crate::{demo, http, keys, telemetry, web};

/// An error that was already logged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AlreadyLogged(String);

/// Real-time messaging for rides over plain HTTP: REST, Server-Sent Events and long polling on Postgres.
#[derive(Debug, Parser)]
#[command(
    name = "ridewire",
    version = VERSION,
    override_usage = "ridewire [COMMAND] [OPTIONS]",
    after_help = "Without a command, ridewire runs `serve`: `ridewire --demo` is `ridewire serve --demo`."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default). Prints `listening on http://…` when it is ready.
    Serve(Box<Serve>),
    /// Check the configuration, the database and the machine. Prints the problems, and changes nothing.
    ///
    /// Accepts all settings of the server. The exit code is 0 without a problem, 1 if there is a warning, 2 if there is an error.
    Check(Box<Check>),
    /// Print a token signed with the configured secret.
    Token(Token),
    /// Run the migrations and exit.
    Migrate(Migrate),
    /// Print openapi.yaml.
    Openapi,
    /// Print the tables of all settings, as Markdown.
    Settings,
    /// Exit with 0 if /readyz of the running server returns 200. For containers.
    Healthcheck(Healthcheck),
}

#[derive(Debug, Args)]
struct Serve {
    /// Create a ride and print commands to try on it. Also simulate a ride for the console, while a stream or poll is open.
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
    /// The id of the user.
    #[arg(long)]
    sub: String,
    /// The role of the user.
    #[arg(long, value_enum)]
    role: Role,
    /// The lifetime of the token.
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    #[command(flatten)]
    keys: KeySettings,
    #[command(flatten)]
    database: DatabaseSettings,
}

#[derive(Debug, Args)]
struct Migrate {
    /// Create a deployment with this number of shards. It never changes.
    #[arg(long, value_name = "COUNT")]
    shards: Option<u16>,
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
/// Not an `async fn`: the compiler generates the code of a future in the crate that polls it. If the program polled this future,
/// its crate would compile the whole server again, in addition to the library (25 s of a build).
pub fn run() -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    let matches = command.clone().try_get_matches_from(arguments(std::env::args_os()));
    let parsed =
        matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, explicit_settings(&command, &matches))));
    let (cli, explicit) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return Ok(usage::report(&error, &command)),
    };
    let unknown = environment::unknown(&environment::settings(&command), std::env::vars_os());
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(run_command(cli, &explicit, unknown))
}

/// Runs the command. `explicit` are the explicitly set settings for the log, `unknown` error messages about unknown variables.
async fn run_command(cli: Cli, explicit: &str, unknown: Vec<String>) -> anyhow::Result<ExitCode> {
    match cli.command {
        // The check reports unknown variables together with its other findings.
        Command::Check(check) => return run_check(&check, unknown).await,
        Command::Openapi => print(http::openapi_yaml()?.trim_end())?,
        Command::Settings => print(settings_page::tables(&Cli::command()).trim_end())?,
        _ if !unknown.is_empty() => {
            #[allow(clippy::print_stderr, reason = "logging has not started")]
            {
                unknown.iter().for_each(|message| eprintln!("ridewire: {message}"));
            }
            return Ok(ExitCode::from(usage::USAGE));
        }
        Command::Serve(serve) => {
            let format = serve.settings.logs.log_format;
            let _logging = start_logging(&serve.settings.logs, explicit);
            log_error(format, self::serve(serve.settings, serve.demo).await)?;
        }
        Command::Token(token) => print(&self::token(&token)?)?,
        Command::Migrate(migrate) => {
            let _logging = start_logging(&migrate.logs, explicit);
            log_error(migrate.logs.log_format, self::migrate(&migrate).await)?;
        }
        Command::Healthcheck(healthcheck) => self::healthcheck(&healthcheck.addresses).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the command line, with `serve` inserted if it names no command.
fn arguments(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    let is_global = |first: &OsString| ["-h", "--help", "-V", "--version"].iter().any(|option| first == option);
    let names_command =
        arguments.get(1).is_some_and(|first| is_global(first) || !first.to_string_lossy().starts_with('-'));
    if !names_command {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

/// Prints a line to standard output, and flushes it.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
}

async fn run_check(check: &Check, unknown: Vec<String>) -> anyhow::Result<ExitCode> {
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

/// Starts logging until the returned guard is dropped. The first line contains the version and the explicit settings.
fn start_logging(settings: &LogSettings, explicit: &str) -> telemetry::Logging {
    let logging = telemetry::start(settings);
    tracing::info!(version = VERSION, settings = explicit, "starting");
    logging
}

/// Logs the error that ends the program if the log is JSON, so that no plain text follows the JSON lines.
fn log_error(format: LogFormat, result: anyhow::Result<()>) -> anyhow::Result<()> {
    result.map_err(|error| match format {
        LogFormat::Text => error,
        LogFormat::Json => {
            let error = format!("{error:#}");
            tracing::error!(error, "terminated by an error");
            AlreadyLogged(error).into()
        }
    })
}

async fn migrate(migrate: &Migrate) -> anyhow::Result<()> {
    let new_shards = match migrate.shards {
        Some(count) => Some(ShardMap::new(count).with_context(|| format!("--shards: must be 1 to {}", ShardMap::MAX))?),
        None => None,
    };
    Ok(Database::open(&migrate.database, &migrate.postgres, new_shards).await?.close().await?)
}

async fn serve(settings: Settings, is_demo: bool) -> anyhow::Result<()> {
    let demo_settings = settings.clone();
    let ready = async |address: Address, api: &http::Api| {
        let announced = print(&format!("listening on {address}"));
        let demo_printed = match is_demo {
            true => demo::lines(&demo_settings, &address.to_string(), api).await.and_then(|lines| print(&lines)),
            false => Ok(()),
        };
        if let Err(error) = announced.and(demo_printed) {
            tracing::warn!(%error, "startup output failed");
        }
    };
    Ok(app::serve(settings, is_demo, ready).await?)
}

/// Requests `/readyz` of the server at the configured address.
async fn healthcheck(settings: &AddressSettings) -> anyhow::Result<()> {
    let url = settings.readiness_url();
    match web::get_self(&url).await? {
        (200, _) => Ok(()),
        (_, body) => bail!("not ready: {body}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_command_is_serve() {
        let with = |line: &[&str]| arguments(line.iter().map(OsString::from));
        assert_eq!(with(&["ridewire"]), ["ridewire", "serve"]);
        assert_eq!(with(&["ridewire", "--demo"]), ["ridewire", "serve", "--demo"]);
        for unchanged in [&["ridewire", "--help"][..], &["ridewire", "-V"], &["ridewire", "token", "--sub", "u"]] {
            assert_eq!(with(unchanged), unchanged);
        }
        Cli::command().debug_assert();
    }
}
