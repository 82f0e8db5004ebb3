//! The transaction of one batch. It takes one to three round trips, usually two. The statements of a round trip are sent in one write.
//!
//! 1. The first round trip begins the transaction, locks the topics that no other session has locked, and loads the read set.
//!    Locking is a statement of its own. Under READ COMMITTED each statement has its own snapshot, so the snapshots of the loading
//!    statements are newer than the locks. If one statement locked and loaded, its snapshot would be older than the change that the
//!    lock waited for. Two replicas could then both find that a message has not been sent yet.
//! 2. If a ride ends or its participants change, the next round trip locks the topics of the users who are notified. They are known
//!    only after the batch is applied. The topics of rides sort before those of users, and each round trip locks in order, so two
//!    batches cannot deadlock.
//! 3. The last round trip stores everything and commits. COMMIT is sent before the results of the previous statements are known.
//!    This is safe: if one of them fails, Postgres turns the COMMIT into a ROLLBACK.
//!
//! An optimistic batch, which was applied to the [ride cache](super::ride_cache), has the last round trip alone. It stores nothing of
//! a topic whose head is no longer the cached one.
//!
//! If an earlier COMMIT is in doubt, the first round trip also looks up its [outcome](InDoubtBatch), after the locks. It waits for
//! locks then, because the transaction in doubt may hold them.

mod columns;
mod in_doubt;
mod load;
mod outbox;
mod store;

use std::collections::HashSet;

pub(super) use self::in_doubt::{InDoubtBatch, Outcome, Outcomes};
use self::store::FeedMode;
use super::{BatchState, ReadSet, WriterConfig};
use crate::domain::{RideId, Topic};
use crate::store::hints::{self, Heads, Hints};
use crate::store::{Session, Store, StoreError};

/// The minimum number of topics in a commit at which its hints are combined with those of the next commits.
const COMBINE_FROM: usize = 4;

/// Why a batch was not committed, or may not have been.
#[derive(Debug)]
pub(super) enum CommitError {
    /// Nothing is committed, and nothing will be.
    NotCommitted(StoreError),
    /// The batch may be committed, or may still be. The next transaction must look up the outcome.
    InDoubt(Box<InDoubtBatch>, StoreError),
}

/// Which topics of a batch were stored.
#[derive(Debug)]
pub(super) enum Stored {
    /// All of them. On the locking path it is always all.
    All,
    /// Only these topics. The others had a conflict: another session has written to them or has locked them.
    Only(HashSet<Topic>),
}

impl Stored {
    /// Whether any topic was stored.
    pub(super) fn has_any(&self) -> bool {
        !matches!(self, Self::Only(topics) if topics.is_empty())
    }

    /// Whether the events of a ride were stored.
    pub(super) fn contains(&self, ride: &RideId) -> bool {
        match self {
            Self::All => true,
            Self::Only(topics) => topics.contains(&Topic::ride(ride)),
        }
    }
}

/// The transaction of a batch: with its locks held, or not begun yet for an optimistic batch.
#[derive(Debug)]
pub(super) struct BatchTransaction {
    session: Session,
    has_begun: bool,
    /// The rides that another session has locked. They are not loaded, and no command can be applied to them.
    pub(super) locked_rides: HashSet<RideId>,
}

impl BatchTransaction {
    /// Begins, locks and loads. Also returns the outcomes of the batches in doubt, whose commands are part of the read set.
    pub(super) async fn begin(
        store: &Store,
        read_set: &ReadSet,
        config: &WriterConfig,
        in_doubt: &[InDoubtBatch],
    ) -> Result<(Self, BatchState, Vec<Outcomes>), StoreError> {
        let session = store.session().await?;
        match load::load(&session, read_set, config.rules, in_doubt).await {
            Ok((state, locked_rides, outcomes)) => {
                Ok((Self { session, has_begun: true, locked_rides }, state, outcomes))
            }
            Err(error) => {
                session.release_after_error(&error).await;
                Err(error)
            }
        }
    }

    /// Creates the transaction of an optimistic batch. It begins with the commit.
    pub(super) async fn optimistic(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { session: store.session().await?, has_begun: false, locked_rides: HashSet::new() })
    }

    /// Locks the topics of the user events, and assigns their seqs.
    ///
    /// Returns the topics that another session has locked or is creating. If there are any, no seq is assigned.
    pub(super) async fn lock_user_topics(
        &mut self,
        state: &mut BatchState,
        waits: bool,
    ) -> Result<HashSet<Topic>, StoreError> {
        load::lock_user_topics(&self.session, state, waits).await
    }

    /// Commits a transaction that stores nothing.
    ///
    /// Afterwards the commits of other transactions that were found under these locks are as durable as a commit of this one. A row lock
    /// is a write, so this COMMIT waits for the disk and for a synchronous standby, and everything before it in the WAL is there too.
    pub(super) async fn commit_unchanged(self) -> Result<(), StoreError> {
        let committed = self.session.batch_execute("commit").await;
        if let Err(error) = &committed {
            self.session.release_after_error(error).await;
        }
        committed
    }

    /// Rolls back.
    pub(super) async fn rollback(self) {
        if self.session.batch_execute("rollback").await.is_err() {
            self.session.abandon();
        }
    }

    /// Rolls back after an error.
    pub(super) async fn abort(self, error: &StoreError) {
        self.session.release_after_error(error).await;
    }

    /// Stores and commits the changes in `state`, of which there is at least one. Afterwards `state` contains only what was stored.
    pub(super) async fn commit(
        self,
        store: &Store,
        config: &WriterConfig,
        mut state: BatchState,
    ) -> Result<(Stored, BatchState), CommitError> {
        state.has_outbox_rows = !state.reported_rides().is_empty();
        let hints = if config.notifier.is_on() { state.hints() } else { Hints::default() };
        // Under load, one NOTIFY for several commits saves more than it delays.
        let (at_once, later) = match hints.heads.len() < COMBINE_FROM && self.session.may_pipeline() {
            true => (hints::encode(&hints, &store.origin), Heads::new()),
            false => (Vec::new(), hints.heads),
        };
        let stored =
            match store::store_and_commit(&self.session, self.has_begun, &state, FeedMode::new(config), &at_once).await
            {
                Ok((only, relayed)) => {
                    state.relayed = relayed;
                    only.map_or(Stored::All, Stored::Only)
                }
                Err(error) => {
                    self.session.release_after_error(&error).await;
                    let is_in_doubt = error.is_connection_lost();
                    let in_doubt = InDoubtBatch { state, was_locked: self.has_begun };
                    return Err(match is_in_doubt {
                        true => CommitError::InDoubt(Box::new(in_doubt), error),
                        false => CommitError::NotCommitted(error),
                    });
                }
            };
        match &stored {
            Stored::All => config.notifier.notify_heads(later),
            // The hints of the round trip itself were sent for all topics or for none.
            Stored::Only(topics) => {
                state.retain_topics(topics);
                config.notifier.notify_heads(state.hints().heads);
            }
        }
        Ok((stored, state))
    }
}
