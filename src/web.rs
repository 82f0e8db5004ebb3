//! HTTP requests to other servers that the configuration names: few and small.
//!
//! Requests to URLs that a user of the API chose, such as webhook endpoints, go through [`outbound`] alone.

pub(crate) mod client;
pub(crate) mod outbound;
pub(crate) mod retry_after;
mod target;
pub(crate) mod worker_pool;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::{self, ClientConfig};

use self::client::{Idle, Targets, innermost, tls_config, unverified_tls_config};

/// The timeout of a whole request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of a response, where the caller sets no limit.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Each request has a connection of its own: there are few.
const NO_IDLE: Idle = Idle { timeout: Duration::ZERO, max: 0 };

/// The reason why a request has no usable response.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The request failed, or the response was too long.
    #[error("{url}: {error}")]
    Failed {
        /// The requested URL.
        url: String,
        /// The cause.
        error: io::Error,
    },
    /// The response had an unexpected status.
    #[error("{url}: responded with {status}")]
    Status {
        /// The requested URL.
        url: String,
        /// The status.
        status: StatusCode,
    },
}

/// Sends a request on a new connection, and returns the response before its body.
async fn begin(
    tls: Result<ClientConfig, rustls::Error>,
    request: Request<Full<Bytes>>,
) -> io::Result<Response<Incoming>> {
    let client = client::new(Targets::Any, tls.map_err(io::Error::other)?, NO_IDLE);
    client.request(request).await.map_err(|error| io::Error::other(innermost(&error)))
}

/// Sends a request, and returns the response with a body of at most `limit` bytes.
async fn exchange(
    tls: Result<ClientConfig, rustls::Error>,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Response<Bytes>, WebError> {
    let url = request.uri().to_string();
    let exchange = async {
        let (head, body) = begin(tls, request).await?.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let response = timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(no_response(TIMEOUT)));
    response.map_err(|error| WebError::Failed { url, error })
}

fn no_response(within: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no response within {} s", within.as_secs()))
}

/// Creates a GET request, with a bearer token if there is one.
fn get_request(url: &str, token: Option<&str>) -> Result<Request<Full<Bytes>>, WebError> {
    let mut request = Request::get(url);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    request
        .body(Full::default())
        .map_err(|error| WebError::Failed { url: url.to_owned(), error: io::Error::other(error) })
}

/// Gets a URL, and returns the body of a 200 of at most `limit` bytes.
pub(crate) async fn get(url: &str, limit: usize) -> Result<Bytes, WebError> {
    let response = exchange(tls_config(), get_request(url, None)?, limit).await?;
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => Err(WebError::Status { url: url.to_owned(), status }),
    }
}

/// A response whose body was read in part.
#[derive(Debug)]
pub(crate) struct PartialResponse {
    /// The status.
    pub(crate) status: u16,
    /// The part of the body that was read.
    pub(crate) body: String,
}

/// Gets a URL with a bearer token. Reads the body until `is_enough` returns true for it, it ends, or `within` has passed.
pub(crate) async fn read_until(
    url: &str,
    token: &str,
    within: Duration,
    is_enough: impl Fn(&str) -> bool,
) -> Result<PartialResponse, WebError> {
    let deadline = Instant::now() + within;
    let response = timeout_at(deadline, begin(tls_config(), get_request(url, Some(token))?)).await;
    let response = response.unwrap_or_else(|_| Err(no_response(within)));
    let response = response.map_err(|error| WebError::Failed { url: url.to_owned(), error })?;
    let (head, mut body) = response.into_parts();
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        let is_complete = is_enough(&text) || read.len() >= MAX_RESPONSE_BYTES;
        // An error ends the read as well: the part read so far is the result.
        let frame = match is_complete {
            true => None,
            false => timeout_at(deadline, body.frame()).await.ok().flatten().and_then(Result::ok),
        };
        let Some(frame) = frame else { return Ok(PartialResponse { status: head.status.as_u16(), body: text }) };
        read.extend(frame.data_ref().into_iter().flatten());
    }
}

/// Sends a request unchanged, and returns the response with a body of at most 64 KiB.
pub(crate) async fn send(request: Request<Full<Bytes>>) -> Result<Response<Bytes>, WebError> {
    exchange(tls_config(), request, MAX_RESPONSE_BYTES).await
}

/// Gets a URL of our own server, and returns the status and the body. Its certificate is not verified.
pub(crate) async fn get_self(url: &str) -> Result<(u16, String), WebError> {
    let response = exchange(unverified_tls_config(), get_request(url, None)?, MAX_RESPONSE_BYTES).await?;
    Ok((response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned()))
}
