//! Connections: taken in, as many as there may be; given no more time than they may have; and ended, in order.
//!
//! What holds here:
//!
//! - A connection over the limit waits to be accepted, and costs nothing but its place in the kernel's queue.
//! - Nobody holds one by doing nothing: a handshake and a head have their time, so has a body between its pieces, and a
//!   client that takes nothing of what is there for it is cut off, as is one whose machine has gone.
//! - A stop lets the requests in hand finish, then cuts what is left.
//!
//! The loop is our own, around hyper, for what an idle stream costs: salvo's server prepares each connection for HTTP/2
//! and upgrades, and hyper keeps buffers for answers that will not come (docs/performance.md). So an event stream is taken
//! over from hyper where that is possible (`handover`). HTTP/2 is spoken where TLS agrees on it.

mod counted;
mod handover;
mod idle;
mod joined;
mod rejected;
mod tls;

use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service as HyperService;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use salvo::Service;
use salvo::conn::{ConnCtrl, StraightStream};
use salvo::fuse::FuseConfig;
use salvo::http::ResBody;
use salvo::http::uri::Scheme;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::counted::{Counting, Track};
use self::handover::{Desk, EventStream, Handing, Watched};
use self::idle::{Open, Watching};
use self::joined::Joined;
use self::rejected::log_rejected;
pub use self::tls::{Certificate, TlsError};

use crate::config::LimitSettings;
use crate::memory::Memory;

/// Connections that wait to be accepted: a storm of reconnecting streams is not to be turned away.
const BACKLOG: u32 = 4_096;

/// Files that are no connections: the database, the log, and more.
const OTHER_FILES: u64 = 1_000;

/// After an error of `accept`, such as no more file descriptors: some have to be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a quiet HTTP/2 connection is asked whether it is still there. HTTP/1 streams have their heartbeats.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// How a server ends.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Nothing more is accepted, and connections end after the request in hand.
    pub gently: CancellationToken,
    /// What is still open is cut.
    pub now: CancellationToken,
}

/// What answers the requests of a connection.
trait Answer:
    HyperService<Request<Incoming>, Response = Response<ResBody>, Error = hyper::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<A> Answer for A where
    A: HyperService<Request<Incoming>, Response = Response<ResBody>, Error = hyper::Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// What serves an address.
struct Server<A> {
    handler: A,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Arc<Certificate>>,
    head_timeout: Duration,
    write_timeout: Duration,
    /// Nobody controls a single connection; so one of these is enough for all.
    control: ConnCtrl,
    connections: Arc<Semaphore>,
    memory: Arc<Memory>,
    stop: Stop,
}

/// Serves until it is to stop and all connections have ended; over TLS where there is a certificate.
pub async fn serve(
    listener: TcpListener,
    service: &Service,
    tls: Option<Arc<Certificate>>,
    limits: &LimitSettings,
    memory: &Arc<Memory>,
    stop: Stop,
) {
    let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let fuse = FuseConfig::disabled().with_request_body_timeout(limits.body_timeout);
    // One for all connections: no handler asks who is at the other end of its own, or ends it.
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    let handler = service.hyper_handler(nobody.into(), nobody.into(), scheme, Some(fuse), ConnCtrl::new(), None);
    Server::new(handler, tls, limits, Arc::clone(memory), stop).run(listener).await;
}

impl<A: Answer> Server<A> {
    fn new(handler: A, tls: Option<Arc<Certificate>>, limits: &LimitSettings, memory: Arc<Memory>, stop: Stop) -> Self {
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
            stop,
        }
    }

    async fn run(self, listener: TcpListener) {
        let server = Arc::new(self);
        let open = TaskTracker::new();
        let accepting = async {
            loop {
                let Ok(permit) = Arc::clone(&server.connections).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((socket, _)) => {
                        let server = Arc::clone(&server);
                        // Two tasks, not one of two kinds: a plain connection is not to be as large as the other.
                        match server.tls.clone() {
                            None => {
                                let tasks = open.clone();
                                drop(open.spawn(async move { server.plain(socket, tasks, permit).await }));
                            }
                            Some(certificate) => drop(open.spawn(async move {
                                server.encrypted(socket, &certificate).await;
                                drop(permit);
                            })),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        server.stop.gently.run_until_cancelled(accepting).await;
        drop(listener);
        open.close();
        open.wait().await;
    }

    /// A connection without TLS, which becomes an event stream where it is asked for one.
    async fn plain(self: Arc<Self>, socket: TcpStream, open: TaskTracker, permit: OwnedSemaphorePermit) {
        self.prepare(&socket);
        let desk = Arc::new(Desk::default());
        let socket = TokioIo::new(Watched::new(self.bounded(Joined::new(socket)), Arc::clone(&desk)));
        let track = Track::new(&self.memory);
        let handler = Handing::new(self.handler.clone(), Arc::clone(&desk), track.clone());
        let mut connection = self.http1.serve_connection(socket, handler);
        let mut gently = pin!(self.stop.gently.cancelled());
        let mut is_stopping = false;
        let stream = loop {
            tokio::select! {
                stream = desk.next(&mut connection) => break stream,
                () = gently.as_mut(), if !is_stopping => {
                    is_stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                () = self.stop.now.cancelled() => break None,
                () = track.cut.cancelled() => break None,
            }
        };
        if let Some(stream) = stream {
            let socket = connection.into_parts().io.into_inner().into_inner();
            let mut stream = EventStream::new(socket, stream, track);
            let now = self.stop.now.clone();
            // In a task of its own: this one is as large as a connection of hyper's.
            open.spawn(async move {
                now.run_until_cancelled(stream.write()).await;
                drop(permit);
            });
        }
    }

    async fn encrypted(&self, socket: TcpStream, certificate: &Certificate) {
        self.prepare(&socket);
        let handshake = timeout(self.head_timeout, certificate.acceptor().accept(socket));
        let socket = match self.stop.gently.run_until_cancelled(handshake).await {
            Some(Ok(Ok(socket))) => socket,
            Some(Ok(Err(error))) => return tracing::debug!(%error, "a TLS handshake failed"),
            Some(Err(_)) | None => return,
        };
        let is_http2 = socket.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
        let socket = TokioIo::new(self.bounded(socket));
        let track = Track::new(&self.memory);
        let handler = Counting::new(self.handler.clone(), track.clone());
        let served = self.encrypted_http(socket, handler, is_http2);
        track.cut.run_until_cancelled(served).await;
    }

    async fn encrypted_http<S>(&self, socket: S, handler: Counting<A>, is_http2: bool)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        if is_http2 {
            let open = Open::default();
            let connection = self.http2.serve_connection(socket, Watching::new(handler, open.clone()));
            let idle = || async {
                tokio::select! {
                    () = open.none_for(self.head_timeout) => {}
                    () = open.one_stalls_for(self.write_timeout) => {}
                }
            };
            self.drive(connection, http2::Connection::graceful_shutdown, idle).await;
        } else {
            let connection = self.http1.serve_connection(socket, handler);
            // hyper ends one that is idle itself, and one that takes nothing is told by its socket.
            self.drive(connection, http1::Connection::graceful_shutdown, pending).await;
        }
    }

    /// Runs a connection to its end. What ends it is the client's affair, or was logged by who ended it. One that is idle, or
    /// stalls, is asked to end, and cut where that does not help.
    async fn drive<C, I>(&self, connection: C, finish: impl Fn(Pin<&mut C>), idle: impl Fn() -> I)
    where
        C: Future<Output = hyper::Result<()>>,
        I: Future<Output = ()>,
    {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_rejected(&ended),
            () = idle() => {}
            () = self.stop.gently.cancelled() => {}
        }
        finish(connection.as_mut());
        tokio::select! {
            ended = connection => log_rejected(&ended),
            () = idle() => {}
            () = self.stop.now.cancelled() => {}
        }
    }

    /// Has the kernel give up a connection whose other machine answers nothing, as after a phone's battery: a heartbeat that
    /// is not acknowledged (RFC 5482). Without it that takes a quarter of an hour.
    fn prepare(&self, socket: &TcpStream) {
        if let Err(error) = SockRef::from(socket).set_tcp_user_timeout(Some(self.write_timeout)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT");
        }
    }

    /// Cuts off who takes nothing of what is there to be written.
    fn bounded<S>(&self, socket: S) -> StraightStream<S> {
        let fuse = FuseConfig::disabled().with_write_stall_timeout(self.write_timeout);
        StraightStream::new(socket, Some(fuse), self.control.clone(), None)
    }
}

/// Has the operating system allow the files that so many connections need, as far as it lets us: what a login or service begins
/// with, 1,024 on most, is for programs that use `select`.
pub fn allow_files(connections: usize) {
    let wanted = files(connections);
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(now, most)| match wanted.min(most) {
        enough if enough > now => setrlimit(Resource::RLIMIT_NOFILE, enough, most),
        _ => Ok(()),
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// How many open files so many connections need.
pub fn files(connections: usize) -> u64 {
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES)
}

/// An address that is ours. Who connects is refused until it [listens](Bound::listen), rather than kept waiting.
#[derive(Debug)]
pub struct Bound(TcpSocket);

impl Bound {
    /// The address.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Listens.
    pub fn listen(self) -> std::io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

/// Takes an address. Small writes are not delayed, which what is accepted inherits on Linux.
pub async fn bind(address: &str) -> std::io::Result<Bound> {
    let mut last = std::io::Error::other("the name has no address");
    for candidate in lookup_host(address).await? {
        match bind_one(candidate) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr) -> std::io::Result<Bound> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    Ok(Bound(socket))
}

/// The certificate's renewal, or for ever where there is none.
pub async fn renew(certificate: Option<Arc<Certificate>>) {
    match certificate {
        Some(certificate) => certificate.keep_current().await,
        None => pending().await,
    }
}
