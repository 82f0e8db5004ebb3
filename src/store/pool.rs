//! Connections: a pool for everything but LISTEN.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, ManagerConfig, Metrics, Object, RecyclingMethod, Runtime};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::deliveries::{self, Attempted, Due, Lease};
use super::hints::Origin;
use super::{Address, Batcher, StoreError, drivers, locations, parameter_types, reads, sql};
use crate::domain::{RideId, RideSnapshot, Signal};

/// A parameter, and what it is.
type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

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
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = config.postgres.manager(recycling);
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(config.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.patience))
            .create_timeout(Some(config.patience))
            .recycle_timeout(Some(config.patience));
        let connections = match config.prepared {
            Prepared::On => connections
                .post_create(Hook::async_fn(|client, _| {
                    Box::pin(async { client.batch_execute(SETTINGS).await.map_err(HookError::Backend) })
                }))
                .post_recycle(Hook::async_fn(move |client, metrics| {
                    let are_old = plans_are_old(metrics, config.plans_age, Instant::now());
                    Box::pin(async move {
                        let discarded = if are_old { client.batch_execute("discard plans").await } else { Ok(()) };
                        discarded.map_err(HookError::Backend)
                    })
                })),
            Prepared::Off => connections,
        };
        let connections = connections.build().map_err(|_| StoreError::Corrupt("the pool's configuration"))?;
        let pool = Pool { connections, prepared: config.prepared };
        let patience = config.patience;
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
        self.pool.connections.timeouts().wait.unwrap_or(Duration::MAX)
    }

    /// A connection, for statements that must be on the same one.
    pub async fn session(&self) -> Result<Session, StoreError> {
        Session::get(&self.pool).await
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

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read("select 1", &[]).await.map(drop)
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
    prepared: Prepared,
}

/// A connection out of the pool. It goes back when it is dropped, so a transaction begun on it must be ended,
/// or the session [abandoned](Session::abandon).
///
/// Through a pooler no second statement is sent outside of a transaction while one is under way, nor is a connection given
/// back with one: a pooler that takes the first answer for the end gives its own connection to the next client, who then
/// gets the second (`PgBouncer` 1.18 does, where ours is closed at that moment).
///
/// A network may forget a connection and tell neither side. So no statement is waited for without end; and where
/// one connection is lost, by an error or by silence, those that wait in the pool are not trusted either.
#[derive(Debug)]
pub struct Session {
    /// `None` once it was let go of.
    object: Option<Object>,
    pool: Pool,
    is_lost: AtomicBool,
    /// Statements whose answers have not come.
    under_way: AtomicUsize,
}

impl Session {
    pub(super) async fn get(pool: &Pool) -> Result<Self, StoreError> {
        Ok(Self {
            object: Some(pool.connections.get().await?),
            pool: pool.clone(),
            is_lost: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
        })
    }

    /// Does something with the connection, for as long as a request may wait.
    async fn within<T>(
        &self,
        work: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let Some(object) = &self.object else { return Err(StoreError::Stopping) };
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let done = match self.pool.connections.timeouts().wait {
            Some(patience) => timeout(patience, work(object)).await.map_err(|_| StoreError::Timeout),
            None => Ok(work(object).await),
        };
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let done = done.and_then(|done| done.map_err(StoreError::from));
        if done.as_ref().is_err_and(StoreError::is_connection_lost) {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Whether a statement may be sent after a COMMIT whose answer has not come: the connection is Postgres's own.
    pub fn may_run_ahead(&self) -> bool {
        self.pool.prepared == Prepared::On
    }

    /// Prepares statements that this connection has not seen. Statements that shall leave in one write (polled
    /// together) must all be prepared before, or they may leave in another order.
    pub async fn prepare(&self, statements: &[&str]) -> Result<(), StoreError> {
        if self.pool.prepared == Prepared::Off {
            return Ok(());
        }
        self.within(async |object| {
            for statement in statements {
                object.prepare_cached(statement).await?;
            }
            Ok(())
        })
        .await
    }

    /// Runs a statement that returns rows.
    pub async fn query(&self, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let typed = self.typed(statement, params)?;
        self.within(async |object| {
            if let Some(typed) = typed {
                return object.query_typed(statement, &typed).await;
            }
            let prepared = object.prepare_cached(statement).await?;
            object.query(&prepared, params).await
        })
        .await
    }

    /// Runs a statement that returns none.
    pub async fn execute(&self, statement: &str, params: Params<'_>) -> Result<u64, StoreError> {
        let typed = self.typed(statement, params)?;
        self.within(async |object| {
            if let Some(typed) = typed {
                return object.execute_typed(statement, &typed).await;
            }
            let prepared = object.prepare_cached(statement).await?;
            object.execute(&prepared, params).await
        })
        .await
    }

    /// The parameters with their types, where they have to be said.
    fn typed<'a>(&self, statement: &str, params: Params<'a>) -> Result<Option<Vec<Typed<'a>>>, StoreError> {
        if self.pool.prepared == Prepared::On {
            return Ok(None);
        }
        let types = parameter_types(statement).ok_or(StoreError::Corrupt("a statement's parameters"))?;
        Ok(Some(params.iter().copied().zip(types).collect()))
    }

    /// Begins a transaction, in which no commit answers before it is durable.
    pub async fn begin(&self, settings: &str) -> Result<(), StoreError> {
        let local = if self.pool.prepared == Prepared::On { "" } else { LOCAL_SETTINGS };
        self.batch_execute(&format!("begin isolation level read committed; {settings}; {local}")).await
    }

    /// Runs statements without parameters, as one message.
    pub async fn batch_execute(&self, statements: &str) -> Result<(), StoreError> {
        self.within(async |object| object.batch_execute(statements).await).await
    }

    /// Closes the connection rather than giving it back: its state is unknown.
    pub fn abandon(mut self) {
        self.object.take().map(Object::take);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_lost.load(Ordering::Relaxed) {
            self.object.take().map(Object::take);
            self.pool.connections.retain(|_, _| false);
        } else if !self.may_run_ahead() && self.under_way.load(Ordering::Relaxed) > 0 {
            // Whoever waited for it has gone.
            self.object.take().map(Object::take);
        }
    }
}
