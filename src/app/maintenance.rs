//! Spawns the tasks that keep the server and its data current, and connects the metrics to their sources.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::AppError;
use super::engine::Engine;
use super::validated::ValidatedSettings;
use crate::config::Settings;
use crate::http::MetricSources;
use crate::serving;
use crate::store::Retention;
use crate::writer::retention;

/// Spawns retention, and the refresh of the JWKS and of the certificate.
pub(super) fn spawn(
    engine: &Engine,
    settings: &Settings,
    validated: &ValidatedSettings,
    tasks: &mut JoinSet<()>,
) -> Result<(), AppError> {
    let retention = Retention {
        logs: settings.log_retention,
        messages: settings.message_retention,
        feed: settings.feed_retention,
        handovers: settings.message_trace_retention,
        audit: settings.audit_retention,
    };
    let certificate = validated.certificate.clone();
    engine.metrics.set_sources(MetricSources {
        pool_wait: engine.pool_wait.clone(),
        retention,
        certificate_expiry: Box::new(move || certificate.as_ref()?.expires_at()),
    })?;
    for shard in engine.shards() {
        tasks.spawn(retention::run(Arc::clone(&shard.store), retention, settings.retention_period));
    }
    if let Some(jwks) = validated.jwks.clone() {
        tasks.spawn(jwks.run());
    }
    tasks.spawn(serving::watch_certificate(validated.certificate.clone()));
    Ok(())
}
