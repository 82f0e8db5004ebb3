//! What the writer knows of rides without asking: how they were at the head of their log, when it last wrote there.
//!
//! What is said on known rides is judged by that, and stored in one flight instead of two. This cannot be wrong, only
//! in vain: everything that changes what a ride's people may say has an event in its log, and events are stored only
//! where the head of their log is the one that they were judged at: the same place, written by the same batch
//! (`sql/events/append.sql`). The place alone would not do: a database that has lost its last commits, by a failover or a backup,
//! goes on to the same place with other events, and so does a ride that was taken away and made anew. Where the last event is the
//! same one, so is all that came before it. So
//! - whatever is known is known with its head, and not used when that is heard to have moved;
//! - a verdict that writes nothing, a refusal first of all, rests on nothing then and is not given: its command is judged
//!   again under the locks.
//!
//! What others say on a ride that is known, and read here as well, moves its head along: that changes nothing of what is known
//! but where the log ends. It has to follow on the event that is known, for the same reason.
//!
//! A ride that has ended is not known: its chat closes at a time, by no event of its log, so who may write there is judged under
//! the locks, by the database's clock.
//!
//! Times grow with seq also here, where the database's clock is not asked: it was not long ago, and a ride's next event is
//! never older than its last.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Ledger;
use crate::domain::{BatchId, RideId, RideSnapshot, Seq, Time, Topic};
use crate::store::StoredEvent;

/// The most rides that are known, in each of two generations; and for how long one is kept that nobody writes to, at
/// least, and at most twice that.
const GENERATION: usize = 8_192;
const MEMORY: Duration = Duration::from_secs(60);

/// How long the database's clock is believed to run as ours does.
const CLOCK_TRUST: Duration = Duration::from_secs(60);

/// After a batch that was judged in vain, the next one is not; after as many in a row as there may be, so many are not.
const MOST_SPARED: u32 = 63;

/// The rides that are known; shared with whoever hears of the others' writes.
#[derive(Debug, Default)]
pub struct Known(Mutex<Rides>);

#[derive(Debug, Default)]
struct Rides {
    young: HashMap<RideId, KnownRide>,
    /// Those that nobody has written to since the young ones began to gather.
    old: HashMap<RideId, KnownRide>,
    aged: Option<Instant>,
    clock: Option<(Time, Instant)>,
    /// When everything was forgotten.
    forgotten: Option<Instant>,
    /// How many batches are not to be judged by what is known, and how many after the next in vain.
    spare: u32,
    next_spare: u32,
}

#[derive(Debug)]
struct KnownRide {
    snapshot: RideSnapshot,
    /// Which batch wrote its last event.
    batch: BatchId,
    /// Not before its last event.
    at: Time,
    /// Where its log is said to end, if that is further.
    heard: Seq,
}

impl Known {
    fn rides(&self) -> MutexGuard<'_, Rides> {
        // A std lock: held for a few moves in a map, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of some rides that are known, if any; then they are no longer, until they are [learnt](Self::learn) again.
    pub(super) fn take<'a>(
        &self,
        wanted: impl IntoIterator<Item = &'a RideId>,
        chat_grace: Duration,
    ) -> Option<Ledger> {
        let mut rides = self.rides();
        let mut now = rides.now()?;
        if rides.spare > 0 {
            rides.spare -= 1;
            return None;
        }
        let taken: Vec<_> = wanted.into_iter().filter_map(|ride| rides.take(ride.as_str())).collect();
        drop(rides);
        if taken.is_empty() {
            return None;
        }
        let mut snapshots = Vec::with_capacity(taken.len());
        for ride in taken {
            now = now.max(ride.at);
            snapshots.push((ride.snapshot, ride.batch));
        }
        Some(Ledger::new(now, chat_grace, snapshots, [], HashMap::new()))
    }

    /// Takes over what a batch has left behind, which was committed. Where everything was forgotten since it began, it may
    /// have been committed in a database that is no more.
    pub(super) fn learn(&self, ledger: &mut Ledger, began: Instant) {
        let at = ledger.now();
        let mut rides = self.rides();
        if !rides.remember(began) {
            return;
        }
        rides.age();
        for (snapshot, batch) in ledger.take_settled() {
            rides.young.insert(snapshot.ride.id.clone(), KnownRide { snapshot, batch, at, heard: 0 });
        }
    }

    /// The database's clock said `now`, a moment ago.
    pub(super) fn set_clock(&self, now: Time) {
        self.rides().clock = Some((now, Instant::now()));
    }

    /// Of what was judged by what was known some has been stored, or all was in vain. Where others keep writing to the
    /// same rides unheard, that is tried less and less.
    pub(super) fn proved(&self, right: bool) {
        let mut rides = self.rides();
        if right {
            rides.next_spare /= 2;
        } else {
            rides.spare = rides.next_spare;
            rides.next_spare = (rides.next_spare * 2 + 1).min(MOST_SPARED);
        }
    }

    /// Notes where logs are said to end.
    pub fn hear<'a>(&self, heads: impl IntoIterator<Item = (&'a Topic, &'a Seq)>) {
        let mut rides = self.rides();
        for (topic, head) in heads {
            if let Some(known) = topic.ride_id().and_then(|ride| rides.find_mut(ride)) {
                known.heard = known.heard.max(*head);
            }
        }
    }

    /// Goes along with what a topic's log has after `after`, as the database said when it was asked, not before `asked`.
    pub fn follow(&self, topic: &Topic, after: Seq, events: &[StoredEvent], asked: Instant) {
        let mut rides = self.rides();
        if !rides.remember(asked) {
            return;
        }
        let Some(ride) = topic.ride_id() else { return };
        let Some(known) = rides.find_mut(ride).filter(|known| known.snapshot.head >= after) else { return };
        for event in events {
            if event.seq <= known.snapshot.head {
                continue;
            }
            let is_next = event.seq == known.snapshot.head + 1 && event.batch_before == Some(known.batch);
            let Some(batch) = event.batch.filter(|_| is_next && event.kind.leaves_ride()) else {
                rides.remove(ride);
                return;
            };
            known.snapshot.head = event.seq;
            known.batch = batch;
            known.at = known.at.max(event.at);
        }
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        let mut rides = self.rides();
        *rides = Rides { forgotten: Some(Instant::now()), ..Rides::default() };
    }
}

impl Rides {
    /// Whether what began then is still worth remembering.
    fn remember(&self, began: Instant) -> bool {
        self.forgotten.is_none_or(|forgotten| began > forgotten)
    }

    fn find(&self, ride: &str) -> Option<&KnownRide> {
        self.young.get(ride).or_else(|| self.old.get(ride))
    }

    fn find_mut(&mut self, ride: &str) -> Option<&mut KnownRide> {
        self.young.get_mut(ride).or_else(|| self.old.get_mut(ride))
    }

    /// Removes a ride whose log nobody is heard to have moved.
    fn take(&mut self, ride: &str) -> Option<KnownRide> {
        let known = self.find(ride)?;
        if known.heard > known.snapshot.head { None } else { self.remove(ride) }
    }

    fn remove(&mut self, ride: &str) -> Option<KnownRide> {
        let old = self.old.remove(ride);
        self.young.remove(ride).or(old)
    }

    /// The database's time, as far as can be told; a little less rather than more.
    fn now(&self) -> Option<Time> {
        let (then, taken) = self.clock?;
        let since = taken.elapsed();
        (since < CLOCK_TRUST).then(|| then.plus(since))
    }

    fn age(&mut self) {
        let aged = *self.aged.get_or_insert_with(Instant::now);
        if self.young.len() >= GENERATION || aged.elapsed() >= MEMORY {
            self.old = std::mem::take(&mut self.young);
            self.aged = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
