//! What we ask others for, over HTTP: little and seldom. What a user of the API names, such as an endpoint of webhooks, is
//! [`outbound`]'s alone.

pub(crate) mod leased;
pub(crate) mod outbound;
pub(crate) mod retry_after;
mod target;

use std::io::{self, Read as _};
use std::time::Duration;

use ureq::config::Config;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, http};

/// How long others may take, all in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// No answer, or too long a one.
    #[error("{url}: {error}")]
    Failed {
        /// Who was asked.
        url: String,
        /// What happened.
        error: io::Error,
    },
    /// An answer that is none.
    #[error("{url}: answered {status}")]
    Status {
        /// Who was asked.
        url: String,
        /// The status.
        status: http::StatusCode,
    },
}

/// Who asks: the machine's certificates are believed, and no redirect is followed. `own` is for asking ourselves, whose
/// certificate is in another's name.
fn agent(own: bool) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).disable_verification(own).build();
    let config = Config::builder().tls_config(tls).timeout_global(Some(PATIENCE));
    config.max_redirects(0).max_redirects_will_error(false).http_status_as_error(false).build().into()
}

fn ask(agent: &Agent, url: &str, limit: u64) -> Result<(http::StatusCode, Vec<u8>), WebError> {
    let failed = |error: ureq::Error| WebError::Failed { url: url.to_owned(), error: error.into_io() };
    let mut answer = agent.get(url).call().map_err(failed)?;
    let body = answer.body_mut().with_config().limit(limit).read_to_vec().map_err(failed)?;
    Ok((answer.status(), body))
}

/// The body of a 200, of at most so many bytes. Blocks.
pub(crate) fn get(url: &str, limit: u64) -> Result<Vec<u8>, WebError> {
    match ask(&agent(false), url, limit)? {
        (http::StatusCode::OK, body) => Ok(body),
        (status, _) => Err(WebError::Status { url: url.to_owned(), status }),
    }
}

/// The beginning of a response, whose body may have no end.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// The status.
    pub(crate) status: u16,
    /// What has come of the body.
    pub(crate) body: String,
}

/// Asks with a token, and reads the body until `is_enough` says so, it ends, or the time is over. Blocks.
pub(crate) fn begin(
    url: &str,
    token: &str,
    within: Duration,
    is_enough: impl Fn(&str) -> bool,
) -> Result<Beginning, WebError> {
    let failed = |error: ureq::Error| WebError::Failed { url: url.to_owned(), error: error.into_io() };
    let request = agent(false).get(url).header("authorization", format!("Bearer {token}"));
    let answer = request.config().timeout_global(Some(within)).build().call().map_err(failed)?;
    let (head, mut body) = answer.into_parts();
    let (mut reader, mut read, mut chunk) = (body.as_reader(), Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        let more = if is_enough(&text) { Ok(0) } else { reader.read(&mut chunk) };
        // What has come is what there is, however the rest fails.
        match more {
            Ok(count) if count > 0 && read.len() < 64 * 1024 => read.extend(chunk.iter().take(count)),
            _ => return Ok(Beginning { status: head.status.as_u16(), body: text }),
        }
    }
}

/// Sends a request as it is. Blocks.
pub(crate) fn send(request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, WebError> {
    let url = request.uri().to_string();
    let failed = |error: ureq::Error| WebError::Failed { url: url.clone(), error: error.into_io() };
    let (head, mut body) = agent(false).run(request).map_err(failed)?.into_parts();
    let body = body.with_config().limit(64 * 1024).read_to_vec().map_err(failed)?;
    Ok(http::Response::from_parts(head, body))
}

/// What a server of our own answers. Blocks.
pub(crate) fn get_own(url: &str) -> Result<(u16, String), WebError> {
    let (status, body) = ask(&agent(true), url, 64 * 1024)?;
    Ok((status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
}
