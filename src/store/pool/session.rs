//! A connection in use.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::timeouts::Timeouts;
use super::{LOCAL_SETTINGS, Params, Pool, Prepared};
use crate::store::{StoreError, parameter_types};

/// A parameter with its type.
type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection from the pool. Dropping it returns it. If its transaction is still open, or if the session is
/// [abandoned](Session::abandon), the connection is closed instead.
///
/// Behind a pooler, two rules hold. Outside of a transaction, no second statement is sent while one is in flight, and
/// no connection is returned with a statement in flight. A pooler that takes the first response for the end gives its
/// own connection to the next client, who then receives the second response. (`PgBouncer` 1.18 does so if our
/// connection is closed at that moment.) And because no setting outlives a transaction there, a single statement runs
/// in a transaction too.
///
/// A network may drop a connection without notifying either side. So each statement has a timeout. When one connection
/// is lost, by an error or a timeout, the idle ones in the pool are probed before they are used again.
#[derive(Debug)]
pub struct Session {
    /// `None` after it was closed or returned.
    object: Option<Object>,
    pool: Pool,
    timeouts: Timeouts,
    is_lost: AtomicBool,
    is_in_transaction: AtomicBool,
    /// Whether a statement that was sent may commit data that must not be lost.
    commits: AtomicBool,
    /// The number of statements in flight, including those whose caller was cancelled.
    in_flight: AtomicUsize,
}

impl Session {
    pub(in crate::store) async fn get(pool: &Pool) -> Result<Self, StoreError> {
        let began = Instant::now();
        let connection = pool.connections.get().await;
        pool.wait.observe(began.elapsed().as_secs_f64());
        Ok(Self {
            object: Some(connection?),
            pool: pool.clone(),
            timeouts: pool.timeouts,
            is_lost: AtomicBool::new(false),
            is_in_transaction: AtomicBool::new(false),
            commits: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        })
    }

    pub(super) fn for_long_statements(mut self, timeout: Duration) -> Self {
        self.timeouts = self.timeouts.for_long_statements(timeout);
        self
    }

    /// Runs `work` on the connection, with the timeout of a request.
    async fn within<T>(
        &self,
        work: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let Some(object) = &self.object else { return Err(StoreError::Stopping) };
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let done = match timeout(self.timeouts.response, work(object)).await {
            Ok(done) => {
                self.in_flight.fetch_sub(1, Ordering::Relaxed);
                done.map_err(StoreError::from)
            }
            Err(_) => Err(StoreError::Timeout),
        };
        if done.as_ref().is_err_and(StoreError::is_connection_lost) {
            self.is_lost.store(true, Ordering::Relaxed);
            self.pool.health.record_loss();
        }
        done
    }

    /// Returns whether a statement may be sent after a COMMIT before its response: only on a direct connection to
    /// Postgres.
    pub fn may_pipeline(&self) -> bool {
        self.pool.prepared == Prepared::On
    }

    /// Prepares the statements that this connection has not prepared yet. Statements that must be sent in one write
    /// (polled together) must all be prepared before, or they may be sent in another order.
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
        self.in_transaction(async {
            let typed = self.typed(statement, params)?;
            self.within(async |object| {
                if let Some(typed) = typed {
                    return object.query_typed(statement, &typed).await;
                }
                let prepared = object.prepare_cached(statement).await?;
                object.query(&prepared, params).await
            })
            .await
        })
        .await
    }

    /// Runs a statement that returns no rows. Returns how many rows it affected.
    pub async fn execute(&self, statement: &str, params: Params<'_>) -> Result<u64, StoreError> {
        self.in_transaction(async {
            let typed = self.typed(statement, params)?;
            self.within(async |object| {
                if let Some(typed) = typed {
                    return object.execute_typed(statement, &typed).await;
                }
                let prepared = object.prepare_cached(statement).await?;
                object.execute(&prepared, params).await
            })
            .await
        })
        .await
    }

    /// Sends a prepared statement at the first poll. The response may be ignored by dropping the future; the next user
    /// of the connection then waits for it. Not for use behind a pooler.
    pub async fn send(&self, statement: &str, params: Params<'_>) {
        if let Some(object) = &self.object
            && let Ok(prepared) = object.prepare_cached(statement).await
        {
            drop(object.query(&prepared, params).await);
        }
    }

    /// Runs one statement. Behind a pooler, it is wrapped in a transaction and sent in one write, because settings last
    /// only for a transaction.
    async fn in_transaction<T>(&self, statement: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if self.pool.prepared == Prepared::On || self.is_in_transaction.load(Ordering::Relaxed) {
            return statement.await;
        }
        // Most statements only read. A caller that commits data calls [`Self::may_commit`] first.
        let end = async {
            self.is_in_transaction.store(false, Ordering::Relaxed);
            self.within(async |object| object.batch_execute("commit").await).await
        };
        let (begun, done, ended) = tokio::join!(biased; self.begin(""), statement, end);
        // The first error is the cause.
        begun?;
        let done = done?;
        ended.map(|()| done)
    }

    /// Returns the parameters with their types, if the statement is not prepared.
    fn typed<'a>(&self, statement: &str, params: Params<'a>) -> Result<Option<Vec<Typed<'a>>>, StoreError> {
        if self.pool.prepared == Prepared::On {
            return Ok(None);
        }
        let types = parameter_types(statement).ok_or(StoreError::Corrupt("a statement's parameters"))?;
        Ok(Some(params.iter().copied().zip(types).collect()))
    }

    /// Begins a transaction whose commit is durable when Postgres responds, with `settings` in addition.
    pub async fn begin(&self, settings: &str) -> Result<(), StoreError> {
        let timeouts = self.timeouts.settings("set local");
        let local = match self.pool.prepared {
            Prepared::On if self.timeouts == self.pool.timeouts => String::new(),
            Prepared::On => timeouts,
            Prepared::Off => [&timeouts, LOCAL_SETTINGS].concat(),
        };
        self.batch_execute(&format!("begin isolation level read committed; {local}; {settings}")).await
    }

    /// Runs statements without parameters, as one message.
    pub async fn batch_execute(&self, statements: &str) -> Result<(), StoreError> {
        if statements.starts_with("begin") {
            self.is_in_transaction.store(true, Ordering::Relaxed);
        } else if ["commit", "rollback"].contains(&statements) {
            self.is_in_transaction.store(false, Ordering::Relaxed);
        }
        if statements == "commit" {
            self.may_commit();
        }
        self.within(async |object| object.batch_execute(statements).await).await
    }

    /// Declares that statements from now on may commit data that must not be lost, so they are not cancelled when the
    /// session is dropped. A COMMIT that is cancelled while it waits for a synchronous standby completes locally and
    /// becomes visible.
    pub fn may_commit(&self) {
        self.commits.store(true, Ordering::Relaxed);
    }

    /// Closes the connection instead of returning it, because its state is unknown. Its statement in flight is
    /// cancelled.
    pub fn abandon(mut self) {
        self.close();
    }

    /// Returns the connection to the pool after an error in a transaction that Postgres itself reported, so that the
    /// state is known. The transaction is rolled back; after COMMIT Postgres has done so already. If the connection was
    /// lost, it is closed.
    pub async fn release_after_error(self, error: &StoreError) {
        let is_open = self.is_in_transaction.load(Ordering::Relaxed);
        if error.is_connection_lost() || is_open && self.batch_execute("rollback").await.is_err() {
            self.abandon();
        }
    }

    fn may_cancel(&self) -> bool {
        !self.commits.load(Ordering::Relaxed)
    }

    fn close(&mut self) {
        let Some(object) = self.object.take() else { return };
        if self.in_flight.load(Ordering::Relaxed) > 0 && self.may_cancel() {
            self.pool.cancel(object);
        } else {
            drop(Object::take(object));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_lost.load(Ordering::Relaxed) || self.is_in_transaction.load(Ordering::Relaxed) {
            self.close();
        } else if self.in_flight.load(Ordering::Relaxed) > 0 {
            // The caller of the statement was cancelled.
            match self.pool.prepared {
                Prepared::On => {
                    let may_cancel = self.may_cancel();
                    self.object.take().map(|object| self.pool.return_when_idle(object, may_cancel)).unwrap_or_default();
                }
                Prepared::Off => self.close(),
            }
        }
    }
}
