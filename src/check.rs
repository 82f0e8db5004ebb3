//! `ridewire check`: reports problems of the configuration, the database and this machine.
//!
//! It uses the same code as the server to read the settings, the keys and the certificate, and to connect. It creates and
//! migrates nothing. It sends only queries, `explain`, and a NOTIFY on a channel of its own to the database.
//!
//! Its exit codes follow the convention of monitoring plugins: 0 without a problem, 1 if the worst finding is a warning, 2 if
//! it is an error.

mod addresses;
mod certificate;
mod connections;
mod database;
mod keys;
mod machine;
mod notifications;
mod proxy;
mod report;
mod schema;
mod server;
mod settings;

use clap::Args;

pub use self::report::{Level, Report};
use crate::config::{Settings, at_least_one, web_address};

/// The options of the check, besides the settings of the server.
#[derive(Debug, Clone, Args)]
pub struct CheckOptions {
    /// The number of servers that will use the database.
    #[arg(long, help_heading = "Check", default_value_t = 1, value_parser = at_least_one)]
    pub replicas: usize,

    /// The URL that clients use, such as `https://chat.example.com`. The check opens a stream there, to detect a proxy that
    /// buffers responses.
    #[arg(long, help_heading = "Check", value_parser = web_address)]
    pub url: Option<String>,

    /// The token for that stream. Needed if the settings have no secret to sign a token with.
    #[arg(long, env = "RIDEWIRE_CHECK_TOKEN", help_heading = "Check", hide_env_values = true)]
    pub token: Option<String>,
}

/// Runs all checks. `unknown` are error messages about unknown environment variables.
pub async fn run(settings: &Settings, options: &CheckOptions, unknown: Vec<String>) -> Report {
    let mut report = Report::default();
    settings::check(settings, unknown, &mut report);
    addresses::check(settings, &mut report).await;
    keys::check(settings, &mut report).await;
    certificate::check(settings, options, &mut report);
    machine::check(settings, &mut report);
    if let Some(mut database) = database::connect(settings, &mut report).await {
        let is_writable = server::check(&database, &mut report).await;
        schema::check(&mut database, &mut report).await;
        connections::check(&database, settings, options.replicas, &mut report).await;
        notifications::check(&database, settings, is_writable, &mut report).await;
    }
    proxy::check(settings, options, &mut report).await;
    report
}
