//! The HTTP client, and the connector that decides which addresses it connects to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, ConfigBuilder, WantsVerifier};
use tokio_util::either::Either;

use super::target::{AllowedHosts, is_public, normalize_host, port_of};
use crate::happy_eyeballs::first_success;
use crate::trust::{AnyCertificate, system_roots};

/// The timeout of a TCP connection, over all addresses of a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client with a connection pool. It follows no redirects and uses no proxy. Cheap to clone.
pub(crate) type HttpClient = Client<Connector, Full<Bytes>>;

/// The hosts that a client may connect to.
#[derive(Debug, Clone)]
pub(crate) enum Targets {
    /// All: the URL is part of the configuration.
    Any,
    /// Hosts with public addresses, and those that the configuration names.
    Public(Arc<AllowedHosts>),
}

/// The idle connections that a client keeps for each host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// How long an idle connection is kept. Servers must keep theirs longer, or a request fails on a connection that is being closed.
    pub(crate) timeout: Duration,
    /// The most idle connections.
    pub(crate) max: usize,
}

/// Creates a client.
pub(crate) fn new(targets: Targets, tls: ClientConfig, idle: Idle) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(idle.timeout)
        .pool_max_idle_per_host(idle.max)
        .build(Connector { targets, tls: TlsConnector::from(Arc::new(tls)) })
}

/// The TLS configuration of clients, with the certificate authorities of this system.
pub(crate) fn tls_config() -> Result<ClientConfig, rustls::Error> {
    Ok(config_builder()?.with_root_certificates(system_roots()).with_no_client_auth())
}

/// The TLS configuration for requests to our own server by its address: its certificate names another host, so it is not verified.
pub(super) fn unverified_tls_config() -> Result<ClientConfig, rustls::Error> {
    let builder = config_builder()?.dangerous();
    Ok(builder.with_custom_certificate_verifier(AnyCertificate::new()).with_no_client_auth())
}

fn config_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

/// Returns the text of the innermost cause of a client error, which is the most specific one.
pub(crate) fn innermost(error: &ClientError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Connects to allowed addresses.
#[derive(Clone)]
pub(crate) struct Connector {
    targets: Targets,
    tls: TlsConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("targets", &self.targets).finish_non_exhaustive()
    }
}
impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let host = normalize_host(uri.host().unwrap_or_default());
        let is_secure = uri.scheme_str() == Some("https");
        let port = port_of(&uri);
        let addresses = self.addresses(&host, port).await?;
        let attempts: Vec<_> = addresses.into_iter().map(TcpStream::connect).collect();
        let connected = timeout(CONNECT_TIMEOUT, first_success(attempts)).await;
        let no_response = || io::Error::new(io::ErrorKind::TimedOut, "the connection was not accepted in time");
        let no_address = || Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
        let stream = connected.map_err(|_| no_response())?.unwrap_or_else(no_address)?;
        stream.set_nodelay(true)?;
        self.secure(stream, host, is_secure).await
    }

    /// Resolves a host, and returns its allowed addresses.
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let resolved: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => lookup_host((host, port)).await?.collect(),
        };
        match &self.targets {
            Targets::Any => return Ok(resolved),
            Targets::Public(allowed) if allowed.contains(host, port) => return Ok(resolved),
            Targets::Public(_) => {}
        }
        let public: Vec<_> = resolved.iter().copied().filter(|address| is_public(address.ip())).collect();
        if public.is_empty() && !resolved.is_empty() {
            // The error does not contain the address: it would disclose the internal network to the user.
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
pub(crate) struct Stream(TokioIo<Either<TcpStream, TlsStream<TcpStream>>>);

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
