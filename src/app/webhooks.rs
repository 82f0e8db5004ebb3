//! Starts webhooks.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::config::{Console, Feed, Settings};
use crate::http::Metrics;
use crate::store::Store;
use crate::webhooks::{Retries, Webhooks, WebhooksConfig};

/// Where a demo's console receives webhooks itself: at its own address, if that is a loopback address without TLS. A server that is no
/// demo has none.
pub(super) fn receiver(
    settings: &Settings,
    is_demo: bool,
    public: &TcpListener,
    admin: Option<&TcpListener>,
) -> Option<SocketAddr> {
    let is_plain = admin.is_some() || settings.addresses.tls_certificate.is_none();
    let is_on = is_demo && settings.console != Some(Console::Off) && settings.feed == Feed::On;
    let address = admin.unwrap_or(public).local_addr().ok()?;
    (is_on && is_plain && address.ip().is_loopback()).then_some(address)
}

/// Webhooks, and the task that delivers, where there is a feed. It gives its leases back when it is stopped, and ends.
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
