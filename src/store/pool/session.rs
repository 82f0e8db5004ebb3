//! One connection, as it is used.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::timeouts::Timeouts;
use super::{LOCAL_SETTINGS, Params, Pool, Prepared};
use crate::store::{StoreError, parameter_types};

/// A parameter, and what it is.
type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection out of the pool. It goes back when it is dropped; where a transaction begun on it was not ended it is closed,
/// as when the session is [abandoned](Session::abandon).
///
/// Through a pooler no second statement is sent outside of a transaction while one is under way, nor is a connection given
/// back with one: a pooler that takes the first answer for the end gives its own connection to the next client, who then
/// gets the second (`PgBouncer` 1.18 does, where ours is closed at that moment). And as no setting outlives a transaction
/// there, a statement that stands alone gets a transaction too.
///
/// A network may forget a connection and tell neither side. So no statement is waited for without end; and where
/// one connection is lost, by an error or by silence, those that wait in the pool are tried before they are used again.
#[derive(Debug)]
pub struct Session {
    /// `None` once it was let go of.
    object: Option<Object>,
    pool: Pool,
    timeouts: Timeouts,
    is_lost: AtomicBool,
    is_in_transaction: AtomicBool,
    /// Whether what was sent may commit what must not be lost.
    commits: AtomicBool,
    /// Statements whose answers have not come; those that nobody waits for any more included.
    under_way: AtomicUsize,
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
            under_way: AtomicUsize::new(0),
        })
    }

    pub(super) fn for_long_statements(mut self, timeout: Duration) -> Self {
        self.timeouts = self.timeouts.for_long_statements(timeout);
        self
    }

    /// Does something with the connection, for as long as a request may wait.
    async fn within<T>(
        &self,
        work: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let Some(object) = &self.object else { return Err(StoreError::Stopping) };
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let done = match timeout(self.timeouts.response, work(object)).await {
            Ok(done) => {
                self.under_way.fetch_sub(1, Ordering::Relaxed);
                done.map_err(StoreError::from)
            }
            Err(_) => Err(StoreError::Timeout),
        };
        if done.as_ref().is_err_and(StoreError::is_connection_lost) {
            self.is_lost.store(true, Ordering::Relaxed);
            self.pool.suspicion.raise();
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

    /// Runs a statement that returns none.
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

    /// Sends a statement that was prepared before, when this is first polled. Its answer need not be waited for: this may be
    /// dropped then, and whoever uses the connection next has the wait. Not through a pooler.
    pub async fn send(&self, statement: &str, params: Params<'_>) {
        if let Some(object) = &self.object
            && let Ok(prepared) = object.prepare_cached(statement).await
        {
            drop(object.query(&prepared, params).await);
        }
    }

    /// Runs one statement; where the settings are those of a transaction, in one, all in one write.
    async fn in_transaction<T>(&self, statement: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if self.pool.prepared == Prepared::On || self.is_in_transaction.load(Ordering::Relaxed) {
            return statement.await;
        }
        // Most only read: whoever must not lose what it commits says so.
        let end = async {
            self.is_in_transaction.store(false, Ordering::Relaxed);
            self.within(async |object| object.batch_execute("commit").await).await
        };
        let (begun, done, ended) = tokio::join!(biased; self.begin(""), statement, end);
        // The first that failed is the cause.
        begun?;
        let done = done?;
        ended.map(|()| done)
    }

    /// The parameters with their types, where they have to be said.
    fn typed<'a>(&self, statement: &str, params: Params<'a>) -> Result<Option<Vec<Typed<'a>>>, StoreError> {
        if self.pool.prepared == Prepared::On {
            return Ok(None);
        }
        let types = parameter_types(statement).ok_or(StoreError::Corrupt("a statement's parameters"))?;
        Ok(Some(params.iter().copied().zip(types).collect()))
    }

    /// Begins a transaction, in which no commit answers before it is durable; with further settings of its own.
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

    /// What is sent from here on may commit what must not be lost: it is not cancelled if it is abandoned. A COMMIT that is
    /// cancelled while it waits for a synchronous standby is done without it, and shows itself to those who look for it.
    pub fn may_commit(&self) {
        self.commits.store(true, Ordering::Relaxed);
    }

    /// Closes the connection rather than giving it back: its state is unknown. What it still works on is cancelled.
    pub fn abandon(mut self) {
        self.close();
    }

    /// Gives the connection back after an error of a statement in a transaction, where Postgres itself has said so and so the
    /// state is known. The transaction is rolled back; one whose COMMIT was sent was so already.
    pub async fn give_up(self, error: &StoreError) {
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
        if self.under_way.load(Ordering::Relaxed) > 0 && self.may_cancel() {
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
        } else if self.under_way.load(Ordering::Relaxed) > 0 {
            // Whoever waited for it has gone.
            match self.pool.prepared {
                Prepared::On => {
                    let may_cancel = self.may_cancel();
                    self.object.take().map(|object| self.pool.settle(object, may_cancel)).unwrap_or_default();
                }
                Prepared::Off => self.close(),
            }
        }
    }
}
