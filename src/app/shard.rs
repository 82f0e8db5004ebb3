//! The parts of one shard that commit, publish and read events, and the tasks that they need.

use std::sync::Arc;

use prometheus::Histogram;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::AppError;
use super::database::ShardAddresses;
use super::tasks::spawn_until;
use crate::config::{Feed, Notify, PreparedStatements, Settings};
use crate::domain::{LocalShard, ShardId, Sharded, StateUpdate, Topic};
use crate::http::Metrics;
use crate::realtime::{Hub, Listener, RemoteObserver, RemoteUpdate, Revocations};
use crate::shards::{Shard, publish};
use crate::store::{Address, PLAN_TTL, Prepared, Store, StoreConfig};
use crate::traces::Traces;
use crate::writer::outbox::OutboxSender;
use crate::writer::relay::Relay;
use crate::writer::{BatchRules, Notifier, Writer, WriterConfig, closer};

/// What the shards share.
pub(super) struct Shared<'a> {
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: &'a Arc<Traces>,
    pub(super) revocations: Arc<Revocations>,
    /// The maximum number of connections to the database of each shard.
    pub(super) connections_per_shard: usize,
    pub(super) pool_wait: Histogram,
}

/// A shard, and what its tasks use beside it.
pub(super) struct ShardEngine {
    pub(super) shard: Shard,
    observer: Arc<RemoteObserver>,
    listen: Address,
}

impl ShardEngine {
    /// Connects to the shard's database, and spawns its writer's task. The task ends when all handles on the writer are dropped, and
    /// commits its queued commands first.
    pub(super) async fn start(
        shard: LocalShard,
        addresses: &ShardAddresses,
        settings: &Settings,
        shared: &Shared<'_>,
        writers: &mut JoinSet<()>,
    ) -> Result<Self, AppError> {
        let store = Arc::new(Store::new(StoreConfig {
            postgres: addresses.pool.clone(),
            connections: shared.connections_per_shard,
            timeout: settings.database_timeout,
            prepared: match settings.prepared_statements {
                PreparedStatements::On => Prepared::On,
                PreparedStatements::Off => Prepared::Off,
            },
            plan_ttl: PLAN_TTL,
            pool_wait: shared.pool_wait.clone(),
        })?);
        let (hub, relay) = (Arc::new(Hub::default()), Arc::new(Relay::default()));
        let outbox = Arc::new(OutboxSender::default());
        let revocations = (shard.id == ShardId::FIRST).then(|| Arc::clone(&shared.revocations));
        if let Some(revocations) = &revocations {
            revocations.refresh(&store).await?;
        }
        let notifier = Arc::new(Notifier::new(settings.notify == Notify::On));
        let config = WriterConfig {
            rules: BatchRules { chat_grace: settings.chat_grace, shard },
            relay: (settings.feed == Feed::On).then(|| Arc::clone(&relay)),
            content_key: store.content_key().await?,
            notifier: Arc::clone(&notifier),
        };
        let (writer, task) = Writer::new(Arc::clone(&store), config, settings.database_timeout, {
            let (hub, relay, outbox) = (Arc::clone(&hub), Arc::clone(&relay), Arc::clone(&outbox));
            let (metrics, traces) = (Arc::clone(&shared.metrics), Arc::clone(shared.traces));
            move |committed| {
                hub.publish(&committed.events);
                match &committed.relayed {
                    Some(relayed) => {
                        hub.publish_to_feed(&committed.events, relayed.at, |event| relayed.position(event));
                        relay.relayed_by_batch(relayed);
                    }
                    None => relay.wake(),
                }
                if committed.has_outbox_rows {
                    outbox.wake();
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
        writers.spawn(task);
        let observer = Arc::new(observer(&writer, &hub, &relay));
        let listener = Listener::new(Arc::clone(&hub), Arc::clone(&store), revocations, Arc::clone(&observer));
        let shard = Shard {
            id: shard.id,
            store,
            writer,
            acknowledger: Arc::default(),
            presence: Arc::default(),
            notifier,
            hub,
            listener: Arc::new(listener),
            relay,
            outbox,
        };
        Ok(Self { shard, observer, listen: addresses.listen.clone() })
    }

    /// Spawns the tasks that read what other replicas commit, and notify them.
    pub(super) fn spawn_readers(&self, settings: &Settings, tasks: &mut JoinSet<()>) {
        let shard = &self.shard;
        let (typing, hub, store) = (Arc::clone(&shard.hub), Arc::clone(&shard.hub), Arc::clone(&shard.store));
        let observer = Arc::clone(&self.observer);
        tasks.spawn(async move { typing.run_typing_expiry().await });
        tasks.spawn(async move { hub.run_loader(store, observer).await });
        let (listener, period) = (Arc::clone(&shard.listener), settings.fallback_poll);
        tasks.spawn(async move { listener.run_fallback(period).await });
        if settings.notify == Notify::On {
            let (listener, address) = (Arc::clone(&shard.listener), self.listen.clone());
            tasks.spawn(async move { listener.run_listener(address).await });
            let (notifier, store) = (Arc::clone(&shard.notifier), Arc::clone(&shard.store));
            tasks.spawn(async move { notifier.run(store).await });
            let (hub, store, lease) = (Arc::clone(&shard.hub), Arc::clone(&shard.store), shard.presence.lease());
            tasks.spawn(async move { hub.run_following(store, lease).await });
        }
        let (presence, store) = (Arc::clone(&shard.presence), Arc::clone(&shard.store));
        // A handle on the whole shard would keep the writer from ending.
        let (hub, notifier) = (Arc::clone(&shard.hub), Arc::clone(&shard.notifier));
        let publish = move |update: StateUpdate| publish(&hub, &notifier, update);
        tasks.spawn(async move { presence.run(store, publish).await });
    }

    /// Spawns the tasks that write without a request. Each holds a handle on the writer until `stopping` is cancelled.
    pub(super) fn spawn_writers(
        &self,
        settings: &Settings,
        writers: &Sharded<Writer>,
        stopping: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        let shard = &self.shard;
        let closing = closer::run(shard.writer.clone(), Arc::clone(&shard.store), settings.chat_grace);
        let (acknowledger, writer) = (Arc::clone(&shard.acknowledger), shard.writer.clone());
        spawn_until(stopping, tasks, closing);
        spawn_until(stopping, tasks, async move { acknowledger.run(writer).await });
        if writers.map().count() > 1 {
            let (outbox, from, store) = (Arc::clone(&shard.outbox), shard.id, Arc::clone(&shard.store));
            let (writers, period) = (writers.clone(), settings.fallback_poll);
            spawn_until(stopping, tasks, async move { outbox.run(from, store, writers, period).await });
        }
    }
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
