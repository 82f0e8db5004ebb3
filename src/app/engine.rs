//! The parts that commit, publish and read events, and the tasks that they need.

use std::sync::Arc;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{AppError, Database};
use crate::config::{Feed, Notify, PreparedStatements, Settings};
use crate::domain::{StateUpdate, Topic};
use crate::http::Metrics;
use crate::realtime::{Hub, Listener, PresenceTracker, RemoteObserver, RemoteUpdate, Revocations};
use crate::store::{PLAN_TTL, Prepared, Store, StoreConfig};
use crate::traces::Traces;
use crate::writer::relay::Relay;
use crate::writer::{Acknowledger, Notifier, Writer, WriterConfig, closer};

/// The parts that every request uses.
pub(super) struct Engine {
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hub: Arc<Hub>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) relay: Arc<Relay>,
    pub(super) writer: Writer,
    pub(super) listener: Arc<Listener>,
    pub(super) presence: Arc<PresenceTracker>,
    pub(super) acknowledger: Arc<Acknowledger>,
    observer: Arc<RemoteObserver>,
}

impl Engine {
    /// Connects to the database, and spawns the writer's task. The task ends when all handles on the writer are dropped, and
    /// commits its queued commands first.
    pub(super) async fn start(
        settings: &Settings,
        database: &Database,
        traces: &Arc<Traces>,
    ) -> Result<(Self, JoinHandle<()>), AppError> {
        let store = Arc::new(Store::new(StoreConfig {
            postgres: database.address.clone(),
            connections: settings.database_connections,
            timeout: settings.database_timeout,
            prepared: match settings.prepared_statements {
                PreparedStatements::On => Prepared::On,
                PreparedStatements::Off => Prepared::Off,
            },
            plan_ttl: PLAN_TTL,
        })?);
        let metrics = Arc::new(Metrics::new()?);
        let (hub, relay) = (Arc::new(Hub::default()), Arc::new(Relay::default()));
        let revocations = Arc::new(Revocations::default());
        revocations.refresh(&store).await?;
        let notifier = Arc::new(Notifier::new(settings.notify == Notify::On));
        let config = WriterConfig {
            chat_grace: settings.chat_grace,
            relay: (settings.feed == Feed::On).then(|| Arc::clone(&relay)),
            content_key: store.content_key().await?,
            notifier: Arc::clone(&notifier),
        };
        let (writer, task) = Writer::new(Arc::clone(&store), config, settings.database_timeout, {
            let (hub, relay) = (Arc::clone(&hub), Arc::clone(&relay));
            let (metrics, traces) = (Arc::clone(&metrics), Arc::clone(traces));
            move |committed| {
                hub.publish(&committed.events);
                match &committed.relayed {
                    Some(relayed) => {
                        hub.publish_to_feed(&committed.events, relayed.at, |event| relayed.position(event));
                        relay.relayed_by_batch(relayed);
                    }
                    None => relay.wake(),
                }
                metrics.committed(&committed);
                for event in &committed.events {
                    if let Some(trace) = event.trace {
                        let batch = (committed.commands, committed.duration);
                        traces.committed(trace, event.topic.as_str(), event.seq, batch);
                    }
                }
            }
        });
        let observer = Arc::new(observer(&writer, &hub, &relay));
        let listener =
            Listener::new(Arc::clone(&hub), Arc::clone(&store), Arc::clone(&revocations), Arc::clone(&observer));
        let engine = Self {
            store,
            metrics,
            hub,
            revocations,
            notifier,
            relay,
            writer,
            listener: Arc::new(listener),
            presence: Arc::default(),
            acknowledger: Arc::default(),
            observer,
        };
        Ok((engine, tokio::spawn(task)))
    }

    /// Spawns the tasks that read what other replicas commit, and notify them.
    pub(super) fn spawn_readers(&self, settings: &Settings, database: &Database, tasks: &mut JoinSet<()>) {
        let (typing, hub, store) = (Arc::clone(&self.hub), Arc::clone(&self.hub), Arc::clone(&self.store));
        let observer = Arc::clone(&self.observer);
        tasks.spawn(async move { typing.run_typing_expiry().await });
        tasks.spawn(async move { hub.run_loader(store, observer).await });
        let (listener, period) = (Arc::clone(&self.listener), settings.fallback_poll);
        tasks.spawn(async move { listener.run_fallback(period).await });
        if settings.notify == Notify::On {
            let (listener, address) = (Arc::clone(&self.listener), database.listen.clone());
            tasks.spawn(async move { listener.run_listener(address).await });
            let (notifier, store) = (Arc::clone(&self.notifier), Arc::clone(&self.store));
            tasks.spawn(async move { notifier.run(store).await });
            let (hub, store, lease) = (Arc::clone(&self.hub), Arc::clone(&self.store), self.presence.lease());
            tasks.spawn(async move { hub.run_following(store, lease).await });
        }
        let (presence, store) = (Arc::clone(&self.presence), Arc::clone(&self.store));
        let (hub, notifier) = (Arc::clone(&self.hub), Arc::clone(&self.notifier));
        let publish = move |update: StateUpdate| {
            hub.publish_update(&update);
            notifier.notify(update);
        };
        tasks.spawn(async move { presence.run(store, publish).await });
    }

    /// Spawns the tasks that write without a request. Each holds a handle on the writer until `stopping` is cancelled.
    pub(super) fn spawn_writers(&self, settings: &Settings, stopping: &CancellationToken, tasks: &mut JoinSet<()>) {
        let closing = closer::run(self.writer.clone(), Arc::clone(&self.store), settings.chat_grace);
        let (acknowledger, writer) = (Arc::clone(&self.acknowledger), self.writer.clone());
        spawn_until(stopping, tasks, closing);
        spawn_until(stopping, tasks, async move { acknowledger.run(writer).await });
    }
}

/// Spawns a task that holds a handle on the writer. It ends when `stopping` is cancelled, because the writer must end before the
/// tasks that it uses.
pub(super) fn spawn_until(
    stopping: &CancellationToken,
    tasks: &mut JoinSet<()>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let stopping = stopping.clone();
    tasks.spawn(async move { stopping.run_until_cancelled(task).await.unwrap_or(()) });
}

/// Creates the observer of what other replicas commit: it updates the ride cache, and wakes the relay for a reader of the feed.
fn observer(writer: &Writer, hub: &Arc<Hub>, relay: &Arc<Relay>) -> RemoteObserver {
    let ride_cache = writer.ride_cache();
    let (hub, relay) = (Arc::clone(hub), Arc::clone(relay));
    RemoteObserver::new(move |update| match update {
        RemoteUpdate::Heads(heads) => {
            ride_cache.mark_stale(heads);
            if heads.keys().any(|topic| !topic.is_feed()) && hub.has_readers(&Topic::feed()) {
                relay.wake();
            }
        }
        RemoteUpdate::Events { topic, after, events, requested_at } => {
            ride_cache.apply_events(topic, after, events, requested_at);
        }
    })
}
