//! Connections: accepted up to a limit, bounded in time, and closed in order.
//!
//! Guarantees:
//!
//! - A connection over the limit waits in the kernel's accept queue. It costs nothing else.
//! - An idle client cannot occupy a connection. The TLS handshake, a request head and the pauses within a body have timeouts. A client
//!   that does not read its response is cut off, as is one whose machine no longer responds.
//! - The requests of a client that has closed its connection are cancelled, also while further ones of it are unread.
//! - A shutdown lets requests in progress finish, then closes the remaining connections.
//!
//! The accept loop is our own, around hyper, to reduce the cost of an idle stream. salvo's server prepares each connection for HTTP/2 and
//! upgrades, and hyper keeps buffers for later responses (docs/explanation/experiments.md). So event streams and waiting polls are taken
//! over from hyper where that is possible (`handover`). HTTP/2 is used if TLS negotiates it.

mod binding;
mod coalescing;
mod handover;
mod idle;
mod open_files;
mod rejected;
mod shared_socket;
mod taken_over;
mod tls;
mod tracked_body;

use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service as HyperService;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use salvo::Service;
use salvo::conn::{ConnCtrl, StraightStream};
use salvo::fuse::FuseConfig;
use salvo::http::ResBody;
use salvo::http::uri::Scheme;
use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::binding::{BoundSocket, bind};
use self::coalescing::CoalescingSocket;
use self::handover::{HandoverService, HandoverSlot, HyperSocket, TakenOver};
use self::idle::{IdleService, OpenResponses};
pub use self::open_files::{raise_file_limit, required_files};
use self::rejected::log_rejected;
use self::shared_socket::SharedSocket;
use self::taken_over::{DeferredResponse, StreamWriter};
pub use self::tls::{Certificate, TlsError};
use self::tracked_body::{ConnectionMemory, TrackingService};

use crate::config::LimitSettings;
use crate::memory::Memory;

/// The pause after an error of `accept`, such as no free file descriptor. Some connections must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often an idle HTTP/2 connection is probed. HTTP/1 streams have heartbeats.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// The two phases of a shutdown.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// No connection is accepted any more, and connections close after the request in progress.
    pub graceful: CancellationToken,
    /// Connections that are still open are closed immediately.
    pub immediate: CancellationToken,
}

/// A service that responds to the requests of a connection.
trait HttpService:
    HyperService<Request<Incoming>, Response = Response<ResBody>, Error = hyper::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<A> HttpService for A where
    A: HyperService<Request<Incoming>, Response = Response<ResBody>, Error = hyper::Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The server of one address.
struct Server<A> {
    handler: A,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Arc<Certificate>>,
    head_timeout: Duration,
    write_timeout: Duration,
    /// No handler controls a single connection, so one instance is enough for all of them.
    control: ConnCtrl,
    connections: Arc<Semaphore>,
    memory: Arc<Memory>,
    shutdown: Shutdown,
}

/// Serves until `shutdown` and until all connections are closed. With a certificate, it serves over TLS.
pub async fn serve(
    listener: TcpListener,
    service: &Service,
    tls: Option<Arc<Certificate>>,
    limits: &LimitSettings,
    memory: &Arc<Memory>,
    shutdown: Shutdown,
) {
    let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let fuse = FuseConfig::disabled().with_request_body_timeout(limits.body_timeout);
    // One address for all connections: no handler uses its peer's address or closes its own connection.
    let no_peer = SocketAddr::from(([0, 0, 0, 0], 0));
    let handler = service.hyper_handler(no_peer.into(), no_peer.into(), scheme, Some(fuse), ConnCtrl::new(), None);
    Server::new(handler, tls, limits, Arc::clone(memory), shutdown).run(listener).await;
}

/// A connection whose response is awaited without hyper.
struct WaitingConnection<S> {
    socket: S,
    /// Bytes after the request, which belong to the next one.
    received: Bytes,
    response: DeferredResponse,
    memory: ConnectionMemory,
}

impl<A: HttpService> Server<A> {
    fn new(
        handler: A,
        tls: Option<Arc<Certificate>>,
        limits: &LimitSettings,
        memory: Arc<Memory>,
        shutdown: Shutdown,
    ) -> Self {
        let max_head = usize::try_from(limits.max_head).unwrap_or(usize::MAX);
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(max_head);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(limits.write_timeout);
        Self {
            handler,
            http1,
            http2,
            tls,
            head_timeout: limits.head_timeout,
            write_timeout: limits.write_timeout,
            control: ConnCtrl::new(),
            connections: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
            memory,
            shutdown,
        }
    }

    async fn run(self, listener: TcpListener) {
        let server = Arc::new(self);
        let tasks = TaskTracker::new();
        let accepting = async {
            loop {
                let Ok(permit) = Arc::clone(&server.connections).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((socket, _)) => {
                        let server = Arc::clone(&server);
                        // Two kinds of tasks: the future of a plain connection must not be as large as that of a TLS connection.
                        match server.tls.clone() {
                            None => {
                                server.set_user_timeout(&socket);
                                drop(tasks.spawn(server.serve_plain(
                                    SharedSocket::new(socket),
                                    Bytes::new(),
                                    tasks.clone(),
                                    permit,
                                )));
                            }
                            Some(certificate) => drop(tasks.spawn(async move {
                                server.serve_tls(socket, &certificate).await;
                                drop(permit);
                            })),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        server.shutdown.graceful.run_until_cancelled(accepting).await;
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    /// Serves a connection without TLS. If a response is an event stream or a poll that waits, the connection is taken over from hyper.
    /// Boxed, because after a poll the connection is served again.
    fn serve_plain(
        self: Arc<Self>,
        watched: SharedSocket,
        received: Bytes,
        tasks: TaskTracker,
        permit: OwnedSemaphorePermit,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let slot = Arc::new(HandoverSlot::default());
            let socket = self.with_write_timeout(CoalescingSocket::new(watched.clone()));
            let socket = TokioIo::new(HyperSocket::new(socket, received, Arc::clone(&slot)));
            let memory = ConnectionMemory::new(&self.memory);
            let handler = HandoverService::new(self.handler.clone(), Arc::clone(&slot), memory.clone());
            let mut connection = self.http1.serve_connection(socket, handler);
            let mut closed = pin!(watched.closed());
            let mut graceful = pin!(self.shutdown.graceful.cancelled());
            let mut is_stopping = false;
            let taken_over = loop {
                tokio::select! {
                    taken_over = slot.next(&mut connection) => break taken_over,
                    () = graceful.as_mut(), if !is_stopping => {
                        is_stopping = true;
                        Pin::new(&mut connection).graceful_shutdown();
                    }
                    () = self.shutdown.immediate.cancelled() => break None,
                    () = memory.evicted.cancelled() => break None,
                    () = closed.as_mut() => break None,
                }
            };
            let Some(taken_over) = taken_over else { return };
            let parts = connection.into_parts();
            let (socket, unread) = parts.io.into_inner().into_parts();
            // In a task of its own, because this future is as large as a connection of hyper's.
            match taken_over {
                TakenOver::Stream(response) => {
                    let mut stream = StreamWriter::new(socket, response, memory);
                    let immediate = self.shutdown.immediate.clone();
                    // Not `run_until_cancelled`, whose future contains this one twice.
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stream.write() => {}
                            () = immediate.cancelled() => {}
                        }
                        drop(permit);
                    });
                }
                TakenOver::Deferred(response) => {
                    // A copy, because hyper's buffer is large even if it is empty.
                    let received = Bytes::from([parts.read_buf, unread].concat());
                    let waiting = WaitingConnection { socket, received, response, memory };
                    tasks.spawn(Arc::clone(&self).serve_waiting(watched.clone(), waiting, tasks.clone(), permit));
                }
            }
        })
    }

    /// Waits for the response of a poll and writes it. Then serves the connection as before.
    async fn serve_waiting<S: AsyncWrite + Unpin>(
        self: Arc<Self>,
        watched: SharedSocket,
        WaitingConnection { mut socket, received, response, memory }: WaitingConnection<S>,
        tasks: TaskTracker,
        permit: OwnedSemaphorePermit,
    ) {
        let is_kept = tokio::select! {
            written = response.write(&mut socket, &memory, &self.shutdown.graceful) => written.unwrap_or(false),
            () = self.shutdown.immediate.cancelled() => false,
            () = memory.evicted.cancelled() => false,
            () = watched.closed() => false,
        };
        drop(socket);
        match is_kept {
            true => drop(tasks.spawn(Arc::clone(&self).serve_plain(watched, received, tasks.clone(), permit))),
            false => watched.discard_received(),
        }
    }

    async fn serve_tls(&self, socket: TcpStream, certificate: &Certificate) {
        self.set_user_timeout(&socket);
        let watched = SharedSocket::new(socket);
        let handshake = timeout(self.head_timeout, certificate.acceptor().accept(watched.clone()));
        let socket = match self.shutdown.graceful.run_until_cancelled(handshake).await {
            Some(Ok(Ok(socket))) => socket,
            Some(Ok(Err(error))) => return tracing::debug!(%error, "TLS handshake failed"),
            Some(Err(_)) | None => return,
        };
        let is_http2 = socket.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
        let socket = TokioIo::new(self.with_write_timeout(socket));
        let memory = ConnectionMemory::new(&self.memory);
        let handler = TrackingService::new(self.handler.clone(), memory.clone());
        let served = self.serve_tls_http(socket, handler, is_http2);
        tokio::select! {
            () = served => {}
            () = memory.evicted.cancelled() => {}
            () = watched.closed() => {}
        }
    }

    async fn serve_tls_http<S>(&self, socket: S, handler: TrackingService<A>, is_http2: bool)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        if is_http2 {
            let open = OpenResponses::default();
            let connection = self.http2.serve_connection(socket, IdleService::new(handler, open.clone()));
            let idle = || async {
                tokio::select! {
                    () = open.idle_for(self.head_timeout) => {}
                    () = open.stalled_for(self.write_timeout) => {}
                }
            };
            self.drive(connection, http2::Connection::graceful_shutdown, idle).await;
        } else {
            let connection = self.http1.serve_connection(socket, handler);
            // hyper closes an idle connection itself. A client that does not read is detected by its socket.
            self.drive(connection, http1::Connection::graceful_shutdown, pending).await;
        }
    }

    /// Drives a connection to its end. An error at its end is the client's, or was logged where it occurred. An idle or stalled connection
    /// is shut down gracefully, and then closed if it is still idle.
    async fn drive<C, I>(&self, connection: C, finish: impl Fn(Pin<&mut C>), idle: impl Fn() -> I)
    where
        C: Future<Output = hyper::Result<()>>,
        I: Future<Output = ()>,
    {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_rejected(&ended),
            () = idle() => {}
            () = self.shutdown.graceful.cancelled() => {}
        }
        finish(connection.as_mut());
        tokio::select! {
            ended = connection => log_rejected(&ended),
            () = idle() => {}
            () = self.shutdown.immediate.cancelled() => {}
        }
    }

    /// Makes the kernel close a connection whose peer does not acknowledge data, for example a heartbeat (RFC 5482). This happens when a
    /// phone's battery is empty. Without this option it takes a quarter of an hour.
    fn set_user_timeout(&self, socket: &TcpStream) {
        if let Err(error) = SockRef::from(socket).set_tcp_user_timeout(Some(self.write_timeout)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT could not be set");
        }
    }

    /// Closes the connection of a client that does not read.
    fn with_write_timeout<S>(&self, socket: S) -> StraightStream<S> {
        let fuse = FuseConfig::disabled().with_write_stall_timeout(self.write_timeout);
        StraightStream::new(socket, Some(fuse), self.control.clone(), None)
    }
}

/// Reloads the certificate when its files change. Without a certificate, it never returns.
pub async fn watch_certificate(certificate: Option<Arc<Certificate>>) {
    match certificate {
        Some(certificate) => certificate.watch_files().await,
        None => pending().await,
    }
}
