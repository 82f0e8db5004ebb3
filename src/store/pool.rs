//! The connection pool, for everything except LISTEN.

mod cancellation;
mod health;
mod session;
mod timeouts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{ClientWrapper, Hook, HookError, ManagerConfig, Metrics, RecyclingMethod, Runtime};
use prometheus::{Histogram, HistogramOpts, exponential_buckets};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use self::health::{ConnectionHealth, Health};
pub use self::session::Session;
use self::timeouts::Timeouts;

use super::batched::{
    AttemptOutcome, DueDelivery, FollowedTopic, Lease, NewDriverState, NewLocation, PageRequest, StoredEvent,
};
use super::hints::Origin;
use super::{Address, Batcher, StoreError, sql};
use crate::domain::{RideId, RideSnapshot, StateUpdate};

/// The parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The settings of each connection.
///
/// Plans are generic: each connection plans a statement once, with index lookups only. Every statement looks up a few
/// rows of tables that may be large, with arrays whose length Postgres does not know. With the default settings,
/// Postgres would plan some statements while the tables are still empty, and then read all of `messages` for each batch
/// until the next ANALYZE. It would plan others anew at each execution. JIT is off because the cost estimate of a plan
/// that must read a whole table would trigger it.
///
/// A transaction whose replica stops in the middle (SIGSTOP, a lost network) holds its locks only until
/// `idle_in_transaction_session_timeout`. `synchronous_commit` is never `off`, whatever the configuration of the
/// database is, so a commit is durable before Postgres responds to it.
pub const SETTINGS: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;
    set plan_cache_mode = force_generic_plan; set jit = off;
    set idle_in_transaction_session_timeout = '5s';
    select set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)";

/// The default of [`StoreConfig::plan_ttl`].
///
/// After an ANALYZE has found a table empty, Postgres plans to read the whole table, because that costs no more than a
/// lookup. Such a plan would be cached until the next ANALYZE, whatever is written meanwhile. A new plan uses the
/// current size of the table.
pub const PLAN_TTL: Duration = Duration::from_secs(10);

/// The part of [`SETTINGS`] that a transaction needs behind a transaction-pooling proxy, where each transaction may run
/// on another connection. Rows are then locked one after the other, in their order.
const LOCAL_SETTINGS: &str = "set local jit = off; set local idle_in_transaction_session_timeout = '5s';
    set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
    select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'";

/// Whether prepared statements are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// Statements are prepared once for each connection.
    On,
    /// Each statement is sent with its text: behind a transaction-pooling proxy the next one may run on another
    /// connection.
    Off,
}

/// The configuration of a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The address, with the user and the database.
    pub postgres: Address,
    /// The maximum number of connections.
    pub connections: usize,
    /// The timeout of a request to the database.
    pub timeout: Duration,
    /// Whether prepared statements are used.
    pub prepared: Prepared,
    /// The minimum time for which a connection caches its plans; at least a millisecond.
    pub plan_ttl: Duration,
    /// Observes how long requests wait for a connection. Stores may share it.
    pub pool_wait: Histogram,
}

/// The number of connections by state.
#[derive(Debug, Clone, Copy)]
pub struct PoolStatus {
    /// Idle connections.
    pub idle: usize,
    /// Connections in use.
    pub used: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

/// The database: the pool and the batchers.
#[derive(Debug)]
pub struct Store {
    pub(super) pool: Pool,
    /// The identity of this replica in its notifications.
    pub origin: Origin,
    pub(super) snapshots: Batcher<RideId, Option<RideSnapshot>>,
    pub(super) pages: Batcher<PageRequest, Vec<StoredEvent>>,
    pub(super) locations: Batcher<NewLocation, Option<StateUpdate>>,
    pub(super) drivers: Batcher<NewDriverState, Option<StateUpdate>>,
    pub(super) followed: Batcher<FollowedTopic, ()>,
    pub(super) next_deliveries: Batcher<Lease, Option<DueDelivery>>,
    pub(super) attempt_outcomes: Batcher<(Lease, AttemptOutcome), bool>,
}

impl Store {
    /// Returns the timeout of a request to the database.
    pub fn timeout(&self) -> Duration {
        self.pool.timeouts.response
    }

    /// Returns a connection, for statements that must run on the same one.
    pub async fn session(&self) -> Result<Session, StoreError> {
        Session::get(&self.pool).await
    }

    /// Like [`Self::session`], for transactions whose statements may exceed the timeout of a request: `timeout` for
    /// each.
    pub(super) async fn session_for_long_statements(&self, timeout: Duration) -> Result<Session, StoreError> {
        Ok(self.session().await?.for_long_statements(timeout))
    }

    /// Returns the number of connections by state.
    pub fn pool_status(&self) -> PoolStatus {
        let status = self.pool.connections.status();
        PoolStatus {
            idle: status.available,
            used: status.size.saturating_sub(status.available),
            waiting: status.waiting,
        }
    }

    pub(super) fn pool(&self) -> Pool {
        self.pool.clone()
    }

    /// Queries whether the database accepts writes.
    pub async fn is_writable(&self) -> Result<bool, StoreError> {
        let rows = self.read(sql::TOPICS_WRITABLE, &[]).await?;
        Ok(rows.first().ok_or(StoreError::Corrupt("no row"))?.try_get("writable")?)
    }

    /// Runs a read-only statement. If its connection is lost, it is retried once on another one.
    pub(super) async fn read(&self, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        read(&self.pool, statement, params).await
    }
}

/// See [`Store::read`].
pub(super) async fn read(pool: &Pool, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
    let rows = Session::get(pool).await?.query(statement, params).await;
    match rows {
        // After a timeout the caller's time is used up.
        Err(StoreError::Timeout) => Err(StoreError::Timeout),
        Err(error) if error.is_connection_lost() => Session::get(pool).await?.query(statement, params).await,
        rows => rows,
    }
}

/// Returns whether the plans of a connection have expired since its last use: whether its age has passed a multiple of
/// `age`.
fn have_plans_expired(metrics: &Metrics, age: Duration, now: Instant) -> bool {
    let age = age.as_millis().max(1);
    let ages = |at: Instant| at.saturating_duration_since(metrics.created).as_millis() / age;
    ages(now) > ages(metrics.recycled.unwrap_or(metrics.created))
}

/// The connections and their settings.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    connections: deadpool_postgres::Pool,
    /// The address for cancel requests.
    address: Address,
    prepared: Prepared,
    timeouts: Timeouts,
    health: Arc<ConnectionHealth>,
    /// The time that requests waited for a connection.
    wait: Histogram,
}

/// Creates a histogram of the time that requests wait for a connection: buckets from 0.1 ms to 26 s.
pub fn pool_wait_histogram() -> Result<Histogram, prometheus::Error> {
    let help = "How long a request waited for a connection to Postgres, whether it got one or not.";
    let options = HistogramOpts::new("ridewire_pool_wait_seconds", help);
    Histogram::with_opts(options.buckets(exponential_buckets(0.000_1, 4.0, 10)?))
}

impl Pool {
    pub(super) fn new(config: StoreConfig) -> Result<Self, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let (timeouts, health) = (Timeouts::of(config.timeout), Arc::<ConnectionHealth>::default());
        let connections = deadpool_postgres::Pool::builder(config.postgres.clone().manager(recycling))
            .max_size(config.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.timeout))
            .create_timeout(Some(config.timeout))
            .recycle_timeout(Some(config.timeout));
        let connections = match config.prepared {
            Prepared::On => connections.post_create(Hook::async_fn(move |client, _| {
                let settings = [&timeouts.settings("set"), SETTINGS].concat();
                Box::pin(async move { run_statements(client, &settings, timeouts.response).await })
            })),
            Prepared::Off => connections,
        };
        let (prepared, recycle_health) = (config.prepared, Arc::clone(&health));
        let connections = connections.post_recycle(Hook::async_fn(move |client, metrics| {
            let plans_expired =
                prepared == Prepared::On && have_plans_expired(metrics, config.plan_ttl, Instant::now());
            let status = recycle_health.of(metrics.recycled.unwrap_or(metrics.created));
            let recycle_health = Arc::clone(&recycle_health);
            Box::pin(async move {
                match status {
                    Health::Lost => return Err(HookError::message("another connection that was idle as long is lost")),
                    Health::Healthy if !plans_expired => return Ok(()),
                    Health::Healthy | Health::Suspect => {}
                }
                let probe = if plans_expired { "discard plans" } else { "" };
                run_statements(client, probe, timeouts.probe())
                    .await
                    .inspect_err(|_| recycle_health.record_failed_probe())
            })
        }));
        let connections = connections.build().map_err(|_| StoreError::Corrupt("the pool's configuration"))?;
        Ok(Self { connections, address: config.postgres, prepared, timeouts, health, wait: config.pool_wait })
    }
}

/// Runs statements when a connection is opened, or before it is reused.
async fn run_statements(client: &ClientWrapper, statements: &str, within: Duration) -> Result<(), HookError> {
    match timeout(within, client.batch_execute(statements)).await {
        Ok(done) => done.map_err(HookError::Backend),
        Err(_) => Err(HookError::message("no response in time")),
    }
}
