//! Starts everything, in order, and stops it in the opposite one.

mod addresses;
pub(crate) mod database;
mod error;
pub(crate) mod moderation;
mod push;
mod records;
mod signals;
pub(crate) mod validated;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub(crate) use self::addresses::Addresses;
pub use self::database::Database;
pub use self::error::AppError;
use self::records::Records;
use self::signals::Signals;
use crate::auth::{Tickets, Verifier};
use crate::config::{self, Feed, Notify, PreparedStatements, Settings};
use crate::demo::Demo;
use crate::domain::{Signal, Topic};
use crate::http::guard::Origin;
use crate::http::{Admission, Api, Console, Limits, Metrics, Quota, SendRate, Served, Watched, service};
use crate::jwks::Jwks;
use crate::keys;
use crate::memory::Memory;
use crate::moderation::Moderation;
use crate::realtime::{Attendance, Heard, Heeding, Hub, Listener, Revocations};
use crate::serving::{self, Certificate, Stop};
use crate::store::{PLANS_AGE, Prepared, Retention, Store, StoreConfig};
use crate::traces::Traces;
use crate::writer::relay::Relay;
use crate::writer::{Acknowledger, Broadcaster, Notifier, Terms, Writer, closer, retention, undelivered};

/// How long requests in hand have to finish when we stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What of the settings can be wrong. It is found before anything is started.
struct Given {
    verifier: Arc<Verifier>,
    jwks: Option<Arc<Jwks>>,
    traces: Arc<Traces>,
    origins: Vec<Origin>,
    certificate: Option<Arc<Certificate>>,
    moderation: Option<Moderation>,
    is_demo: bool,
}

impl Given {
    async fn of(settings: &Settings, is_demo: bool) -> Result<Self, AppError> {
        push::check(settings)?;
        let origins = validated::origins(settings)?;
        let certificate = validated::certificate(settings)?;
        let moderation = moderation::of(&settings.moderation)?;
        let traces = validated::traces(settings)?;
        let keys = keys::verifying(&settings.keys, &settings.database)?;
        let verifier = Verifier::new(keys, keys::expectations(&settings.keys));
        let (verifier, jwks) = match settings.keys.jwks.as_deref() {
            Some(source) => {
                let verifier = Arc::new(verifier.with_published());
                let jwks = Jwks::new(source.parse()?, Arc::clone(&verifier), settings.jwks_period);
                jwks.start().await?;
                (verifier, Some(Arc::new(jwks)))
            }
            None => (Arc::new(verifier), None),
        };
        Ok(Self { traces: Arc::new(traces), verifier, jwks, origins, certificate, moderation, is_demo })
    }
}

/// Where requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub socket: SocketAddr,
    /// Whether TLS is spoken there.
    pub is_secure: bool,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.is_secure { "https" } else { "http" }, self.socket)
    }
}

/// Serves until a signal asks to stop; with a ride to look at, in a demo. `ready` is called with the address once requests
/// are answered.
pub async fn serve(settings: Settings, is_demo: bool, ready: impl AsyncFnOnce(Address, &Api)) -> Result<(), AppError> {
    // Before anything is made: a secret in the data directory, a private Postgres.
    let addresses = Addresses::bind(&settings.addresses).await?;
    let given = Given::of(&settings, is_demo).await?;
    serving::allow_files(settings.limits.max_connections);
    let mut signals = Signals::new().map_err(AppError::Signals)?;
    let mut database = tokio::select! {
        database = Database::open(&settings.database, &settings.postgres) => database?,
        () = signals.wait() => return Ok(()),
    };
    let served = serve_with(settings, &mut database, addresses, given, signals, ready).await;
    let served = served.map_err(|error| database.named(error));
    let closed = database.close().await;
    served.and(closed)
}

async fn serve_with(
    settings: Settings,
    database: &mut Database,
    addresses: Addresses,
    given: Given,
    mut signals: Signals,
    ready: impl AsyncFnOnce(Address, &Api),
) -> Result<(), AppError> {
    let store = Arc::new(Store::new(StoreConfig {
        postgres: database.address.clone(),
        connections: settings.database_connections,
        patience: settings.database_timeout,
        prepared: match settings.prepared_statements {
            PreparedStatements::On => Prepared::On,
            PreparedStatements::Off => Prepared::Off,
        },
        plans_age: PLANS_AGE,
    })?);
    let metrics = Arc::new(Metrics::new()?);
    let hub = Arc::new(Hub::default());
    let revocations = Arc::new(Revocations::default());
    revocations.refresh(&store).await?;
    let stopping = CancellationToken::new();
    let notify = settings.notify == Notify::On;
    let notifier = Arc::new(Notifier::new(notify));
    let has_feed = settings.feed == Feed::On;
    let (chat_grace, content_key) = (settings.chat_grace, store.content_key().await?);
    let terms = Terms { chat_grace, has_feed, content_key, notifier: Arc::clone(&notifier) };
    let relay = Arc::new(Relay::default());
    let (writer, writing) = Writer::new(Arc::clone(&store), terms, settings.database_timeout, {
        let (hub, metrics, traces) = (Arc::clone(&hub), Arc::clone(&metrics), Arc::clone(&given.traces));
        let relay = Arc::clone(&relay);
        move |committed| {
            hub.publish(&committed.events);
            relay.wake();
            metrics.committed(&committed);
            for event in &committed.events {
                if let Some(trace) = event.trace {
                    traces.committed(trace, event.topic.as_str(), event.seq, (committed.jobs, committed.took));
                }
            }
        }
    });

    let heeding = {
        let known = writer.known();
        let (relay, hub) = (Arc::clone(&relay), Arc::clone(&hub));
        Arc::new(Heeding::new(move |heard| match heard {
            Heard::Heads(heads) => {
                known.hear(heads);
                if heads.keys().any(|topic| !topic.is_feed()) && hub.is_read(&Topic::feed()) {
                    relay.wake();
                }
            }
            Heard::Events { topic, after, events, asked } => known.follow(topic, after, events, asked),
        }))
    };
    let listening =
        Arc::new(Listener::new(Arc::clone(&hub), Arc::clone(&store), Arc::clone(&revocations), Arc::clone(&heeding)));

    let (listener, admin) = addresses.listen()?;
    let socket = listener.local_addr().map_err(|error| AppError::Listen {
        setting: "RIDEWIRE_LISTEN",
        address: settings.addresses.listen.clone(),
        error,
    })?;
    let address = Address { socket, is_secure: given.certificate.is_some() };

    // What never ends while we serve.
    let mut tasks = JoinSet::new();
    {
        let (hub, store) = (Arc::clone(&hub), Arc::clone(&store));
        let typing = Arc::clone(&hub);
        tasks.spawn(async move { typing.run_typing().await });
        tasks.spawn(async move { hub.run_loader(store, heeding).await });
        let fallback = (Arc::clone(&listening), settings.fallback_poll);
        tasks.spawn(async move { fallback.0.run_fallback(fallback.1).await });
    }
    if notify {
        let (listening, address) = (Arc::clone(&listening), database.listen.clone());
        tasks.spawn(async move { listening.run_listener(address).await });
        let store = Arc::clone(&store);
        let notifier = Arc::clone(&notifier);
        tasks.spawn(async move { notifier.run(store).await });
    }
    let receiver = webhooks::receiver(&settings, given.is_demo, &listener, admin.as_ref());
    let (webhooks, mut delivering) = webhooks::start(&store, &metrics, &settings, receiver, &stopping).await?;
    let (push, mut pushing) = push::start(&store, &metrics, &settings, &stopping).await?;
    if has_feed {
        let webhooks = Arc::clone(&webhooks);
        let is_read = {
            let (webhooks, hub) = (Arc::clone(&webhooks), Arc::clone(&hub));
            move || webhooks.has_active() || hub.is_read(&Topic::feed())
        };
        let (relay, store, hub, notifier) =
            (Arc::clone(&relay), Arc::clone(&store), Arc::clone(&hub), Arc::clone(&notifier));
        let relayed = move |last| {
            hub.hint([(Topic::feed(), last)]);
            webhooks.wake();
            notifier.tell_heads([(Topic::feed(), last)].into());
        };
        let (for_undelivered, and_relayed) = (Arc::clone(&store), relayed.clone());
        tasks.spawn(async move { relay.run(store, settings.fallback_poll, is_read, relayed).await });
        if let Some(push) = push.clone() {
            let push_after = settings.push_after;
            let relayed = move |last| {
                and_relayed(last);
                push.wake();
            };
            tasks.spawn(async move { undelivered::run(for_undelivered, push_after, relayed).await });
        }
    }
    let records = Records::start(&store, &settings, &mut tasks);
    let keep = Retention {
        logs: settings.log_retention,
        messages: settings.message_retention,
        feed: settings.feed_retention,
        handovers: settings.message_trace_retention,
        audit: settings.audit_retention,
    };
    let certificate = given.certificate.clone();
    metrics.watch(Watched {
        pool_wait: store.pool_wait(),
        retention: keep,
        certificate_expiry: Box::new(move || certificate.as_ref()?.expires_at()),
    })?;
    if let Some(jwks) = given.jwks.clone() {
        tasks.spawn(jwks.run());
    }
    tasks.spawn(serving::renew(given.certificate.clone()));
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
    let acknowledger = Arc::new(Acknowledger::default());
    {
        // As above.
        let (acknowledger, writer, stopping) = (Arc::clone(&acknowledger), writer.clone(), stopping.clone());
        tasks.spawn(async move { stopping.run_until_cancelled(acknowledger.run(writer)).await.unwrap_or(()) });
    }
    let (broadcaster, broadcasting) = Broadcaster::new(stopping.clone());
    tasks.spawn(broadcasting);
    let tickets = Tickets::new(&store.secret("stream_tickets").await?);
    let mut writing = tokio::spawn(writing);

    let limits = Limits {
        presence_grace: settings.presence_grace,
        heartbeat: settings.heartbeat,
        body_deadline: settings.limits.body_deadline,
    };
    let memory = Arc::new(Memory::new(settings.limits.memory / 4));
    let admission = Arc::new(Admission::new(Quota {
        in_all: settings.limits.max_streams,
        of_user: settings.limits.streams_per_user,
    }));
    let api = Arc::new(Api {
        store: Arc::clone(&store),
        acknowledger,
        broadcaster,
        writer,
        attendance,
        notifier: Arc::clone(&notifier),
        hub,
        listener: listening,
        webhooks,
        relay: has_feed.then_some(relay),
        push,
        moderation: given.moderation,
        verifier: given.verifier,
        jwks: given.jwks,
        revocations,
        tickets,
        metrics,
        traces: Arc::clone(&given.traces),
        audit: Arc::clone(&records.audit),
        handovers: Arc::clone(&records.handovers),
        limits,
        public_url: settings.public_url.clone(),
        send_rate: SendRate::per_second(settings.limits.sends_per_second),
        admission: Arc::clone(&admission),
        memory: Arc::clone(&memory),
        stopping: stopping.clone(),
    });
    let demo = given.is_demo.then(|| Demo::new(receiver));
    let console = {
        let is_on = settings.console.map_or(demo.is_some(), |console| console == config::Console::On);
        // Whom a demo speaks for is for those on this machine alone.
        let is_private = admin.as_ref().unwrap_or(&listener).local_addr().is_ok_and(|at| at.ip().is_loopback());
        let people = demo.as_ref().filter(|_| is_private).and_then(|demo| demo.people(&settings));
        is_on.then(|| Arc::new(Console::new(people)))
    };
    if let Some(demo) = demo {
        // A handle on the writer, as above.
        let (driving, stopping) = (demo.run(Arc::clone(&api)), stopping.clone());
        tasks.spawn(async move { stopping.run_until_cancelled(driving).await.unwrap_or(()) });
    }
    let stop = Stop::default();
    let mut serving = tokio::spawn({
        let (served, by_public, by_operators) = match (&admin, &console) {
            (None, console) => (Served::All, console.as_ref(), None),
            (Some(_), console) => (Served::Public, None, console.as_ref()),
        };
        let public = service(Arc::clone(&api), &given.origins, served, by_public);
        // The console has the interface beside it.
        let served = if by_operators.is_some() { Served::All } else { Served::Operations };
        let for_operators = service(Arc::clone(&api), &[], served, by_operators);
        let (certificate, limits, stop) = (given.certificate, settings.limits.clone(), stop.clone());
        async move {
            let public = serving::serve(listener, &public, certificate, &limits, &memory, stop.clone());
            let for_operators = async {
                if let Some(listener) = admin {
                    serving::serve(listener, &for_operators, None, &limits, &memory, stop).await;
                }
            };
            tokio::join!(public, for_operators);
        }
    });
    tracing::info!(replica.id = store.origin.id(), "started");
    ready(address, &api).await;

    let ended = tokio::select! {
        () = signals.wait() => Ok(()),
        () = database.ended() => Err(AppError::Task("the private Postgres stopped; see its log".into())),
        Some(ended) = tasks.join_next() => Err(AppError::Task(why(&ended))),
        ended = &mut delivering => Err(AppError::Task(format!("webhooks: {ended:?}"))),
        ended = &mut pushing => Err(AppError::Task(format!("Web Push: {ended:?}"))),
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
    stop.gently.cancel();
    if !serving.is_finished() && timeout_at(deadline - Duration::from_secs(2), &mut serving).await.is_err() {
        tracing::warn!("connections did not end in time");
        stop.now.cancel();
        drop(timeout_at(deadline - Duration::from_secs(1), serving).await);
    }
    // The last handle on the writer goes with the interface; what it was given is committed before it ends.
    drop(api);
    if !writing.is_finished() && timeout_at(deadline, writing).await.is_err() {
        tracing::warn!("the writer did not end in time");
    }
    if !delivering.is_finished() && timeout_at(deadline, delivering).await.is_err() {
        tracing::warn!("webhook deliveries did not end in time");
    }
    if !pushing.is_finished() && timeout_at(deadline, pushing).await.is_err() {
        tracing::warn!("pushes did not end in time");
    }
    // Where the last commits were large, nobody has been told yet.
    drop(timeout_at(deadline, notifier.tell_all(&store)).await);
    drop(timeout_at(deadline, records.flush(&store)).await);
    tasks.shutdown().await;
    drop(spawn_blocking(move || given.traces.finish()).await);
    tracing::info!("stopped");
    ended
}

fn why(ended: &Result<(), JoinError>) -> String {
    ended.as_ref().map_or_else(ToString::to_string, |()| "it returned".to_owned())
}
