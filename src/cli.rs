//! The command line.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::task::spawn_blocking;

use crate::app::{self, Address, Database};
use crate::auth::Signer;
use crate::config::{LogFormat, Settings, shown};
use crate::domain::{Role, UserId};
use crate::version::VERSION;
use crate::{demo, http, keys, telemetry, web};

/// An error that is a line of the log already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Logged(String);

/// Real-time messaging for rides over plain HTTP: REST, Server-Sent Events and long polling on Postgres.
#[derive(Debug, Parser)]
#[command(name = "ridewire", version = VERSION)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    /// Make a ride and print lines to try; drive another one while somebody follows it, for the console to show.
    #[arg(long, env = "RIDEWIRE_DEMO", global = true)]
    demo: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default). Prints `listening on http://…` once requests are answered.
    Serve,
    /// Print a token signed with the configured secret.
    Token(Token),
    /// Run the migrations and exit.
    Migrate,
    /// Print openapi.yaml.
    Openapi,
    /// Exit 0 when /readyz of a running server is fine: for containers.
    Healthcheck,
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
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// Parses the command line and does what it says.
pub async fn run() -> anyhow::Result<()> {
    let matches = Cli::command().get_matches();
    let Cli { settings, demo, command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let shown = || shown(&Cli::command(), &matches);
    match command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let _logging = begin(&settings, &shown());
            let format = settings.log_format;
            ended(format, serve(settings, demo).await)
        }
        Command::Token(token) => print(&self::token(&settings, &token.sub, token.role, token.ttl)?),
        Command::Migrate => {
            let _logging = begin(&settings, &shown());
            ended(settings.log_format, migrate(&settings).await)
        }
        Command::Openapi => print(http::openapi::yaml()?.trim_end()),
        Command::Healthcheck => healthcheck(&settings).await,
    }
}

/// To standard output, which others read; a reader that has gone is no failure of ours.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
}

fn token(settings: &Settings, user: &str, role: Role, ttl: Duration) -> anyhow::Result<String> {
    let user = UserId::parse(user).context("--sub")?;
    let (secret, source) = keys::signing(settings)?;
    let signer = Signer::new(secret.as_bytes())?.with(&keys::expectations(settings));
    let token = signer.sign(&user, role, ttl)?;
    #[allow(clippy::print_stderr, reason = "standard output is the token alone")]
    {
        eprintln!("signed with {source}");
    }
    Ok(token)
}

/// Starts logging, until what is returned is dropped. The first line has the version, and the settings that were given.
fn begin(settings: &Settings, shown: &str) -> telemetry::Logging {
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

async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    Ok(Database::open(settings).await?.close().await?)
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
async fn healthcheck(settings: &Settings) -> anyhow::Result<()> {
    let url = match (&settings.admin_listen, &settings.tls_certificate) {
        (Some(address), _) => format!("http://{address}/readyz"),
        (None, Some(_)) => format!("https://{}/readyz", settings.listen),
        (None, None) => format!("http://{}/readyz", settings.listen),
    };
    match spawn_blocking(move || web::get_own(&url)).await?? {
        (200, _) => Ok(()),
        (_, said) => bail!("not ready: {said}"),
    }
}
