//! Whether what is between the clients and the server lets an event stream through.
//!
//! It opens the stream of a user who has no rides. The server sends the first event of a stream at once, and a stream does not end: a
//! proxy that holds responses back until their end, or until a buffer is full, lets nothing of it through.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::{CheckOptions, Level, Report};
use crate::config::Settings;
use crate::domain::{Role, UserId};
use crate::keys;
use crate::web::{self, Beginning, WebError};

const CHECK: &str = "proxy";

/// How long the first event may take. The server sends it at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For how long the token is good that is signed here.
const TOKEN_TTL: Duration = Duration::from_secs(60);

/// Opens a stream at the address that clients use.
pub(super) async fn check(settings: &Settings, options: &CheckOptions, report: &mut Report) {
    let Some(url) = options.url.as_deref() else {
        return report.add(Level::Skipped, CHECK, "name the address that clients use with --url");
    };
    let token = match &options.token {
        Some(token) => token.clone(),
        None => match signed(settings) {
            Ok(token) => token,
            Err(error) => {
                return report.add(
                    Level::Warning,
                    CHECK,
                    format!("{error}; or give a token with RIDEWIRE_CHECK_TOKEN"),
                );
            }
        },
    };
    let base = format!("{}/api/v1", url.trim_end_matches('/'));
    // Something short first, to tell a proxy that holds a stream back from one that lets nothing through.
    let answered = match begin(format!("{base}/rides?limit=1"), &token).await {
        Ok(answered) => answered,
        Err(error) => {
            return report.error(CHECK, format!("{error}; check the address, its certificate, and the proxy's log"));
        }
    };
    if let Some(problem) = problem(&answered) {
        return report.error(CHECK, format!("{base}/rides answered {problem}"));
    }
    let (level, text) = match begin(format!("{base}/events"), &token).await {
        Ok(stream) if stream.body.contains("event:") => (Level::Ok, "event streams come through at once".to_owned()),
        Ok(stream) if stream.status != 200 => (Level::Error, format!("{base}/events answered {}", stream.status)),
        _ => (
            Level::Error,
            format!(
                "the beginning of an event stream did not come through within {} s; switch off the buffering of responses \
                 (and their compression) for {base}, see docs/proxies.md",
                TIMEOUT.as_secs()
            ),
        ),
    };
    report.add(level, CHECK, text);
}

async fn begin(url: String, token: &str) -> Result<Beginning, WebError> {
    let token = token.to_owned();
    let begun = spawn_blocking({
        let url = url.clone();
        move || web::begin(&url, &token, TIMEOUT, |body: &str| body.contains("event:"))
    });
    // A task that panics has no answer.
    begun.await.unwrap_or_else(|error| Err(WebError::Failed { url, error: std::io::Error::other(error) }))
}

/// What is wrong with a response that should be a list.
fn problem(answered: &Beginning) -> Option<String> {
    match answered.status {
        200 if answered.body.trim_start().starts_with('{') => None,
        200 => Some("200 with something else than JSON; does the proxy lead to Ridewire?".to_owned()),
        401 => Some(
            "401: the servers there do not accept the token; give one that their issuer has signed (RIDEWIRE_CHECK_TOKEN)"
                .to_owned(),
        ),
        status @ (502..=504) => Some(format!("{status}: the proxy reaches no server that is ready; see its log")),
        status => Some(format!("{status}; does the proxy lead to Ridewire, with the path unchanged?")),
    }
}

/// A token of a user without rides.
fn signed(settings: &Settings) -> anyhow::Result<String> {
    let (signer, _) = keys::signer(&settings.keys, &settings.database)?;
    Ok(signer.sign(&UserId::parse("ridewire-check")?, Role::Rider, TOKEN_TTL)?)
}
