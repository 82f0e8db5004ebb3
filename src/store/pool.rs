//! Connections: a pool for everything but LISTEN.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, NoTls, Row};

use super::{Batcher, StoreError, reads};
use crate::domain::{RideId, RideSnapshot};

/// The parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How our statements are planned: by keys, once for each connection.
///
/// Every one of them looks up a few rows of tables that may be large, with arrays whose length Postgres does not
/// know. Left alone it plans some while the tables are still empty (reading all of `messages` for each batch from
/// then on, until ANALYZE next comes by) and others anew at each execution. JIT is off because a plan that has to
/// read a whole table after all would look dear enough for it.
const PLANNING: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;
    set plan_cache_mode = force_generic_plan; set jit = off";

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is, and as whom.
    pub postgres: Config,
    /// The most connections at once.
    pub connections: usize,
    /// How long a request may wait for the database.
    pub patience: Duration,
}

/// The database.
#[derive(Debug)]
pub struct Store {
    pool: Pool,
    patience: Duration,
    pub(super) snapshots: Batcher<RideId, Option<RideSnapshot>>,
    pub(super) pages: Batcher<reads::PageRequest, Vec<reads::StoredEvent>>,
}

impl Store {
    /// A store that connects when it is first asked.
    pub fn new(config: StoreConfig) -> Result<Self, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.postgres, NoTls, recycling);
        let pool = Pool::builder(manager)
            .max_size(config.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.patience))
            .create_timeout(Some(config.patience))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async { client.batch_execute(PLANNING).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|_| StoreError::Corrupt("the pool's configuration"))?;
        let patience = config.patience;
        let snapshots = Batcher::start(500, patience, {
            let pool = pool.clone();
            move |rides| reads::snapshots(pool.clone(), rides)
        });
        // Few at a time: each may bring a page of events.
        let pages = Batcher::start(50, patience, {
            let pool = pool.clone();
            move |requests| reads::pages(pool.clone(), requests)
        });
        Ok(Self { pool, patience, snapshots, pages })
    }

    /// A connection, for statements that must be on the same one.
    pub async fn session(&self) -> Result<Session, StoreError> {
        Session::get(&self.pool).await
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
        let answer = tokio::time::timeout(self.patience, read(&self.pool, statement, params));
        answer.await.map_err(|_| StoreError::Timeout)?
    }
}

/// See [`Store::read`]; for those who bring their own patience.
pub(super) async fn read(pool: &Pool, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
    let answer = Session::get(pool).await?.query(statement, params).await;
    match answer {
        Err(error) if error.is_connection_lost() => Session::get(pool).await?.query(statement, params).await,
        answer => answer,
    }
}

/// A connection out of the pool. It goes back when it is dropped, so a transaction begun on it must be ended,
/// or the session [abandoned](Session::abandon).
#[derive(Debug)]
pub struct Session(Object);

impl Session {
    async fn get(pool: &Pool) -> Result<Self, StoreError> {
        Ok(Self(pool.get().await?))
    }

    /// Prepares statements that this connection has not seen. Statements that shall leave in one write (polled
    /// together) must all be prepared before, or they may leave in another order.
    pub async fn prepare(&self, statements: &[&str]) -> Result<(), StoreError> {
        for statement in statements {
            self.0.prepare_cached(statement).await?;
        }
        Ok(())
    }

    /// Runs a statement that returns rows.
    pub async fn query(&self, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let prepared = self.0.prepare_cached(statement).await?;
        Ok(self.0.query(&prepared, params).await?)
    }

    /// Runs a statement that returns none.
    pub async fn execute(&self, statement: &str, params: Params<'_>) -> Result<u64, StoreError> {
        let prepared = self.0.prepare_cached(statement).await?;
        Ok(self.0.execute(&prepared, params).await?)
    }

    /// Runs statements without parameters, as one message.
    pub async fn batch_execute(&self, statements: &str) -> Result<(), StoreError> {
        Ok(self.0.batch_execute(statements).await?)
    }

    /// Closes the connection rather than giving it back: its state is unknown.
    pub fn abandon(self) {
        drop(Object::take(self.0));
    }
}
