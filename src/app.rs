//! Starts the parts of the server in order, runs them, and stops them in the reverse order.

mod addresses;
pub(crate) mod database;
mod engine;
mod error;
mod listeners;
mod maintenance;
pub(crate) mod moderation;
mod platform;
mod push;
mod records;
mod running;
mod shard;
mod signals;
mod tasks;
pub(crate) mod validated;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::addresses::Addresses;
pub use self::database::Database;
use self::engine::Engine;
pub use self::error::AppError;
pub use self::listeners::Address;
use self::listeners::Listeners;
use self::platform::Platform;
use self::records::Records;
use self::running::{Pending, Running};
use self::signals::Signals;
use self::tasks::spawn_until;
use self::validated::ValidatedSettings;
use crate::auth::Tickets;
use crate::config::{Feed, Settings};
use crate::demo::Demo;
use crate::http::{Admission, Api, Interruptions, Limits, SendRateLimiter, StreamQuota};
use crate::memory::Memory;
use crate::serving::{self, Shutdown};
use crate::writer::Broadcaster;

/// Runs the server until a signal stops it. Calls `ready` with the address once the server handles requests.
///
/// `is_demo` adds the demo's rides and console.
pub async fn serve(settings: Settings, is_demo: bool, ready: impl AsyncFnOnce(Address, &Api)) -> Result<(), AppError> {
    // Bound and validated first, before anything is created: a secret in the data directory, a private Postgres.
    let addresses = Addresses::bind(&settings.addresses).await?;
    let validated = ValidatedSettings::new(&settings, is_demo).await?;
    serving::raise_file_limit(settings.limits.max_connections);
    let mut signals = Signals::new().map_err(AppError::Signals)?;
    let mut database = tokio::select! {
        database = Database::open(&settings.database, &settings.postgres, None) => database?,
        () = signals.wait() => return Ok(()),
    };
    let served = run(&settings, &mut database, addresses, validated, signals, ready).await;
    let served = served.map_err(|error| database.add_address(error));
    let closed = database.close().await;
    served.and(closed)
}

/// Starts the parts in the order in which they need each other, waits for a signal, and stops them in the reverse order.
async fn run(
    settings: &Settings,
    database: &mut Database,
    addresses: Addresses,
    validated: ValidatedSettings,
    mut signals: Signals,
    ready: impl AsyncFnOnce(Address, &Api),
) -> Result<(), AppError> {
    let (stopping, mut background) = (CancellationToken::new(), JoinSet::new());
    let (engine, writer) = Engine::start(settings, database, &validated.traces).await?;
    let listeners = Listeners::open(addresses, &settings.addresses, validated.certificate.is_some())?;
    let address = listeners.address;
    let receiver = listeners.receiver(settings, validated.is_demo);

    engine.spawn_readers(settings, &mut background);
    let platform = Platform::start(&engine, settings, receiver, &stopping, &mut background).await?;
    let stores = Arc::new(engine.stores());
    let records = Records::start(&stores, settings, &mut background);
    maintenance::spawn(&engine, settings, &validated, &mut background)?;
    engine.spawn_writers(settings, &stopping, &mut background);
    let (broadcaster, broadcasts) = Broadcaster::new(stopping.clone());
    background.spawn(broadcasts);

    let (notifiers, traces) = (engine.notifiers(), Arc::clone(&validated.traces));
    let tickets = Tickets::new(&stores.first().secret("stream_tickets").await?);
    let Platform { webhooks, push, webhook_task, push_task } = platform;
    let admission = Arc::new(Admission::new(StreamQuota {
        total: settings.limits.max_streams,
        per_user: settings.limits.streams_per_user,
    }));
    let interruptions = Arc::new(Interruptions::new(
        stopping.clone(),
        Arc::clone(&admission),
        Arc::clone(&engine.revocations),
        Arc::clone(&validated.verifier),
    ));
    let announcing = Arc::clone(&interruptions);
    background.spawn(async move { announcing.run().await });
    let api = Arc::new(Api {
        logs: Arc::new(engine.logs()),
        broadcaster,
        webhooks,
        relay: (settings.feed == Feed::On).then(|| Arc::clone(&engine.first().relay)),
        push,
        moderation: validated.moderation,
        verifier: validated.verifier,
        jwks: validated.jwks,
        revocations: Arc::clone(&engine.revocations),
        tickets,
        metrics: Arc::clone(&engine.metrics),
        traces: Arc::clone(&traces),
        audit: Arc::clone(&records.audit),
        handovers: Arc::clone(&records.handovers),
        limits: Limits {
            presence_grace: settings.presence_grace,
            heartbeat: settings.heartbeat,
            body_deadline: settings.limits.body_deadline,
        },
        public_url: settings.public_url.clone(),
        send_rate: SendRateLimiter::per_second(settings.limits.sends_per_second),
        admission,
        memory: Arc::new(Memory::new(settings.limits.memory / 4)),
        interruptions,
        shards: engine.into_shards(),
    });
    let demo = validated.is_demo.then(|| Demo::new(receiver));
    let console = listeners.console(settings, demo.as_ref());
    if let Some(demo) = demo {
        spawn_until(&stopping, &mut background, demo.run(Arc::clone(&api)));
    }
    let shutdown = Shutdown::default();
    let server =
        listeners.serve(&api, settings, &validated.origins, validated.certificate, console.as_ref(), &shutdown);
    let mut running =
        Running { server, writer, webhooks: webhook_task, push: push_task, background, shutdown, stopping };
    tracing::info!(replica.id = stores.first().origin.id(), "server started");
    ready(address, &api).await;

    let ended = tokio::select! {
        () = signals.wait() => Ok(()),
        () = database.exited() => Err(AppError::Task("the private Postgres exited; see its log".into())),
        error = running.failed() => Err(error),
    };
    tracing::info!(connections = api.admission.open(), "server stopping");
    // After a failure there is no reason to drain slowly. A second signal ends the drain.
    let window = if ended.is_ok() { settings.drain_window } else { Duration::ZERO };
    tokio::select! {
        () = api.admission.drain(window) => {}
        () = signals.wait() => {}
    }
    running.stop(api, Pending { stores, notifiers, records, traces }).await;
    tracing::info!("server stopped");
    ended
}
