//! Starts everything, in order, and stops it in the opposite one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use salvo::Server;
use salvo::conn::tcp::TcpAcceptor;
use salvo::fuse::FuseConfig;
use tokio::net::{TcpSocket, lookup_host};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;

use crate::auth::{Tickets, Verifier};
use crate::config::{LimitSettings, Notify, PreparedStatements, Settings};
use crate::domain::Signal;
use crate::embedded::{EmbeddedError, EmbeddedPostgres, Options, StopMode};
use crate::http::guard::Origin;
use crate::http::{Admission, Api, Limits, Metrics, Quota, SendRate, service};
use crate::keys::{self, KeysError};
use crate::realtime::{Attendance, Feed, Hub, Revocations};
use crate::store::{Prepared, Retention, Store, StoreConfig, StoreError, migrate};
use crate::writer::{Acknowledger, Notifier, Terms, Writer, closer, retention};

/// How long the database may take to be there when we start.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// How long requests in hand have to finish when we stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Connections that wait to be accepted: a storm of reconnecting streams is not to be turned away.
const BACKLOG: u32 = 4_096;

/// Why the server could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// There are no keys to verify tokens with.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The private Postgres could not be started, or stopped.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The database could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address could not be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// What is counted cannot be.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The operating system refuses signals.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// Something that never ends has ended.
    #[error("a task of the server ended: {0}")]
    Task(String),
}

/// The database, and our hand on it where it is ours.
#[derive(Debug)]
pub struct Database {
    config: Config,
    listen: Config,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// Finds the database that the settings name, or starts a private one, and brings its schema up to date.
    pub async fn open(settings: &Settings) -> Result<Self, AppError> {
        let embedded = match settings.database_url {
            Some(_) => None,
            None => Some(EmbeddedPostgres::start(&settings.data_dir(), Options::default()).await?),
        };
        let url = match (&settings.database_url, &embedded) {
            (Some(url), _) => url.clone(),
            (None, Some(embedded)) => embedded.url(),
            (None, None) => String::new(),
        };
        let config = parse(&url, "DATABASE_URL")?;
        let listen = match &settings.listen_database_url {
            Some(url) => parse(url, "RIDEWIRE_LISTEN_DATABASE_URL")?,
            None => config.clone(),
        };
        let database = Self { config, listen, embedded };
        match database.migrate().await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await?;
                Err(error.into())
            }
        }
    }

    /// Migrates, over the direct connection where there is one, waiting for a database that is about to be there, as when
    /// all of a deployment starts at once.
    async fn migrate(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + DATABASE_PATIENCE;
        loop {
            match migrate(&self.listen).await {
                Ok(applied) => {
                    tracing::info!(applied, "the schema is up to date");
                    return Ok(());
                }
                Err(error) if error.is_connection_lost() && Instant::now() < deadline => {
                    tracing::warn!(%error, "waiting for the database");
                    sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops it, where it is ours.
    pub async fn close(self) -> Result<(), AppError> {
        match self.embedded {
            Some(embedded) => Ok(embedded.stop(StopMode::Fast).await?),
            None => Ok(()),
        }
    }

    /// Waits until a private Postgres ends by itself, which it should not.
    async fn ended(&mut self) {
        match &mut self.embedded {
            Some(embedded) => drop(embedded.exited().await),
            None => std::future::pending().await,
        }
    }
}

fn parse(url: &str, setting: &str) -> Result<Config, AppError> {
    let mut config: Config = url.parse().map_err(|error| {
        AppError::Setting(format!("{setting} must be a Postgres URL or a list of key=value: {error}"))
    })?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(2));
    }
    if config.get_application_name().is_none() {
        config.application_name("ridewire");
    }
    Ok(config)
}

/// Serves until a signal asks to stop. `ready` is called with the address once requests are answered.
pub async fn serve(settings: Settings, ready: impl AsyncFnOnce(SocketAddr, &Api)) -> Result<(), AppError> {
    // Whatever can be wrong with the settings is found before anything is started.
    let origins = settings.cors_origins.iter().map(|origin| origin.trim().parse());
    let origins: Vec<Origin> = origins
        .collect::<Result<_, _>>()
        .map_err(|error| AppError::Setting(format!("RIDEWIRE_CORS_ORIGINS: {error}")))?;
    let verifier = Verifier::new(keys::verifying(&settings)?, keys::expectations(&settings));
    let mut signals = Signals::new().map_err(AppError::Signals)?;
    let mut database = tokio::select! {
        database = Database::open(&settings) => database?,
        () = signals.wait() => return Ok(()),
    };
    let served = serve_with(settings, &mut database, (verifier, origins), signals, ready).await;
    let closed = database.close().await;
    served.and(closed)
}

async fn serve_with(
    settings: Settings,
    database: &mut Database,
    (verifier, origins): (Verifier, Vec<Origin>),
    mut signals: Signals,
    ready: impl AsyncFnOnce(SocketAddr, &Api),
) -> Result<(), AppError> {
    let store = Arc::new(Store::new(StoreConfig {
        postgres: database.config.clone(),
        connections: settings.database_connections,
        patience: settings.database_timeout,
        prepared: match settings.prepared_statements {
            PreparedStatements::On => Prepared::On,
            PreparedStatements::Off => Prepared::Off,
        },
    })?);
    let metrics = Arc::new(Metrics::new()?);
    let hub = Arc::new(Hub::default());
    let revocations = Arc::new(Revocations::default());
    revocations.refresh(&store).await?;
    let feed = Arc::new(Feed::new(Arc::clone(&hub), Arc::clone(&store), Arc::clone(&revocations)));
    let stopping = CancellationToken::new();
    let notify = settings.notify == Notify::On;
    let notifier = Arc::new(Notifier::new(notify));
    let terms = Terms { chat_grace: settings.chat_grace, notify };
    let (writer, writing) = Writer::new(Arc::clone(&store), terms, settings.database_timeout, {
        let (hub, metrics) = (Arc::clone(&hub), Arc::clone(&metrics));
        move |committed| {
            hub.publish(&committed.events);
            metrics.committed(&committed);
        }
    });

    let listener = listen(&settings.listen).await?;
    let unusable = |error| AppError::Listen { address: settings.listen.clone(), error };
    let address = listener.local_addr().map_err(unusable)?;
    let acceptor = TcpAcceptor::try_from(listener).map_err(unusable)?;

    // What never ends while we serve.
    let mut tasks = JoinSet::new();
    {
        let (hub, store) = (Arc::clone(&hub), Arc::clone(&store));
        let typing = Arc::clone(&hub);
        tasks.spawn(async move { typing.run_typing().await });
        tasks.spawn(async move { hub.run_loader(store).await });
        let fallback = (Arc::clone(&feed), settings.fallback_poll);
        tasks.spawn(async move { fallback.0.run_fallback(fallback.1).await });
    }
    if notify {
        let (feed, config) = (Arc::clone(&feed), database.listen.clone());
        tasks.spawn(async move { feed.run_listener(config).await });
        let store = Arc::clone(&store);
        let notifier = Arc::clone(&notifier);
        tasks.spawn(async move { notifier.run(store).await });
    }
    let keep = Retention { logs: settings.log_retention, messages: settings.message_retention };
    tasks.spawn(retention::run(Arc::clone(&store), keep, settings.retention_period));
    let attendance = Arc::new(Attendance::default());
    {
        let (attendance, store) = (Arc::clone(&attendance), Arc::clone(&store));
        let (hub, notifier) = (Arc::clone(&hub), Arc::clone(&notifier));
        let tell = move |signal: Signal| {
            hub.offer(&signal);
            notifier.tell(signal);
        };
        tasks.spawn(async move { attendance.run(store, tell).await });
    }
    {
        // Holds a handle on the writer, which is to end before the tasks do.
        let (closing, stopping) =
            (closer::run(writer.clone(), Arc::clone(&store), settings.chat_grace), stopping.clone());
        tasks.spawn(async move { stopping.run_until_cancelled(closing).await.unwrap_or(()) });
    }
    let tickets = Tickets::new(&store.secret("stream_tickets").await?);
    let mut writing = tokio::spawn(writing);

    let limits = Limits {
        chat_grace: settings.chat_grace,
        presence_grace: settings.presence_grace,
        heartbeat: settings.heartbeat,
    };
    let admission = Arc::new(Admission::new(Quota {
        in_all: settings.limits.max_streams,
        of_user: settings.limits.streams_per_user,
    }));
    let api = Arc::new(Api {
        store,
        acknowledger: Acknowledger::new(writer.clone()),
        writer,
        attendance,
        notifier,
        hub,
        feed,
        verifier,
        revocations,
        tickets,
        metrics,
        limits,
        send_rate: SendRate::per_second(settings.limits.sends_per_second),
        admission: Arc::clone(&admission),
        stopping: stopping.clone(),
    });
    let server = server(acceptor, &settings.limits);
    let handle = server.handle();
    let mut serving = tokio::spawn(server.try_serve(service(Arc::clone(&api), &origins)));
    ready(address, &api).await;

    let ended = tokio::select! {
        () = signals.wait() => Ok(()),
        () = database.ended() => Err(AppError::Task("the private Postgres stopped; see its log".into())),
        Some(ended) = tasks.join_next() => Err(AppError::Task(why(&ended))),
        ended = &mut writing => Err(AppError::Task(format!("the writer: {ended:?}"))),
        ended = &mut serving => Err(AppError::Task(format!("{ended:?}"))),
    };
    tracing::info!(open = admission.open(), "stopping");
    // Where something has broken there is nothing to wait for; and who asks a second time does not want to.
    let window = if ended.is_ok() { settings.drain_window } else { Duration::ZERO };
    tokio::select! {
        () = admission.drain(window) => {}
        () = signals.wait() => {}
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    // Streams and polls end first: a graceful stop waits for them.
    stopping.cancel();
    handle.stop_graceful(STOP_PATIENCE - Duration::from_secs(2));
    if !serving.is_finished() && timeout_at(deadline - Duration::from_secs(1), serving).await.is_err() {
        tracing::warn!("connections did not end in time");
    }
    // The last handle on the writer goes with the interface; what it was given is committed before it ends.
    drop(api);
    if !writing.is_finished() && timeout_at(deadline, writing).await.is_err() {
        tracing::warn!("the writer did not end in time");
    }
    tasks.shutdown().await;
    tracing::info!("stopped");
    ended
}

/// The HTTP server, which gives nobody more time than they may have.
fn server(acceptor: TcpAcceptor, limits: &LimitSettings) -> Server<TcpAcceptor> {
    let fuse = FuseConfig::default()
        .with_http1_header_timeout(limits.head_timeout)
        .with_request_body_timeout(limits.body_timeout)
        .with_write_stall_timeout(limits.write_timeout);
    let mut server = Server::new(acceptor).fuse_config(fuse).max_connections(limits.max_connections);
    server.http1_mut().max_buf_size(usize::try_from(limits.max_head).unwrap_or(usize::MAX));
    server
}

fn why(ended: &Result<(), JoinError>) -> String {
    ended.as_ref().map_or_else(ToString::to_string, |()| "it returned".to_owned())
}

/// Listens without delaying small writes: what is accepted inherits that on Linux, and salvo does not set it.
async fn listen(address: &str) -> Result<tokio::net::TcpListener, AppError> {
    let failed = |error| AppError::Listen { address: address.to_owned(), error };
    let mut last = std::io::Error::other("the name has no address");
    for candidate in lookup_host(address).await.map_err(failed)? {
        match bind(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// SIGINT (Ctrl-C) and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
