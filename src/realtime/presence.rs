//! Who follows a ride here, and which drivers have anything open at all: counted from open streams and polls, and registered for all replicas to see.
//!
//! The database is written when a user's first connection on this replica opens, and a grace after the last has
//! closed; what lies between costs nothing. Coming is told at once, going after the grace: so a user who changes
//! the replica within it is registered there before they are taken out here, and never shows offline.
//!
//! What is registered counts while this replica's lease holds. One that has lost it, by a stop, a lost network or
//! a crashed database, takes a new name and registers everybody again, in one transaction with the new lease. Registrations
//! that hold no longer are the list of what is still to be done: each heartbeat of each replica takes some out, with all that
//! follows from it in one transaction, so whatever fails is done by the next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::domain::{Signal, Topic, UserId};
use crate::store::{Presence, Store, StoreError};

/// How long a lease holds, and how often it is renewed.
const LEASE: Duration = Duration::from_secs(15);
const BEAT: Duration = Duration::from_secs(5);

/// The most users settled in one transaction.
const SETTLE: usize = 500;

/// For how long one heartbeat takes out users who have lapsed: there may be all those of a large replica. The rest is for the
/// next.
const REAP: Duration = Duration::from_secs(2);

/// The most available drivers whom one heartbeat looks after.
const DRIVERS: i64 = 1_000;

/// How long to wait before a database that has failed is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Everybody who follows a ride on this replica.
#[derive(Debug, Default)]
pub struct Attendance {
    here: Mutex<Here>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Here {
    users: HashMap<Presence, Attendee>,
    /// Whose registration may have to change.
    unsettled: HashSet<Presence>,
    /// When to look whether those who have left are still gone. One for each, however often they come and go: who polls does
    /// with each answer. One who has come back is found to be here then.
    leaving: BinaryHeap<Reverse<(Instant, Presence)>>,
}

#[derive(Debug, Default)]
struct Attendee {
    connections: usize,
    /// When they go, having no connection.
    gone_at: Option<Instant>,
    /// When that is looked at next.
    looked_at: Option<Instant>,
    is_registered: bool,
}

/// An open stream or poll of somebody who is on the ride. They leave `grace` after it is dropped.
#[derive(Debug)]
pub struct Attending {
    attendance: Arc<Attendance>,
    presence: Presence,
    grace: Duration,
}

impl Attendance {
    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection opens to a ride's topic, or a driver's to anything.
    pub fn attend(self: &Arc<Self>, topic: Topic, user: UserId, grace: Duration) -> Attending {
        let presence = (topic, user);
        let mut here = self.here();
        let attendee = here.users.entry(presence.clone()).or_default();
        attendee.connections += 1;
        attendee.gone_at = None;
        if !attendee.is_registered {
            here.unsettled.insert(presence.clone());
            self.changed.notify_one();
        }
        drop(here);
        Attending { attendance: Arc::clone(self), presence, grace }
    }

    fn leave(&self, presence: &Presence, grace: Duration) {
        let mut here = self.here();
        let Some(attendee) = here.users.get_mut(presence) else { return };
        attendee.connections -= 1;
        if attendee.connections > 0 {
            return;
        }
        let gone_at = Instant::now() + grace;
        attendee.gone_at = Some(gone_at);
        if attendee.looked_at.is_none_or(|at| gone_at < at) {
            attendee.looked_at = Some(gone_at);
            here.leaving.push(Reverse((gone_at, presence.clone())));
            self.changed.notify_one();
        }
    }

    /// Keeps the registrations true and the lease alive, for ever. `tell` is given what is news.
    pub async fn run(&self, store: Arc<Store>, tell: impl Fn(Signal) + Send + Sync) {
        let mut replica = None;
        let mut beat_at = Instant::now();
        let mut drivers_after = None;
        loop {
            let result = match replica {
                None => self.enlist(&store, &tell).await.map(|name| replica = Some(name)),
                Some(name) if beat_at <= Instant::now() => {
                    beat_at = Instant::now() + BEAT.mul_f64(0.8 + 0.2 * fastrand::f64());
                    let lives = beat(&store, name, &mut drivers_after, &tell).await;
                    lives.map(|lives| replica = replica.filter(|_| lives))
                }
                Some(name) => self.settle(&store, name, &tell).await,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "presence waits for the database");
                sleep(PAUSE).await;
                continue;
            }
            let Some(next) = self.next_change(beat_at).filter(|_| replica.is_some()) else { continue };
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// When there is something to do next; `None`: now.
    fn next_change(&self, beat_at: Instant) -> Option<Instant> {
        let here = self.here();
        let leaving = here.leaving.peek().map_or(beat_at, |Reverse((gone_at, _))| *gone_at);
        here.unsettled.is_empty().then_some(leaving.min(beat_at))
    }

    /// Takes a lease under a new name and registers everybody under it.
    async fn enlist(&self, store: &Store, tell: &impl Fn(Signal)) -> Result<Uuid, StoreError> {
        let replica = Uuid::now_v7();
        let users = self.everybody();
        store.enlist(replica, LEASE, &users).await?.into_iter().for_each(tell);
        self.settled(&users, &[]);
        Ok(replica)
    }

    /// Those who are here, none of whom counts as registered. Those who have gone are left to be forgotten.
    fn everybody(&self) -> Vec<Presence> {
        let now = Instant::now();
        let mut here = self.here();
        let Here { users, unsettled, .. } = &mut *here;
        let mut everybody = Vec::with_capacity(users.len());
        for (presence, attendee) in users {
            attendee.is_registered = false;
            if attendee.gone_at.is_some_and(|gone_at| gone_at <= now) {
                unsettled.insert(presence.clone());
            } else {
                everybody.push(presence.clone());
            }
        }
        everybody
    }

    async fn settle(&self, store: &Store, replica: Uuid, tell: &impl Fn(Signal)) -> Result<(), StoreError> {
        let (came, gone) = self.unsettled();
        if came.is_empty() && gone.is_empty() {
            return Ok(());
        }
        match store.settle(replica, &came, &gone).await {
            Ok(news) => {
                news.into_iter().for_each(tell);
                self.settled(&came, &gone);
                Ok(())
            }
            Err(error) => {
                self.here().unsettled.extend(came.into_iter().chain(gone));
                Err(error)
            }
        }
    }

    /// Some of those whose registration has to change: to be made, and to be taken out.
    fn unsettled(&self) -> (Vec<Presence>, Vec<Presence>) {
        let now = Instant::now();
        let mut here = self.here();
        here.look(now);
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        let some: Vec<_> = here.unsettled.iter().take(SETTLE).cloned().collect();
        for presence in some {
            here.unsettled.remove(&presence);
            let Some(attendee) = here.users.get(&presence) else { continue };
            let has_gone = attendee.gone_at.is_some_and(|gone_at| gone_at <= now);
            match (has_gone, attendee.is_registered) {
                (false, false) => came.push(presence),
                (true, true) => gone.push(presence),
                (true, false) => drop(here.users.remove(&presence)),
                (false, true) => {}
            }
        }
        (came, gone)
    }

    /// Notes what the database knows now. Who came or left meanwhile is unsettled again.
    fn settled(&self, came: &[Presence], gone: &[Presence]) {
        let mut here = self.here();
        for presence in came {
            if let Some(attendee) = here.users.get_mut(presence) {
                attendee.is_registered = true;
            }
        }
        for presence in gone {
            let Some(attendee) = here.users.get_mut(presence) else { continue };
            attendee.is_registered = false;
            if attendee.connections == 0 {
                here.users.remove(presence);
            } else {
                here.unsettled.insert(presence.clone());
            }
        }
    }
}

/// A heartbeat: goes on with the lease, takes out whoever has lapsed, on whichever replica, and looks after some of the
/// available drivers, those after `drivers_after`. `false`: the lease has run out. Then nobody is taken out: those who are
/// here would be told to have left.
async fn beat(
    store: &Store,
    replica: Uuid,
    drivers_after: &mut Option<UserId>,
    tell: &impl Fn(Signal),
) -> Result<bool, StoreError> {
    let began = Instant::now();
    if !store.beat(replica, LEASE).await? {
        tracing::warn!("this replica's lease has run out; everybody here is registered again");
        return Ok(false);
    }
    store.expire().await?;
    loop {
        let lapsed = store.lapsed(SETTLE).await?;
        if lapsed.is_empty() {
            break;
        }
        store.reap(&lapsed).await?.into_iter().for_each(tell);
        if began.elapsed() > REAP {
            return Ok(true);
        }
    }
    // As long as others may take to register theirs again after a crash of the database.
    let (unattended, last) = store.unattended_drivers(drivers_after.as_ref(), DRIVERS).await?;
    if !unattended.is_empty() {
        store.register_drivers(&unattended, LEASE).await?;
    }
    *drivers_after = last;
    Ok(true)
}

impl Here {
    /// Those whose grace has ended are unsettled; who came and left again meanwhile is looked at later.
    fn look(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.leaving.peek()
            && *at <= now
            && let Some(Reverse((at, presence))) = self.leaving.pop()
        {
            // One that was put off for an earlier one has nothing to say.
            let Some(attendee) = self.users.get_mut(&presence).filter(|attendee| attendee.looked_at == Some(at)) else {
                continue;
            };
            attendee.looked_at = attendee.gone_at.filter(|gone_at| *gone_at > now);
            match attendee.looked_at {
                Some(later) => self.leaving.push(Reverse((later, presence))),
                None => {
                    self.unsettled.insert(presence);
                }
            }
        }
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.attendance.leave(&self.presence, self.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(15);

    fn user() -> Presence {
        (Topic::drivers(), UserId::parse("driver").unwrap())
    }

    /// Comes and goes.
    fn call(attendance: &Arc<Attendance>, grace: Duration) {
        let (topic, user) = user();
        drop(attendance.attend(topic, user, grace));
    }

    fn looks(attendance: &Attendance, after: Duration) -> bool {
        let mut here = attendance.here();
        here.unsettled.clear();
        here.look(Instant::now() + after);
        here.unsettled.contains(&user())
    }

    #[test]
    fn who_polls_again_and_again_is_remembered_once() {
        let attendance = Arc::new(Attendance::default());
        (0..1_000).for_each(|_| call(&attendance, GRACE));
        assert_eq!(attendance.here().leaving.len(), 1);
    }

    #[test]
    fn under_a_new_lease_nobody_counts_as_registered_and_whoever_has_gone_is_forgotten() {
        let attendance = Arc::new(Attendance::default());
        call(&attendance, GRACE);
        assert_eq!(attendance.everybody(), [user()]);
        attendance.settled(&[user()], &[]);
        assert_eq!(attendance.everybody(), [user()], "for another one");
        call(&attendance, Duration::ZERO);
        assert_eq!(attendance.everybody(), []);
        assert_eq!(attendance.unsettled(), (Vec::new(), Vec::new()));
        assert!(attendance.here().users.is_empty());
    }

    #[test]
    fn who_comes_and_goes_again_within_the_grace_has_all_of_it() {
        let attendance = Arc::new(Attendance::default());
        call(&attendance, GRACE / 2);
        call(&attendance, GRACE);
        assert!(!looks(&attendance, GRACE / 2));
        assert!(looks(&attendance, GRACE));
    }

    #[test]
    fn who_goes_for_a_shorter_time_than_before_is_missed_sooner() {
        let attendance = Arc::new(Attendance::default());
        call(&attendance, GRACE * 4);
        call(&attendance, GRACE);
        assert!(looks(&attendance, GRACE));
        assert!(!looks(&attendance, GRACE * 4), "that was all");
    }
}
