//! Sends the outbox of a shard to the other shards: events for the topics of their users, and entries in the users' lists of rides.
//!
//! Each replica runs this for each shard. For each other shard that has rows, it reads the oldest ones, submits them to that shard's writer
//! as one command, and deletes them when the command is committed. No lock and no transaction spans two shards, so any step may fail, and is
//! then repeated: by this replica or by another one. A shard that is not available delays only its own rows.
//!
//! Invariants:
//! - A row is deleted only after the other shard has committed it. So no row is lost.
//! - A row that is submitted again, also by several replicas at once, is applied once (`BatchState::receive`).
//! - The rows of a ride are applied in the order of their ids: a replica submits a row together with, or after, all earlier rows for the
//!   same shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::{ReceiveRows, Writer};
use crate::domain::{Error, ShardId, Sharded};
use crate::store::{OutboxRow, Store};

/// The maximum number of rows in one command, whose users' topics are locked together.
const PART: i64 = 50;

/// How long to wait before rows that were not committed are submitted again, in milliseconds; jittered.
const PAUSE_MS: std::ops::Range<u64> = 50..150;

/// Sends the outbox of a shard.
#[derive(Debug, Default)]
pub struct OutboxSender {
    added: Notify,
    progress: watch::Sender<Progress>,
}

/// How far the rows that this replica has added are sent. Each report of [`OutboxSender::wake`] has a number.
#[derive(Debug, Default)]
struct Progress {
    /// The number of the last report.
    added: u64,
    /// For each other shard: the report up to which its rows are being sent, and the one up to which they are sent.
    shards: BTreeMap<ShardId, (u64, u64)>,
}

impl Progress {
    fn sent(&self, shard: ShardId) -> u64 {
        self.shards.get(&shard).map_or(0, |(_, sent)| *sent)
    }
}

impl OutboxSender {
    /// Reports that this replica may have added rows.
    pub fn wake(&self) {
        self.progress.send_modify(|progress| progress.added += 1);
        self.added.notify_one();
    }

    /// Waits until these shards have what was added before, or for `timeout`.
    pub async fn wait_until_sent(&self, shards: &BTreeSet<ShardId>, timeout: Duration) {
        let mut progress = self.progress.subscribe();
        let added = progress.borrow().added;
        let sent = progress.wait_for(|progress| shards.iter().all(|shard| progress.sent(*shard) >= added));
        drop(tokio::time::timeout(timeout, sent).await);
    }

    /// Sends rows forever: when this replica has added some, and about every `period`, because another replica may have failed to send
    /// its own.
    pub async fn run(&self, from: ShardId, store: Arc<Store>, writers: Sharded<Writer>, period: Duration) {
        let waiting = Sharded::new(writers.map(), |_| Notify::new());
        let sending = writers.map().shards().filter(|to| *to != from).map(|to| {
            let (store, waiting, writer) = (&store, waiting.get(to), writers.get(to));
            async move {
                loop {
                    waiting.notified().await;
                    self.send_all(from, store, to, writer).await;
                }
            }
        });
        let searching = async {
            loop {
                let added = self.progress.borrow().added;
                match store.outbox_shards().await {
                    Ok(with_rows) => {
                        for shard in writers.map().shards().filter(|shard| *shard != from) {
                            let has_rows = with_rows.contains(&shard.number());
                            self.progress.send_modify(|progress| {
                                let (sending, sent) = progress.shards.entry(shard).or_default();
                                *sending = added;
                                *sent = if has_rows { *sent } else { added };
                            });
                            if has_rows {
                                waiting.get(shard).notify_one();
                            }
                        }
                    }
                    Err(error) => tracing::debug!(%error, shard = from.number(), "outbox could not be read"),
                }
                let wait = period.mul_f64(0.8 + 0.4 * fastrand::f64());
                // Elapsed or woken, the outbox is read again.
                drop(timeout(wait, self.added.notified()).await);
            }
        };
        tokio::join!(join_all(sending), searching);
    }

    /// Sends all rows for a shard. Repeats what fails, until no row is left.
    async fn send_all(&self, from: ShardId, store: &Store, to: ShardId, writer: &Writer) {
        loop {
            let read_at = Instant::now();
            let sending = self.progress.borrow().shards.get(&to).map_or(0, |(sending, _)| *sending);
            let sent = match store.outbox(to, PART).await {
                Ok(rows) => {
                    let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < PART);
                    send(from, store, writer, rows, read_at).await.map(|()| is_last)
                }
                Err(error) => Err(Error::from(&error)),
            };
            match sent {
                Ok(false) => {}
                Ok(true) => {
                    self.progress.send_modify(|progress| {
                        let (_, sent) = progress.shards.entry(to).or_default();
                        *sent = sending.max(*sent);
                    });
                    return;
                }
                Err(error) => {
                    // Another replica may send the same rows at the moment, or the shard is not available.
                    tracing::debug!(%error, from = from.number(), to = to.number(), "outbox rows not sent, retrying");
                    sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
                }
            }
        }
    }
}

/// Sends rows that were read at `read_at`, and deletes them.
async fn send(
    from: ShardId,
    store: &Store,
    writer: &Writer,
    rows: Vec<OutboxRow>,
    read_at: Instant,
) -> Result<(), Error> {
    // After a long pause of this process, another replica may have sent these rows long ago, and their rides may be deleted.
    if read_at.elapsed() > store.timeout() {
        return Err(Error::Unavailable);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    writer.submit(ReceiveRows { from, rows }).await?;
    store.delete_from_outbox(&ids).await.map_err(|error| Error::from(&error))
}
