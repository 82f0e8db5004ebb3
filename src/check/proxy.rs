//! Checks whether the proxies between the clients and the server pass an event stream without buffering.
//!
//! It opens the stream of a user without rides. The server sends the first event of a stream at once, and the stream does not
//! end. A proxy that buffers responses until their end, or until a buffer is full, passes nothing of it.

use std::time::Duration;

use super::{CheckOptions, Level, Report};
use crate::config::Settings;
use crate::domain::{Role, UserId};
use crate::keys;
use crate::web::{self, PartialResponse, WebError};

const CHECK: &str = "proxy";

/// The timeout of the first event. The server sends it at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The lifetime of the token that the check signs.
const TOKEN_TTL: Duration = Duration::from_secs(60);

/// Opens a stream at the URL that clients use.
pub(super) async fn check(settings: &Settings, options: &CheckOptions, report: &mut Report) {
    let Some(url) = options.url.as_deref() else {
        return report.add(Level::Skipped, CHECK, "set --url to the address that clients use");
    };
    let token = match &options.token {
        Some(token) => token.clone(),
        None => match signed(settings) {
            Ok(token) => token,
            Err(error) => {
                return report.add(Level::Warning, CHECK, format!("{error}; or set RIDEWIRE_CHECK_TOKEN to a token"));
            }
        },
    };
    let base = format!("{}/api/v1", url.trim_end_matches('/'));
    // A short request first: it distinguishes a proxy that buffers streams from one that passes nothing.
    let response = match get(&format!("{base}/rides?limit=1"), &token).await {
        Ok(response) => response,
        Err(error) => {
            return report.error(CHECK, format!("{error}; check the address, its certificate, and the proxy's log"));
        }
    };
    if let Some(problem) = problem(&response) {
        return report.error(CHECK, format!("{base}/rides returned {problem}"));
    }
    let (level, text) = match get(&format!("{base}/events"), &token).await {
        Ok(stream) if stream.body.contains("event:") => (Level::Ok, "event streams are not buffered".to_owned()),
        Ok(stream) if stream.status != 200 => (Level::Error, format!("{base}/events returned {}", stream.status)),
        _ => (
            Level::Error,
            format!(
                "the first event of a stream did not arrive within {} s; switch off response buffering and compression for \
                 {base}, see docs/how-to/proxies.md",
                TIMEOUT.as_secs()
            ),
        ),
    };
    report.add(level, CHECK, text);
}

async fn get(url: &str, token: &str) -> Result<PartialResponse, WebError> {
    web::read_until(url, token, TIMEOUT, |body| body.contains("event:")).await
}

/// Returns what is wrong with the response to the short request; `None` if it is a list of rides.
fn problem(response: &PartialResponse) -> Option<String> {
    match response.status {
        200 if response.body.trim_start().starts_with('{') => None,
        200 => Some("200 with a body that is not JSON; does the proxy forward to Ridewire?".to_owned()),
        401 => Some(
            "401: the servers there do not accept the token; set RIDEWIRE_CHECK_TOKEN to one that their issuer signed"
                .to_owned(),
        ),
        status @ (502..=504) => Some(format!("{status}: the proxy reaches no server that is ready; see its log")),
        status => Some(format!("{status}; does the proxy forward to Ridewire, with the path unchanged?")),
    }
}

/// Signs a token of a user without rides.
fn signed(settings: &Settings) -> anyhow::Result<String> {
    let (signer, _) = keys::signer(&settings.keys, &settings.database)?;
    Ok(signer.sign(&UserId::parse("ridewire-check")?, Role::Rider, TOKEN_TTL)?)
}
