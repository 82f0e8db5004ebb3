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
    /// How often everything was forgotten.
    era: u64,
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

    /// What ends when everything is forgotten.
    pub(super) fn era(&self) -> u64 {
        self.rides().era
    }

    /// Takes over what a batch that began in this era has left behind, which was committed. Where everything was forgotten
    /// meanwhile, it may have been committed in a database that is no more.
    pub(super) fn learn(&self, ledger: &mut Ledger, era: u64) {
        let at = ledger.now();
        let mut rides = self.rides();
        if rides.era != era {
            return;
        }
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
        let mut rides = self.rides();
        *rides = Rides { era: rides.era + 1, ..Rides::default() };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Receipts, Ride, Status, UserId};

    const GRACE: Duration = Duration::from_secs(60);

    fn id(name: &str) -> RideId {
        RideId::parse(name).unwrap()
    }

    fn snapshot(name: &str, head: Seq) -> RideSnapshot {
        let ride = Ride {
            id: id(name),
            status: Status::Requested,
            rider: UserId::parse("rider").unwrap(),
            driver: None,
            accepted: false,
            ended_at: None,
            closed_at: None,
            created_at: Time::now(),
            updated_at: Time::now(),
        };
        RideSnapshot { head, ride, participants: Vec::new(), receipts: Receipts::default(), location: None }
    }

    fn ledger(rides: &[(&str, Seq)]) -> Ledger {
        let rides = rides.iter().map(|(name, head)| snapshot(name, *head));
        Ledger::new(Time::now(), GRACE, rides, [], HashMap::new())
    }

    fn chats(names: &[&str]) -> Needs {
        let mut needs = Needs::default();
        names.iter().for_each(|name| needs.chat(&id(name)));
        needs
    }

    fn knowing(rides: &[(&str, Seq)]) -> Known {
        let known = Known::default();
        known.set_clock(Time::now());
        known.learn(&mut ledger(rides), 0);
        known
    }

    fn head(known: &Known, name: &str) -> Option<Seq> {
        known.take(&chats(&[name]), GRACE).map(|ledger| ledger.ride(&id(name)).unwrap().head)
    }

    #[test]
    fn a_batch_is_known_if_all_of_it_is_and_is_taken_with_it() {
        let known = knowing(&[("a", 1), ("b", 2)]);
        assert!(known.take(&chats(&["a", "c"]), GRACE).is_none());
        let both = known.take(&chats(&["a", "b"]), GRACE).unwrap();
        assert_eq!(both.ride(&id("b")).unwrap().head, 2);
        assert_eq!(head(&known, "a"), None, "somebody has it");
    }

    #[test]
    fn what_needs_more_than_the_chat_is_asked_for() {
        let known = knowing(&[("a", 1)]);
        let mut needs = chats(&["a"]);
        needs.ride(&id("a"));
        assert!(known.take(&needs, GRACE).is_none());
        assert!(known.take(&Needs::default(), GRACE).is_none());
        assert_eq!(head(&known, "a"), Some(1));
    }

    #[test]
    fn a_ride_is_forgotten_when_its_log_is_heard_to_go_on() {
        let known = knowing(&[("a", 5), ("b", 5), ("c", 5)]);
        let heads = [("a", 4), ("b", 5), ("c", 6)].map(|(name, head)| (Topic::ride(&id(name)), head));
        known.hear(heads.iter().map(|(topic, head)| (topic, head)));
        assert_eq!((head(&known, "a"), head(&known, "b"), head(&known, "c")), (Some(5), Some(5), None));
    }

    #[test]
    fn without_the_databases_clock_nothing_is_known() {
        let known = Known::default();
        known.learn(&mut ledger(&[("a", 1)]), 0);
        assert_eq!(head(&known, "a"), None);
        known.set_clock(Time::now());
        assert_eq!(head(&known, "a"), Some(1));
    }

    #[test]
    fn what_was_committed_before_everything_was_forgotten_is_not_learnt() {
        let known = knowing(&[("a", 1)]);
        let era = known.era();
        known.forget();
        known.set_clock(Time::now());
        known.learn(&mut ledger(&[("a", 2)]), era);
        assert_eq!(head(&known, "a"), None);
        known.learn(&mut ledger(&[("a", 1)]), known.era());
        assert_eq!(head(&known, "a"), Some(1));
    }

    #[test]
    fn no_event_is_older_than_the_one_before_it() {
        let known = knowing(&[("a", 1)]);
        // The clock that is asked later may be another machine's, after a failover.
        known.set_clock(Time::from_unix_seconds(0).unwrap());
        let last = known.rides().find("a").unwrap().at;
        assert_eq!(known.take(&chats(&["a"]), GRACE).unwrap().now(), last);
    }

    #[test]
    fn a_ride_whose_state_has_changed_is_loaded_anew() {
        let known = Known::default();
        known.set_clock(Time::now());
        let mut ledger = ledger(&[("a", 1), ("b", 1)]);
        let changed = ledger.ride(&id("a")).unwrap().ride.clone();
        ledger.change_ride(changed).unwrap();
        known.learn(&mut ledger, 0);
        assert_eq!((head(&known, "a"), head(&known, "b")), (None, Some(1)));
    }

    #[test]
    fn what_is_in_vain_again_and_again_is_tried_less_and_less() {
        let known = knowing(&[("a", 1)]);
        let mut spared = Vec::new();
        for _ in 0..8 {
            let mut tries = 0;
            while head(&known, "a").is_none() {
                tries += 1;
            }
            spared.push(tries);
            known.learn(&mut ledger(&[("a", 1)]), 0);
            known.proved(false);
        }
        assert_eq!(spared, [0, 0, 1, 3, 7, 15, 31, 63]);
        for _ in 0..200 {
            let _ = known.take(&chats(&["a"]), GRACE);
            known.learn(&mut ledger(&[("a", 1)]), 0);
            known.proved(true);
        }
        known.proved(false);
        assert_eq!(head(&known, "a"), Some(1), "what has been right for long is tried again at once");
    }

    #[test]
    fn who_is_not_written_to_is_forgotten_when_others_come() {
        let known = knowing(&[("kept", 1), ("gone", 1)]);
        for generation in 0..2 {
            known.learn(&mut ledger(&[("kept", 1)]), 0);
            let names: Vec<_> = (0..GENERATION).map(|number| format!("{generation}-{number}")).collect();
            let rides: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
            known.learn(&mut ledger(&rides), 0);
            known.learn(&mut ledger(&[("kept", 1)]), 0);
        }
        assert_eq!((head(&known, "kept"), head(&known, "gone")), (Some(1), None));
    }
}
