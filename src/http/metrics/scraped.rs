//! The values that each scrape reads from other components, and the gauges that they set.

use std::fmt;
use std::time::Duration;

use prometheus::{Histogram, IntCounterVec};
use tokio::runtime::Handle;

use super::{MEMORY_EVICTION, Metrics, ShardValues};
use crate::moderation::CircuitState;
use crate::realtime::ListenerState;
use crate::store::Retention;

/// What a scrape reads besides the [`Api`](crate::http::Api).
pub struct MetricSources {
    /// How long requests wait for a connection of the pool.
    pub pool_wait: Histogram,
    /// The retention times.
    pub retention: Retention,
    /// Returns the expiry of the server's certificate in Unix seconds; `None` without a certificate.
    pub certificate_expiry: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl fmt::Debug for MetricSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricSources").field("retention", &self.retention).finish_non_exhaustive()
    }
}

/// The values that a scrape reads. Where an optional value is absent, its gauge does not change. A number of seconds that comes from
/// Postgres is `NaN` where Postgres does not respond.
#[derive(Debug)]
pub(in crate::http) struct ScrapedValues {
    /// The bytes of requests and responses in memory.
    pub(in crate::http) buffered: usize,
    /// The number of memory reservations evicted so far.
    pub(in crate::http) evicted: u64,
    /// The number of audit log entries that are not written yet.
    pub(in crate::http) audit_pending: usize,
    /// The numbers of handovers recorded and dropped so far.
    pub(in crate::http) handovers: (u64, u64),
    /// The state of the moderation circuit breaker.
    pub(in crate::http) moderation_circuit: CircuitState,
    /// The number of committed batches without a position in the feed.
    pub(in crate::http) feed_pending: Option<i64>,
    /// The age of the oldest event that an active webhook endpoint has not received, in seconds.
    pub(in crate::http) oldest_undelivered: Option<f64>,
    /// The time since the issuer's key set was last read.
    pub(in crate::http) jwks_age: Option<Duration>,
    /// The expiry of the server's certificate, in Unix seconds.
    pub(in crate::http) certificate_expiry: Option<u64>,
    /// The age of the oldest committed event without a position in the feed, in seconds.
    pub(in crate::http) relay_lag: Option<f64>,
    /// The values of all shards.
    pub(in crate::http) shards: ShardValues,
}

/// Raises a counter to a count that another component keeps.
fn raise(counters: &IntCounterVec, labels: &[&str], count: u64) {
    let counter = counters.with_label_values(labels);
    counter.inc_by(count.saturating_sub(counter.get()));
}

impl Metrics {
    /// Sets the metrics whose values other components hold, and those of the process.
    pub(in crate::http) fn update(&self, values: &ScrapedValues) {
        self.buffered.set(i64::try_from(values.buffered).unwrap_or(i64::MAX));
        raise(&self.limit_rejections, &[MEMORY_EVICTION], values.evicted);
        self.audit_pending.set(i64::try_from(values.audit_pending).unwrap_or(i64::MAX));
        let (recorded, dropped) = values.handovers;
        for (outcome, count) in [("recorded", recorded), ("dropped", dropped)] {
            raise(&self.handovers, &[outcome], count);
        }
        self.process.update();
        for each in ListenerState::ALL {
            self.listener_state.with_label_values(&[each.as_str()]).set((each == values.shards.listener_state).into());
        }
        for each in CircuitState::ALL {
            self.moderation_circuit.with_label_values(&[each.as_str()]).set((each == values.moderation_circuit).into());
        }
        self.listener_lag.set(values.shards.listener_lag.as_secs_f64());
        raise(&self.listener_notifications, &[], values.shards.notifications.count);
        raise(&self.listener_bytes, &[], values.shards.notifications.bytes);
        let pool = values.shards.pool;
        for (state, connections) in [("idle", pool.idle), ("used", pool.used), ("pending", pool.waiting)] {
            self.pool.with_label_values(&[state]).set(i64::try_from(connections).unwrap_or(i64::MAX));
        }
        self.tasks.set(i64::try_from(Handle::current().metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        if let Some(waiting) = values.feed_pending {
            self.feed_pending.set(waiting);
        }
        self.database.set(values.shards.notify_queue.is_some().into());
        self.notify_queue.set(values.shards.notify_queue.unwrap_or(f64::NAN));
        if let Some(age) = values.oldest_undelivered {
            self.oldest_undelivered.set(age);
        }
        self.lags.update(values);
    }
}
