//! Starts Web Push.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::config::{Feed, Settings};
use crate::http::Metrics;
use crate::push::{PushConfig, WebPush};
use crate::store::Store;

/// Validates the settings of Web Push.
pub(super) fn check(settings: &Settings) -> Result<(), AppError> {
    let config = config(settings);
    Ok(WebPush::check(config.key.as_deref(), config.subject.as_deref())?)
}

/// Starts the task that sends Web Push messages. Returns `None` for Web Push if it is off. Cancelling `stopping` ends the task;
/// it then releases its leases.
pub(super) async fn start(
    store: &Arc<Store>,
    metrics: &Arc<Metrics>,
    settings: &Settings,
    stopping: &CancellationToken,
) -> Result<(Option<Arc<WebPush>>, JoinHandle<()>), AppError> {
    let push = if settings.feed == Feed::On && !settings.push_after.is_zero() {
        Some(Arc::new(WebPush::new(Arc::clone(store), config(settings)).await?))
    } else {
        None
    };
    let (sending, metrics, stopping) = (push.clone(), Arc::clone(metrics), stopping.clone());
    let task = tokio::spawn(async move {
        match sending {
            Some(push) => push.run(stopping, move |outcome| metrics.pushed(outcome)).await,
            None => stopping.cancelled().await,
        }
    });
    Ok((push, task))
}

fn config(settings: &Settings) -> PushConfig {
    let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let public_url = non_empty(&settings.public_url).filter(|url| url.starts_with("https://"));
    PushConfig {
        key: non_empty(&settings.push.vapid_key),
        subject: non_empty(&settings.push.vapid_subject).or(public_url),
        allow_hosts: settings.webhook_allow_hosts.clone(),
        after: settings.push_after,
        period: settings.fallback_poll,
    }
}
