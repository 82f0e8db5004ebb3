//! Requests to URLs that users of the API have given, such as endpoints of webhooks.
//!
//! A user could have the server ask what only the server can reach (server-side request forgery). So a host is resolved here, and the
//! connection is made to one of the addresses that were checked: there is no second lookup that could have another result. Redirects
//! are not followed, and no proxy of the environment is used.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_util::either::Either;

pub(crate) use super::target::AllowedHosts;
use super::target::{is_public, plain, port_of};

/// How long one address may take to accept a connection, before the next is tried.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection is kept without a request: less than servers keep theirs.
const IDLE: Duration = Duration::from_secs(15);

/// The most idle connections to one host.
const IDLE_CONNECTIONS: usize = 16;

/// The most bytes of a response's body that are read, so that its connection can be used again.
const IGNORED: usize = 16 * 1024;

/// A client for URLs that users have given. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    client: Client<Connector, Full<Bytes>>,
    allowed: Arc<AllowedHosts>,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    /// The URL may not be asked.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The request could not be made.
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    /// The response took too long.
    #[error("no response within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection failed.
    #[error("{}", innermost(.0))]
    Failed(#[from] ClientError),
}

/// What an error of the client is about: the first cause says it best.
fn innermost(error: &ClientError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// TLS to others, with the certificate authorities of this system.
pub(crate) fn tls_config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // Some may be of a kind that is not known here.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

impl Outbound {
    /// A client for which `http`, and addresses that are not public, are allowed for these hosts alone.
    pub(crate) fn new(allowed: AllowedHosts) -> Result<Self, rustls::Error> {
        let tls = tls_config()?;
        let allowed = Arc::new(allowed);
        let connector = Connector { allowed: Arc::clone(&allowed), tls: TlsConnector::from(Arc::new(tls)) };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(Self { client, allowed })
    }

    /// Parses a URL, and checks all that can be checked before its host is resolved.
    pub(crate) fn check(&self, url: &str) -> Result<Uri, &'static str> {
        self.allowed.check(url)
    }

    /// Posts JSON, and waits for the head of the response.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
        patience: Duration,
    ) -> Result<Answer, OutboundError> {
        self.post_as("application/json", url, headers, body.into(), patience).await
    }

    /// Posts a body of any type, and waits for the head of the response.
    pub(crate) async fn post_as(
        &self,
        content_type: &'static str,
        url: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, OutboundError> {
        let uri = self.check(url).map_err(OutboundError::Url)?;
        let mut request = Request::post(uri)
            .header("content-type", content_type)
            .header("user-agent", concat!("ridewire/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body))?;
        let deadline = tokio::time::Instant::now() + patience;
        let response = timeout_at(deadline, self.client.request(request)).await;
        let response = response.map_err(|_| OutboundError::Timeout(patience))??;
        let (head, body) = Response::into_parts(response);
        drop(timeout_at(deadline, ignore(body)).await);
        Ok(Answer { status: head.status, headers: head.headers })
    }
}

/// Reads a short body to its end.
async fn ignore(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await
        && read <= IGNORED
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Connects to addresses that are allowed.
#[derive(Clone)]
struct Connector {
    allowed: Arc<AllowedHosts>,
    tls: TlsConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let host = plain(uri.host().unwrap_or_default());
        let is_secure = uri.scheme_str() == Some("https");
        let port = port_of(&uri);
        let addresses = self.addresses(&host, port).await?;
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return self.secure(stream, host, is_secure).await;
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::Error::new(io::ErrorKind::TimedOut, "the connection was not accepted in time"),
            }
        }
        Err(failed)
    }

    /// The addresses of a host that may be connected to.
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => lookup_host((host, port)).await?.collect(),
        };
        if self.allowed.contain(host, port) {
            return Ok(found);
        }
        let public: Vec<_> = found.iter().copied().filter(|address| is_public(address.ip())).collect();
        if public.is_empty() && !found.is_empty() {
            // Which one it is is nobody's business but the network's.
            let why = "the host's address is private, loopback, link-local or otherwise special, which is not allowed";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(public)
    }

    async fn secure(&self, stream: TcpStream, host: String, is_secure: bool) -> io::Result<Stream> {
        if !is_secure {
            return Ok(Stream(TokioIo::new(Either::Left(stream))));
        }
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        Ok(Stream(TokioIo::new(Either::Right(self.tls.connect(name, stream).await?))))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection, with or without TLS.
struct Stream(TokioIo<Either<TcpStream, TlsStream<TcpStream>>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
