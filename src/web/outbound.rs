//! Requests to URLs that users of the API chose, such as webhook endpoints.
//!
//! A user could make the server send requests to hosts that only the server can reach (server-side request forgery). So this
//! module resolves the host, checks the addresses, and connects to one of the checked addresses. No second lookup can return
//! another result (DNS rebinding). Redirects are not followed, and proxies of the environment are not used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Error as ClientError;
use tokio::time::timeout_at;
use tokio_rustls::rustls;

use super::client::{self, HttpClient, Idle, Targets, innermost, tls_config};
pub(crate) use super::target::AllowedHosts;

/// The idle connections of a host. They are kept for less time than servers keep theirs.
const IDLE: Idle = Idle { timeout: Duration::from_secs(15), max: 16 };

/// The most bytes of a response's body that are read and discarded, so that its connection can be reused.
const MAX_DISCARDED: usize = 16 * 1024;

/// A client for URLs that users chose. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    client: HttpClient,
    allowed: Arc<AllowedHosts>,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
}

/// The reason why a request has no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    /// Requests to the URL are not allowed.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The request is invalid.
    #[error("the request was not sent, because it is invalid: {0}")]
    Request(#[from] hyper::http::Error),
    /// The response took too long.
    #[error("no response within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection failed.
    #[error("{}", innermost(.0))]
    Failed(#[from] ClientError),
}

impl Outbound {
    /// Creates a client. It allows `http`, and addresses that are not public, for the `allowed` hosts alone.
    pub(crate) fn new(allowed: AllowedHosts) -> Result<Self, rustls::Error> {
        let allowed = Arc::new(allowed);
        let client = client::new(Targets::Public(Arc::clone(&allowed)), tls_config()?, IDLE);
        Ok(Self { client, allowed })
    }

    /// Parses a URL, and applies all checks that do not need its host's addresses.
    pub(crate) fn check(&self, url: &str) -> Result<Uri, &'static str> {
        self.allowed.check(url)
    }

    /// Posts JSON, and returns the head of the response. `timeout` is for the whole request.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
        timeout: Duration,
    ) -> Result<ResponseHead, OutboundError> {
        self.post_as("application/json", url, headers, body.into(), timeout).await
    }

    /// Posts a body of any type, and returns the head of the response. `timeout` is for the whole request.
    pub(crate) async fn post_as(
        &self,
        content_type: &'static str,
        url: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
        timeout: Duration,
    ) -> Result<ResponseHead, OutboundError> {
        let uri = self.check(url).map_err(OutboundError::Url)?;
        let mut request = Request::post(uri)
            .header("content-type", content_type)
            .header("user-agent", concat!("ridewire/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body))?;
        let deadline = tokio::time::Instant::now() + timeout;
        let response = timeout_at(deadline, self.client.request(request)).await;
        let response = response.map_err(|_| OutboundError::Timeout(timeout))??;
        let (head, body) = Response::into_parts(response);
        drop(timeout_at(deadline, discard(body)).await);
        Ok(ResponseHead { status: head.status, headers: head.headers })
    }
}

/// Reads a short body to its end; of a longer one about `MAX_DISCARDED` bytes.
async fn discard(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await
        && read <= MAX_DISCARDED
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}
