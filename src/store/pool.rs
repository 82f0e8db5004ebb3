//! Connections: a pool for everything but LISTEN.

mod ending;
mod session;
mod suspicion;
mod timeouts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{ClientWrapper, Hook, HookError, ManagerConfig, Metrics, RecyclingMethod, Runtime};
use prometheus::{Histogram, HistogramOpts, exponential_buckets};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

pub use self::session::Session;
use self::suspicion::{Suspicion, Verdict};
use self::timeouts::Timeouts;

use super::deliveries::{self, Attempted, Due, Lease};
use super::hints::Origin;
use super::{Address, Batcher, StoreError, drivers, locations, reads, sql};
use crate::domain::{RideId, RideSnapshot, Signal};

/// The parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What each connection begins with.
///
/// Statements are planned by keys, once for each connection. Every one of ours looks up a few rows of tables that may
/// be large, with arrays whose length Postgres does not know. Left alone it plans some while the tables are still empty (reading all of `messages` for each batch from
/// then on, until ANALYZE next comes by) and others anew at each execution. JIT is off because a plan that has to
/// read a whole table after all would look dear enough for it.
///
/// A transaction whose replica stops in the middle (SIGSTOP, a lost network) does not hold its locks for long. And no commit
/// answers before it is durable, however the database is configured or comes to be.
pub const SETTINGS: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;
    set plan_cache_mode = force_generic_plan; set jit = off;
    set idle_in_transaction_session_timeout = '5s';
    select set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)";

/// How long a connection keeps its plans, at least, where nothing else is said.
///
/// Where an ANALYZE has found a table empty, Postgres plans as if it were for ever: to read the whole of it costs no more then
/// than to look one row up. Such a plan would stay until the next ANALYZE, whatever has been written meanwhile. One that is
/// made anew goes by how large the table is now.
pub const PLANS_AGE: Duration = Duration::from_secs(10);

/// The part of [`SETTINGS`] that a transaction needs, where a connection is another with each: rows that are locked by being
/// written are looked up one after the other, in their order.
const LOCAL_SETTINGS: &str = "set local jit = off; set local idle_in_transaction_session_timeout = '5s';
    set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
    select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'";

/// Whether statements are prepared on their connection and used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// They are.
    On,
    /// Each is sent whole: through a pooler of transactions the next one may be on another connection.
    Off,
}

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is, and as whom.
    pub postgres: Address,
    /// The most connections at once.
    pub connections: usize,
    /// How long a request may wait for the database.
    pub patience: Duration,
    /// Whether statements are prepared.
    pub prepared: Prepared,
    /// How long a connection keeps its plans, at least; a millisecond or more.
    pub plans_age: Duration,
}

/// How many connections there are.
#[derive(Debug, Clone, Copy)]
pub struct PoolStatus {
    /// That nobody uses.
    pub idle: usize,
    /// That somebody uses.
    pub used: usize,
    /// That somebody waits for.
    pub waited_for: usize,
}

/// The database.
#[derive(Debug)]
pub struct Store {
    pool: Pool,
    /// Who tells of what is committed through this.
    pub origin: Origin,
    pub(super) snapshots: Batcher<RideId, Option<RideSnapshot>>,
    pub(super) pages: Batcher<reads::PageRequest, Vec<reads::StoredEvent>>,
    pub(super) locations: Batcher<locations::NewLocation, Option<Signal>>,
    pub(super) drivers: Batcher<drivers::NewState, Option<Signal>>,
    pub(super) due: Batcher<Lease, Option<Due>>,
    pub(super) attempts: Batcher<(Lease, Attempted), bool>,
}

impl Store {
    /// A store that connects when it is first asked.
    pub fn new(config: StoreConfig) -> Result<Self, StoreError> {
        let patience = config.patience;
        let pool = Pool::new(config)?;
        let snapshots = Batcher::start(500, patience, {
            let pool = pool.clone();
            move |rides| reads::snapshots(pool.clone(), rides)
        });
        // Many short pages, or a few whole ones: what is read at once has to fit into memory.
        let weight = |request: &reads::PageRequest| usize::try_from(request.limit).unwrap_or(usize::MAX);
        let pages = Batcher::weighing(500, (weight, 5_000), patience, {
            let pool = pool.clone();
            move |requests| reads::pages(pool.clone(), requests)
        });
        let locations = Batcher::start(1_000, patience, {
            let pool = pool.clone();
            move |news| locations::put(pool.clone(), news)
        });
        let drivers = Batcher::start(1_000, patience, {
            let pool = pool.clone();
            move |news| drivers::put(pool.clone(), news)
        });
        let due = Batcher::start(200, patience, {
            let pool = pool.clone();
            move |leases| deliveries::due(pool.clone(), leases)
        });
        let attempts = Batcher::start(200, patience, {
            let pool = pool.clone();
            move |attempts| deliveries::finish(pool.clone(), attempts)
        });
        Ok(Self { pool, origin: Origin::new(), snapshots, pages, locations, drivers, due, attempts })
    }

    /// How long a request may wait for the database.
    pub fn patience(&self) -> Duration {
        self.pool.timeouts.response
    }

    /// A connection, for statements that must be on the same one.
    pub async fn session(&self) -> Result<Session, StoreError> {
        Session::get(&self.pool).await
    }

    /// The same for transactions with statements that may take longer than a request waits: `timeout` each.
    pub(super) async fn session_for_long_statements(&self, timeout: Duration) -> Result<Session, StoreError> {
        Ok(self.session().await?.for_long_statements(timeout))
    }

    /// How many connections there are.
    pub fn pool_status(&self) -> PoolStatus {
        let status = self.pool.connections.status();
        PoolStatus {
            idle: status.available,
            used: status.size.saturating_sub(status.available),
            waited_for: status.waiting,
        }
    }

    /// How long connections were waited for.
    pub fn pool_wait(&self) -> Histogram {
        self.pool.wait.clone()
    }

    /// Tells those who listen. Their commit waits for no disk.
    pub async fn notify(&self, payloads: &[impl AsRef<str> + Sync]) -> Result<(), StoreError> {
        let payloads: Vec<&str> = payloads.iter().map(AsRef::as_ref).collect();
        self.session().await?.query(sql::TOPICS_NOTIFY, &[&payloads]).await.map(drop)
    }

    /// How much of the queue of notifications is full, 0 to 1.
    pub async fn notification_queue_usage(&self) -> Result<f64, StoreError> {
        let rows = self.read(sql::TOPICS_QUEUE_USAGE, &[]).await?;
        Ok(rows.first().ok_or(StoreError::Corrupt("no usage"))?.try_get("usage")?)
    }

    pub(super) fn pool(&self) -> Pool {
        self.pool.clone()
    }

    /// Whether writes can succeed, asked of the database.
    pub async fn is_writable(&self) -> Result<bool, StoreError> {
        let rows = self.read(sql::TOPICS_WRITABLE, &[]).await?;
        Ok(rows.first().ok_or(StoreError::Corrupt("no answer"))?.try_get("writable")?)
    }

    /// One reading statement. Asked again, once, on another connection when its own was lost meanwhile.
    pub(super) async fn read(&self, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        read(&self.pool, statement, params).await
    }
}

/// See [`Store::read`].
pub(super) async fn read(pool: &Pool, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
    let answer = Session::get(pool).await?.query(statement, params).await;
    match answer {
        // One that took too long has used up the time there is.
        Err(StoreError::Timeout) => Err(StoreError::Timeout),
        Err(error) if error.is_connection_lost() => Session::get(pool).await?.query(statement, params).await,
        answer => answer,
    }
}

/// Whether a connection has begun another such age of its life since it was last given out.
fn plans_are_old(metrics: &Metrics, age: Duration, now: Instant) -> bool {
    let age = age.as_millis().max(1);
    let ages = |at: Instant| at.saturating_duration_since(metrics.created).as_millis() / age;
    ages(now) > ages(metrics.recycled.unwrap_or(metrics.created))
}

/// Connections, and how they are used.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    connections: deadpool_postgres::Pool,
    /// Where statements are cancelled.
    address: Address,
    prepared: Prepared,
    timeouts: Timeouts,
    suspicion: Arc<Suspicion>,
    /// How long connections were waited for.
    wait: Histogram,
}

/// From a tenth of a millisecond to 26 seconds.
fn wait_histogram() -> Result<Histogram, prometheus::Error> {
    let help = "How long a connection to Postgres was waited for, whether there was one in the end or not.";
    let options = HistogramOpts::new("ridewire_pool_wait_seconds", help);
    Histogram::with_opts(options.buckets(exponential_buckets(0.000_1, 4.0, 10)?))
}

impl Pool {
    fn new(config: StoreConfig) -> Result<Self, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let (timeouts, suspicion) = (Timeouts::of(config.patience), Arc::<Suspicion>::default());
        let connections = deadpool_postgres::Pool::builder(config.postgres.clone().manager(recycling))
            .max_size(config.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.patience))
            .create_timeout(Some(config.patience))
            .recycle_timeout(Some(config.patience));
        let connections = match config.prepared {
            Prepared::On => connections.post_create(Hook::async_fn(move |client, _| {
                let settings = [&timeouts.settings("set"), SETTINGS].concat();
                Box::pin(async move { answers(client, &settings, timeouts.response).await })
            })),
            Prepared::Off => connections,
        };
        let (prepared, suspected) = (config.prepared, Arc::clone(&suspicion));
        let connections = connections.post_recycle(Hook::async_fn(move |client, metrics| {
            let are_old = prepared == Prepared::On && plans_are_old(metrics, config.plans_age, Instant::now());
            let verdict = suspected.of(metrics.recycled.unwrap_or(metrics.created));
            let suspected = Arc::clone(&suspected);
            Box::pin(async move {
                match verdict {
                    Verdict::Condemned => return Err(HookError::message("others of its age are lost")),
                    Verdict::Trusted if !are_old => return Ok(()),
                    Verdict::Trusted | Verdict::Suspected => {}
                }
                let probe = if are_old { "discard plans" } else { "" };
                answers(client, probe, timeouts.probe()).await.inspect_err(|_| suspected.confirm())
            })
        }));
        let connections = connections.build().map_err(|_| StoreError::Corrupt("the pool's configuration"))?;
        let wait = wait_histogram().map_err(|_| StoreError::Corrupt("the pool's histogram"))?;
        Ok(Self { connections, address: config.postgres, prepared, timeouts, suspicion, wait })
    }
}

/// Runs statements at a connection's begin, or before it is used again.
async fn answers(client: &ClientWrapper, statements: &str, within: Duration) -> Result<(), HookError> {
    match timeout(within, client.batch_execute(statements)).await {
        Ok(answer) => answer.map_err(HookError::Backend),
        Err(_) => Err(HookError::message("no answer in time")),
    }
}
