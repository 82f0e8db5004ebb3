//! The cache of rides to which this writer has written recently, each as of the head of its log.
//!
//! Messages to cached rides are applied to the cached state and stored in one round trip instead of two. A stale cache can cause a
//! conflict, but no wrong result. Every change of what a ride's participants may write has an event in the ride's log. A batch
//! stores its events only where the head of the log is the head to which they were applied: the same seq, written by the same batch
//! (a compare-and-set in `sql/events/append.sql`). The seq alone is not sufficient. After a failover or a restored backup, a
//! database that has lost its last commits reaches the same seq with other events. So does a ride that was deleted and created
//! again. If the last event is the same, all events before it are the same too. Therefore:
//! - Every ride is cached with its head, and is not used after a notification that its log is longer.
//! - A result without an event, first of all a rejection, has no compare-and-set that confirms it. Such a result is not sent. Its
//!   command takes the locking path.
//!
//! Events of other replicas that are read on this replica move the head of a cached ride. An event that may change more than the
//! head removes the ride. Each event must follow the cached last event, for the same reason as above.
//!
//! An ended ride is not cached. Its chat closes at a time, without an event in its log. Writes to it take the locking path, where
//! the database's clock decides.
//!
//! A cache crate does not fit. A batch takes all its rides out in one step, a notification changes the entries of many rides in one
//! step, and a conflict pauses the whole path. With one lock for each shard of a map, a batch could see half of a notification.
//!
//! Event times grow with seq on this path too, although the database's clock is not read: it was read recently, and a ride's next
//! event is never older than its last.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{BatchRules, BatchState};
use crate::domain::{BatchId, RideId, RideSnapshot, Seq, Time, Topic};
use crate::store::StoredEvent;

/// The maximum number of rides in each of two generations.
const GENERATION: usize = 8_192;

/// How long a ride without a write is cached, at least. It is evicted after at most twice this time.
const TTL: Duration = Duration::from_secs(60);

/// How long after it was read the database's clock may be extrapolated with the local clock.
const CLOCK_TTL: Duration = Duration::from_secs(60);

/// The maximum number of batches that skip the optimistic path after a conflict. The number grows with each conflict in a row.
const MAX_SKIPPED: u32 = 63;

/// The cached rides. Shared with the code that receives the writes of other replicas.
#[derive(Debug, Default)]
pub struct RideCache(Mutex<Rides>);

#[derive(Debug, Default)]
struct Rides {
    young: HashMap<RideId, CachedRide>,
    /// The rides without a write since the young generation began.
    old: HashMap<RideId, CachedRide>,
    young_since: Option<Instant>,
    /// The database's time, and when it was read.
    clock: Option<(Time, Instant)>,
    cleared: Option<Instant>,
    /// How many of the next batches skip the optimistic path.
    skip: u32,
    /// How many batches skip it after the next conflict.
    next_skip: u32,
}

#[derive(Debug)]
struct CachedRide {
    snapshot: RideSnapshot,
    /// The batch that wrote the last event of its log.
    batch: BatchId,
    /// Not earlier than its last event.
    at: Time,
    /// The head of its log according to notifications. If it is beyond the snapshot's head, the entry is stale.
    notified_head: Seq,
}

impl RideCache {
    fn rides(&self) -> MutexGuard<'_, Rides> {
        // A std lock: held for a few map operations, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the wanted rides that are cached, and returns them as the state of a batch. Returns `None` if there are none.
    ///
    /// They are not cached until an [update](Self::update). So only one batch at a time has the state of a ride.
    pub(super) fn check_out<'a>(
        &self,
        wanted: impl IntoIterator<Item = &'a RideId>,
        rules: BatchRules,
    ) -> Option<BatchState> {
        let mut rides = self.rides();
        let mut now = rides.now()?;
        if rides.skip > 0 {
            rides.skip -= 1;
            return None;
        }
        let taken: Vec<_> = wanted.into_iter().filter_map(|ride| rides.take_fresh(ride.as_str())).collect();
        drop(rides);
        if taken.is_empty() {
            return None;
        }
        let mut snapshots = Vec::with_capacity(taken.len());
        for ride in taken {
            now = now.max(ride.at);
            snapshots.push((ride.snapshot, ride.batch));
        }
        Some(BatchState::new(now, rules, snapshots, [], HashMap::new()))
    }

    /// Caches the rides of a committed batch that started at `started`.
    ///
    /// If the cache was cleared since then, the batch may have been committed in a database that no longer exists. Then this does
    /// nothing.
    pub(super) fn update(&self, state: &mut BatchState, started: Instant) {
        let at = state.now();
        let mut rides = self.rides();
        if !rides.is_current(started) {
            return;
        }
        rides.rotate();
        for (snapshot, batch) in state.take_cacheable_rides() {
            rides.young.insert(snapshot.ride.id.clone(), CachedRide { snapshot, batch, at, notified_head: 0 });
        }
    }

    /// Sets the database's clock, which was read just now.
    pub(super) fn set_clock(&self, now: Time) {
        self.rides().clock = Some((now, Instant::now()));
    }

    /// Records whether anything of an optimistic batch was stored, or nothing because of conflicts.
    ///
    /// If other replicas keep writing to the same rides and their events do not arrive here, the optimistic path backs off.
    pub(super) fn record_outcome(&self, is_stored: bool) {
        let mut rides = self.rides();
        if is_stored {
            rides.next_skip /= 2;
        } else {
            rides.skip = rides.next_skip;
            rides.next_skip = (rides.next_skip * 2 + 1).min(MAX_SKIPPED);
        }
    }

    /// Marks those rides stale whose log has grown, according to a notification of these heads.
    pub fn mark_stale<'a>(&self, heads: impl IntoIterator<Item = (&'a Topic, &'a Seq)>) {
        let mut rides = self.rides();
        for (topic, head) in heads {
            if let Some(cached) = topic.ride_id().and_then(|ride| rides.find_mut(ride)) {
                cached.notified_head = cached.notified_head.max(*head);
            }
        }
    }

    /// Applies the events of a topic's log after `after`, which were read no earlier than `read_at`. Removes a ride that they may
    /// have changed.
    pub fn apply_events(&self, topic: &Topic, after: Seq, events: &[StoredEvent], read_at: Instant) {
        let mut rides = self.rides();
        if !rides.is_current(read_at) {
            return;
        }
        let Some(ride) = topic.ride_id() else { return };
        let Some(cached) = rides.find_mut(ride).filter(|cached| cached.snapshot.head >= after) else { return };
        for event in events {
            if event.seq <= cached.snapshot.head {
                continue;
            }
            let is_next = event.seq == cached.snapshot.head + 1 && event.batch_before == Some(cached.batch);
            let Some(batch) = event.batch.filter(|_| is_next && event.kind.leaves_ride_unchanged()) else {
                rides.remove(ride);
                return;
            };
            cached.snapshot.head = event.seq;
            cached.batch = batch;
            cached.at = cached.at.max(event.at);
        }
    }

    /// Removes everything, because the database may have changed. Updates from before are then ignored.
    pub(super) fn clear(&self) {
        let mut rides = self.rides();
        *rides = Rides { cleared: Some(Instant::now()), ..Rides::default() };
    }
}

impl Rides {
    /// Whether the cache was not cleared since `started`.
    fn is_current(&self, started: Instant) -> bool {
        self.cleared.is_none_or(|cleared| started > cleared)
    }

    fn find(&self, ride: &str) -> Option<&CachedRide> {
        self.young.get(ride).or_else(|| self.old.get(ride))
    }

    fn find_mut(&mut self, ride: &str) -> Option<&mut CachedRide> {
        self.young.get_mut(ride).or_else(|| self.old.get_mut(ride))
    }

    /// Removes and returns a ride, unless it is stale.
    fn take_fresh(&mut self, ride: &str) -> Option<CachedRide> {
        let cached = self.find(ride)?;
        if cached.notified_head > cached.snapshot.head { None } else { self.remove(ride) }
    }

    fn remove(&mut self, ride: &str) -> Option<CachedRide> {
        let old = self.old.remove(ride);
        self.young.remove(ride).or(old)
    }

    /// Returns an estimate of the database's time, which is rather too early than too late.
    fn now(&self) -> Option<Time> {
        let (then, read) = self.clock?;
        let since = read.elapsed();
        (since < CLOCK_TTL).then(|| then.plus(since))
    }

    /// Starts a new generation if the young one is full or old. The rides of the old generation are evicted.
    fn rotate(&mut self) {
        let since = *self.young_since.get_or_insert_with(Instant::now);
        if self.young.len() >= GENERATION || since.elapsed() >= TTL {
            self.old = std::mem::take(&mut self.young);
            self.young_since = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
