//! Starts webhooks.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::config::{Feed, Settings};
use crate::http::Metrics;
use crate::store::Store;
use crate::webhooks::{Retries, Webhooks, WebhooksConfig};

/// Starts the task that delivers webhooks. Without a feed the task delivers nothing. Cancelling `stopping` ends it; it then
/// releases its leases.
pub(super) async fn start(
    store: &Arc<Store>,
    metrics: &Arc<Metrics>,
    settings: &Settings,
    receiver: Option<SocketAddr>,
    stopping: &CancellationToken,
) -> Result<(Arc<Webhooks>, JoinHandle<()>), AppError> {
    let config = WebhooksConfig {
        allow_hosts: settings.webhook_allow_hosts.clone(),
        allow_socket: receiver,
        retries: Retries { delays: settings.webhook_retries.clone(), give_up: settings.webhook_give_up },
        period: settings.fallback_poll,
    };
    let webhooks = Arc::new(Webhooks::new(Arc::clone(store), config).await?);
    let (delivering, has_feed) = (Arc::clone(&webhooks), settings.feed == Feed::On);
    let (metrics, stopping) = (Arc::clone(metrics), stopping.clone());
    let task = tokio::spawn(async move {
        if has_feed {
            delivering.run(stopping, move |outcome| metrics.webhook_attempted(outcome)).await;
        } else {
            stopping.cancelled().await;
        }
    });
    Ok((webhooks, task))
}
