//! The parts of all shards, and what they share.

use std::sync::Arc;

use prometheus::Histogram;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::shard::{ShardEngine, Shared};
use super::{AppError, Database};
use crate::config::{Feed, Settings};
use crate::domain::{LocalShard, ShardMap, Sharded};
use crate::http::Metrics;
use crate::realtime::{Revocations, ShardLog};
use crate::shards::Shard;
use crate::store::{Store, pool_wait_histogram};
use crate::traces::Traces;
use crate::writer::Notifier;

/// The minimum number of connections to each of several shards. Batches that wait for locks leave some of them to reads.
const MIN_CONNECTIONS: usize = 5;

/// The parts that every request uses.
pub(super) struct Engine {
    pub(super) metrics: Arc<Metrics>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) pool_wait: Histogram,
    shards: Sharded<ShardEngine>,
}

impl Engine {
    /// Connects to the databases, and spawns the writers' tasks. The returned task ends when all handles on the writers are dropped,
    /// and their queued commands are committed.
    pub(super) async fn start(
        settings: &Settings,
        database: &Database,
        traces: &Arc<Traces>,
    ) -> Result<(Self, JoinHandle<()>), AppError> {
        if settings.feed == Feed::On && database.shards.map() != ShardMap::ONE {
            return Err(AppError::Setting("RIDEWIRE_FEED: must be off in a deployment with several shards".to_owned()));
        }
        let shared = Shared {
            metrics: Arc::new(Metrics::new()?),
            traces,
            revocations: Arc::new(Revocations::default()),
            pool_wait: pool_wait_histogram()?,
            connections_per_shard: connections_per_shard(settings.database_connections, database.shards.map()),
        };
        let mut writers = JoinSet::new();
        let shards = Sharded::try_new(database.shards.map(), async |id| {
            let shard = LocalShard { id, map: database.shards.map() };
            ShardEngine::start(shard, database.shards.get(id), settings, &shared, &mut writers).await
        });
        let shards = shards.await?;
        let Shared { metrics, revocations, pool_wait, .. } = shared;
        // A panic of one of them is a panic of this task.
        let writers = tokio::spawn(async move { drop(writers.join_all().await) });
        Ok((Self { metrics, revocations, pool_wait, shards }, writers))
    }

    /// Returns the parts of the first shard.
    pub(super) fn first(&self) -> &Shard {
        &self.shards.first().shard
    }

    /// Returns the parts of all shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().map(|engine| &engine.shard)
    }

    /// Returns the logs of all shards.
    pub(super) fn logs(&self) -> Sharded<ShardLog> {
        self.shards.map_values(|ShardEngine { shard, .. }| ShardLog {
            hub: Arc::clone(&shard.hub),
            store: Arc::clone(&shard.store),
        })
    }

    /// Returns the stores of all shards.
    pub(super) fn stores(&self) -> Sharded<Arc<Store>> {
        self.shards.map_values(|engine| Arc::clone(&engine.shard.store))
    }

    /// Returns the notifiers of all shards.
    pub(super) fn notifiers(&self) -> Sharded<Arc<Notifier>> {
        self.shards.map_values(|engine| Arc::clone(&engine.shard.notifier))
    }

    /// Returns the parts of all shards. They hold the last handles on the writers.
    pub(super) fn into_shards(self) -> Sharded<Shard> {
        self.shards.map_values(|engine| engine.shard.clone())
    }

    /// Spawns the tasks that read what other replicas commit, and notify them.
    pub(super) fn spawn_readers(&self, settings: &Settings, tasks: &mut JoinSet<()>) {
        self.shards.iter().for_each(|engine| engine.spawn_readers(settings, tasks));
    }

    /// Spawns the tasks that write without a request. Each holds a handle on a writer until `stopping` is cancelled.
    pub(super) fn spawn_writers(&self, settings: &Settings, stopping: &CancellationToken, tasks: &mut JoinSet<()>) {
        let writers = self.shards.map_values(|engine| engine.shard.writer.clone());
        self.shards.iter().for_each(|engine| engine.spawn_writers(settings, &writers, stopping, tasks));
    }
}

/// Returns the part of the connections that each shard has.
fn connections_per_shard(connections: usize, shards: ShardMap) -> usize {
    match usize::from(shards.count()) {
        1 => connections,
        shards => connections.div_ceil(shards).max(MIN_CONNECTIONS),
    }
}
