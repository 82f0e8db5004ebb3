//! Starts what the platform uses: the feed's relay, webhooks, undelivered events and Web Push.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::{AppError, push, webhooks};
use crate::config::{Feed, Settings};
use crate::domain::Topic;
use crate::push::WebPush;
use crate::shards::Shard;
use crate::webhooks::Webhooks;
use crate::writer::relay::FeedReaders;
use crate::writer::undelivered;

/// The platform's parts, and their tasks. The tasks end when `stopping` is cancelled, and release their leases first.
pub(super) struct Platform {
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) push: Option<Arc<WebPush>>,
    pub(super) webhook_task: JoinHandle<()>,
    pub(super) push_task: JoinHandle<()>,
}

impl Platform {
    /// Starts the parts that the settings enable. `receiver` is the address at which a demo's console receives webhooks.
    pub(super) async fn start(
        engine: &Engine,
        settings: &Settings,
        receiver: Option<SocketAddr>,
        stopping: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, AppError> {
        let (store, metrics) = (&engine.first().store, &engine.metrics);
        let (webhooks, webhook_task) = webhooks::start(store, metrics, settings, receiver, stopping).await?;
        let (push, push_task) = push::start(store, metrics, settings, stopping).await?;
        if settings.feed == Feed::On {
            spawn_relay(engine.first(), settings, &webhooks, push.as_ref(), tasks);
        }
        Ok(Self { webhooks, push, webhook_task, push_task })
    }
}

/// Spawns the relay, which wakes the feed's readers on all replicas, and the search for undelivered messages.
fn spawn_relay(
    shard: &Shard,
    settings: &Settings,
    webhooks: &Arc<Webhooks>,
    push: Option<&Arc<WebPush>>,
    tasks: &mut JoinSet<()>,
) {
    let is_read = {
        let (webhooks, hub) = (Arc::clone(webhooks), Arc::clone(&shard.hub));
        move || webhooks.has_active() || hub.has_readers(&Topic::feed())
    };
    let on_appended = {
        let (webhooks, hub) = (Arc::clone(webhooks), Arc::clone(&shard.hub));
        let notifier = Arc::clone(&shard.notifier);
        move |last| {
            hub.hint([(Topic::feed(), last)]);
            webhooks.wake();
            notifier.notify_heads([(Topic::feed(), last)].into());
        }
    };
    shard.relay.connect(FeedReaders { is_read: Box::new(is_read), on_appended: Box::new(on_appended) });
    if let Some(push) = push {
        let (push, relay) = (Arc::clone(push), Arc::clone(&shard.relay));
        let (store, push_after) = (Arc::clone(&shard.store), settings.push_after);
        let on_reports = move || {
            relay.wake_now();
            push.wake();
        };
        tasks.spawn(async move { undelivered::run(store, push_after, on_reports).await });
    }
    let (relay, store, period) = (Arc::clone(&shard.relay), Arc::clone(&shard.store), settings.fallback_poll);
    tasks.spawn(async move { relay.run(store, period).await });
}
