//! The values that a scrape reads of each shard, and how those of all shards are combined.

use std::time::Duration;

use crate::realtime::{ListenerState, ReceivedNotifications};
use crate::store::{PoolStatus, Retention};

/// The values of one shard, or of all.
#[derive(Debug, Clone)]
pub(in crate::http) struct ShardValues {
    /// The state of the LISTEN connection: of all shards, the least healthy.
    pub(in crate::http) listener_state: ListenerState,
    /// The time that the last probe of the listener took: the longest.
    pub(in crate::http) listener_lag: Duration,
    /// The notifications that the listener has received so far: the sum.
    pub(in crate::http) notifications: ReceivedNotifications,
    /// The connections of the pool: the sum.
    pub(in crate::http) pool: PoolStatus,
    /// The fraction of the Postgres notification queue that is in use: the highest. `None` where any Postgres does not respond.
    pub(in crate::http) notify_queue: Option<f64>,
    /// The age of the oldest row of the outbox in seconds: the highest. `NaN` where Postgres does not respond.
    pub(in crate::http) outbox_lag: f64,
    /// For each [kind](Retention::KINDS) of data, how long its oldest is overdue for deletion, in seconds: the longest.
    pub(in crate::http) retention_lags: Option<[f64; Retention::KINDS.len()]>,
}

impl ShardValues {
    /// Combines the values of all shards.
    pub(in crate::http) fn combined(shards: Vec<Self>) -> Self {
        let none = Self {
            listener_state: ListenerState::Off,
            listener_lag: Duration::ZERO,
            notifications: ReceivedNotifications::default(),
            pool: PoolStatus { idle: 0, used: 0, waiting: 0 },
            notify_queue: Some(0.0),
            outbox_lag: 0.0,
            retention_lags: None,
        };
        shards.into_iter().fold(none, Self::with)
    }

    fn with(self, other: Self) -> Self {
        let lags = match (self.retention_lags, other.retention_lags) {
            (Some(mut lags), Some(other)) => {
                lags.iter_mut().zip(other).for_each(|(lag, other)| *lag = max(*lag, other));
                Some(lags)
            }
            (one, other) => one.or(other),
        };
        Self {
            listener_state: self.listener_state.worse(other.listener_state),
            listener_lag: self.listener_lag.max(other.listener_lag),
            notifications: ReceivedNotifications {
                count: self.notifications.count + other.notifications.count,
                bytes: self.notifications.bytes + other.notifications.bytes,
            },
            pool: PoolStatus {
                idle: self.pool.idle + other.pool.idle,
                used: self.pool.used + other.pool.used,
                waiting: self.pool.waiting + other.pool.waiting,
            },
            notify_queue: self.notify_queue.zip(other.notify_queue).map(|(one, other)| max(one, other)),
            // Updates wait above all while a shard does not respond.
            outbox_lag: self.outbox_lag.max(other.outbox_lag),
            retention_lags: lags,
        }
    }
}

/// Returns the higher of two values, or `NaN` if one of them is unknown. `f64::max` ignores `NaN`.
fn max(one: f64, other: f64) -> f64 {
    if one.is_nan() || other.is_nan() { f64::NAN } else { one.max(other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(listener_state: ListenerState, notify_queue: Option<f64>, outbox_lag: f64) -> ShardValues {
        let pool = PoolStatus { idle: 1, used: 2, waiting: 3 };
        let notifications = ReceivedNotifications { count: 5, bytes: 7 };
        let (listener_lag, retention_lags) = (Duration::from_millis(4), Some([1.0, outbox_lag, 0.0, 0.0]));
        ShardValues { listener_state, listener_lag, notifications, pool, notify_queue, outbox_lag, retention_lags }
    }

    #[test]
    fn the_least_healthy_shard_determines_the_states_and_lags() {
        use ListenerState::{Connecting, Deaf, Listening};
        let all = ShardValues::combined(vec![shard(Listening, Some(0.5), 3.0), shard(Connecting, Some(0.25), 9.0)]);
        assert_eq!((all.listener_state, all.notify_queue, all.outbox_lag), (Connecting, Some(0.5), 9.0));
        assert_eq!((all.pool.idle, all.pool.used, all.pool.waiting), (2, 4, 6));
        assert_eq!((all.notifications.count, all.notifications.bytes), (10, 14));
        assert_eq!(all.retention_lags, Some([1.0, 9.0, 0.0, 0.0]));
        let all = ShardValues::combined(vec![shard(Deaf, None, f64::NAN), shard(Listening, Some(0.1), 2.0)]);
        assert_eq!((all.listener_state, all.notify_queue), (Deaf, None));
        assert!((all.outbox_lag - 2.0).abs() < f64::EPSILON, "{}", all.outbox_lag);
    }
}
