//! `ridewire check`: reports what would go wrong with the configuration, the database and this machine.
//!
//! It reads the settings, the keys and the certificate, and connects, by the same code as the server. It creates and migrates nothing;
//! what it sends to the database is queries, `explain`, and a NOTIFY on a channel of its own.
//!
//! The exit code is that of monitoring plug-ins: 0 if all is well, 1 if the worst finding is a warning, 2 if it is an error.

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

/// What is checked besides the settings.
#[derive(Debug, Clone, Args)]
pub struct CheckOptions {
    /// How many servers there will be on the database.
    #[arg(long, help_heading = "Check", default_value_t = 1, value_parser = at_least_one)]
    pub replicas: usize,

    /// The address that clients use, such as `https://chat.example.com`: a stream is opened there, to see whether a proxy holds it
    /// back.
    #[arg(long, help_heading = "Check", value_parser = web_address)]
    pub url: Option<String>,

    /// A token for that, where the settings have no secret to sign one with.
    #[arg(long, env = "RIDEWIRE_CHECK_TOKEN", help_heading = "Check", hide_env_values = true)]
    pub token: Option<String>,
}

/// Checks everything. `unknown` are complaints about the environment.
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
