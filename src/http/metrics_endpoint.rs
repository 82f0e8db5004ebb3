//! `GET /metrics`: the metrics of this server in the Prometheus text format.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use salvo::http::StatusCode;
use salvo::http::header::{CONTENT_TYPE, HeaderValue};
use salvo::oapi::endpoint;
use salvo::{Depot, Request, Response};
use tokio::time::timeout;

use super::api_error::ApiError;
use super::context::Api;
use super::metrics::{MetricSources, ScrapedValues, ShardValues};
use crate::domain::Error;
use crate::moderation::{CircuitState, Moderation};
use crate::shards::Shard;
use crate::store::{Retention, StoreError};

/// How long Postgres may take to respond to a query. A scrape must not wait as long as a request may.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Prometheus metrics
///
/// In the Prometheus text format.
#[endpoint(tags("operations"), operation_id = "getMetrics", responses(
    (status_code = 200, description = "Metrics", content_type = "text/plain", body = String)))]
pub(super) async fn get_metrics(req: &Request, depot: &mut Depot, res: &mut Response) -> Result<(), ApiError> {
    // Other spellings of the path, such as `/metrics/` or `//metrics`, get 404. A proxy rule that hides `/metrics` may not
    // match them.
    if req.uri().path() != "/metrics" {
        return Err(ApiError::NotFound);
    }
    let api = depot.get_typed::<Arc<Api>>().map_err(|_| Error::Internal)?;
    api.metrics.update(&read_values(api).await);
    let text = api.metrics.text().map_err(|_| Error::Internal)?;
    res.status_code(StatusCode::OK);
    res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    res.body(text);
    Ok(())
}

/// Reads the values that other components hold.
async fn read_values(api: &Api) -> ScrapedValues {
    let first = &api.shards.first().store;
    let has_feed = api.relay.is_some();
    let feed_pending = if has_feed { within_timeout(first.batches_to_relay()).await } else { None };
    let shards = join_all(api.shards.iter().map(|shard| read_shard(shard, api.metrics.sources()))).await;
    let shards = ShardValues::combined(shards);
    let has_database = shards.notify_queue.is_some();
    let mut values = ScrapedValues {
        buffered: api.memory.reserved(),
        evicted: api.memory.evicted(),
        audit_pending: api.audit.pending(),
        handovers: api.handovers.counts(),
        moderation_circuit: api.moderation.as_ref().map_or(CircuitState::Closed, Moderation::circuit_state),
        feed_pending,
        oldest_undelivered: None,
        jwks_age: api.jwks.as_ref().map(|jwks| jwks.age()),
        certificate_expiry: api.metrics.sources().and_then(|sources| (sources.certificate_expiry)()),
        relay_lag: None,
        shards,
    };
    if has_feed && has_database {
        let oldest = within_timeout(first.oldest_undelivered()).await;
        values.oldest_undelivered = Some(seconds(oldest.map(Option::unwrap_or_default)));
    }
    if has_feed && api.metrics.sources().is_some() {
        let lag = if has_database { within_timeout(first.relay_lag()).await } else { None };
        values.relay_lag = Some(seconds(lag));
    }
    values
}

/// Reads the values of one shard.
async fn read_shard(shard: &Shard, sources: Option<&MetricSources>) -> ShardValues {
    let notify_queue = within_timeout(shard.store.notification_queue_usage()).await;
    let mut values = ShardValues {
        listener_state: shard.listener.state(),
        listener_lag: shard.listener.lag(),
        notifications: shard.listener.received(),
        pool: shard.store.pool_status(),
        notify_queue,
        outbox_lag: f64::NAN,
        retention_lags: sources.map(|_| [f64::NAN; Retention::KINDS.len()]),
    };
    if notify_queue.is_some() {
        values.outbox_lag = seconds(within_timeout(shard.store.outbox_lag()).await);
        if let Some(sources) = sources {
            let lags = within_timeout(shard.store.retention_lag(sources.retention)).await;
            let lags = lags.map_or([None; Retention::KINDS.len()], |lags| lags.map(Some));
            values.retention_lags = Some(lags.map(seconds));
        }
    }
    values
}

/// Awaits the result of a query. Returns `None` where Postgres does not respond in time.
async fn within_timeout<T>(query: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    timeout(TIMEOUT, query).await.ok()?.ok()
}

fn seconds(duration: Option<Duration>) -> f64 {
    duration.map_or(f64::NAN, |duration| duration.as_secs_f64())
}
