//! What the writer knows of rides without asking: how they were at the head of their log, when it last wrote there.
//!
//! A batch of which all rides are known is judged by that, and stored in one flight instead of two. This cannot be
//! wrong, only in vain: everything that changes what a ride's people may say has an event in its log, and a batch
//! is stored only where the heads of its logs are what they were judged to be (`sql/events/append.sql`). So
//! - whatever is known is known with its head, and forgotten when that is heard to have moved;
//! - a verdict that writes nothing, a refusal first of all, rests on nothing then and is not given: its batch is judged
//!   again under the locks.
//!
//! Times grow with seq also here, where the database's clock is not asked: it was not long ago, and a ride's next event is
//! never older than its last.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Ledger, Needs};
use crate::domain::{RideId, RideSnapshot, Seq, Time, Topic};

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
    /// How many batches are not to be judged by what is known, and how many after the next in vain.
    spare: u32,
    next_spare: u32,
}

#[derive(Debug)]
struct KnownRide {
    snapshot: RideSnapshot,
    /// Not before its last event.
    at: Time,
}

impl Known {
    fn rides(&self) -> MutexGuard<'_, Rides> {
        // A std lock: held for a few moves in a map, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a batch needs, if it is all known; then it is no longer, until it is [learnt](Self::learn) again.
    pub(super) fn take(&self, needs: &Needs, chat_grace: Duration) -> Option<Ledger> {
        if needs.is_strict() {
            return None;
        }
        let mut rides = self.rides();
        let mut now = rides.now()?;
        if !needs.rides.iter().all(|ride| rides.find(ride.as_str()).is_some()) {
            return None;
        }
        if rides.spare > 0 {
            rides.spare -= 1;
            return None;
        }
        let taken: Vec<_> = needs.rides.iter().filter_map(|ride| rides.remove(ride.as_str())).collect();
        drop(rides);
        let mut snapshots = Vec::with_capacity(taken.len());
        for ride in taken {
            now = now.max(ride.at);
            snapshots.push(ride.snapshot);
        }
        Some(Ledger::new(now, chat_grace, snapshots, [], HashMap::new()))
    }

    /// Takes over what a batch has left behind, which was committed.
    pub(super) fn learn(&self, ledger: &mut Ledger) {
        let at = ledger.now();
        let mut rides = self.rides();
        rides.age();
        for snapshot in ledger.take_settled() {
            rides.young.insert(snapshot.ride.id.clone(), KnownRide { snapshot, at });
        }
    }

    /// The database's clock said `now`, a moment ago.
    pub(super) fn set_clock(&self, now: Time) {
        self.rides().clock = Some((now, Instant::now()));
    }

    /// A batch that was judged by what was known has been stored, or was judged in vain. Where others keep writing to the
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

    /// Forgets rides whose logs are heard to end later than is known.
    pub fn hear<'a>(&self, heads: impl IntoIterator<Item = (&'a Topic, &'a Seq)>) {
        let mut rides = self.rides();
        for (topic, head) in heads {
            if let Some(ride) = topic.ride_id()
                && rides.find(ride).is_some_and(|known| known.snapshot.head < *head)
            {
                rides.remove(ride);
            }
        }
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        *self.rides() = Rides::default();
    }
}

impl Rides {
    fn find(&self, ride: &str) -> Option<&KnownRide> {
        self.young.get(ride).or_else(|| self.old.get(ride))
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
