//! Presence: which users have a stream or poll of a ride open, and which drivers have any connection open. Connections are counted here
//! and registered in the database for all replicas.
//!
//! The database is written when a user's first connection on this replica opens, and when the grace period after the last one has passed.
//! Reconnects in between write nothing. Online is announced immediately, offline after the grace period. So a user who changes the replica
//! within the grace period is registered on the new one before the old one removes them, and never appears offline.
//!
//! A registration is valid while this replica's lease is. A replica can lose its lease: it was stopped, the network failed, or the database
//! crashed. It then takes a new id, and registers all its users again in the same transaction as the new lease.
//!
//! Expired registrations are themselves the list of work to do. Each heartbeat of each replica removes some of them, with all
//! consequences in one transaction. So work that fails is done by the next heartbeat.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::domain::{StateUpdate, Topic, UserId};
use crate::store::{Store, StoreError, TopicUser};

/// How long a lease is valid, and how often it is renewed.
const LEASE: Duration = Duration::from_secs(15);
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The largest number of users that one transaction reconciles.
const RECONCILE_LIMIT: usize = 500;

/// How long one heartbeat removes expired users. There may be all users of a large replica; the next heartbeats remove the rest.
const EXPIRE_TIME: Duration = Duration::from_secs(2);

/// The largest number of available drivers that one heartbeat checks.
const DRIVER_LIMIT: i64 = 1_000;

/// How long to wait before a failed database call is retried.
const PAUSE: Duration = Duration::from_millis(500);

/// Counts each user's open connections on this replica, and keeps the database's registrations in line with them.
#[derive(Debug, Default)]
pub struct PresenceTracker {
    state: Mutex<TrackerState>,
    changed: Notify,
    lease: watch::Sender<Option<Uuid>>,
}

#[derive(Debug, Default)]
struct TrackerState {
    users: HashMap<TopicUser, PresenceEntry>,
    /// Users whose registration may have to change.
    pending: HashSet<TopicUser>,
    /// When to check whether a disconnected user is still disconnected. There is one entry per user, however often the user polls. The
    /// check finds out whether the user has reconnected.
    checks: BinaryHeap<Reverse<(Instant, TopicUser)>>,
}

#[derive(Debug, Default)]
struct PresenceEntry {
    connections: usize,
    /// When the user goes offline, if no connection is open.
    offline_at: Option<Instant>,
    /// When that is checked next.
    check_at: Option<Instant>,
    is_registered: bool,
}

/// An open stream or poll of a participant. The user goes offline `grace` after the last one is dropped.
#[derive(Debug)]
pub struct PresenceGuard {
    tracker: Arc<PresenceTracker>,
    presence: TopicUser,
    grace: Duration,
}

impl PresenceTracker {
    fn state(&self) -> MutexGuard<'_, TrackerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current lease of this replica.
    pub fn lease(&self) -> watch::Receiver<Option<Uuid>> {
        self.lease.subscribe()
    }

    /// Counts a connection: on a ride's topic, or any connection of a driver on the drivers' topic.
    pub fn connect(self: &Arc<Self>, topic: Topic, user: UserId, grace: Duration) -> PresenceGuard {
        let presence = (topic, user);
        let mut state = self.state();
        let entry = state.users.entry(presence.clone()).or_default();
        entry.connections += 1;
        entry.offline_at = None;
        if !entry.is_registered {
            state.pending.insert(presence.clone());
            self.changed.notify_one();
        }
        drop(state);
        PresenceGuard { tracker: Arc::clone(self), presence, grace }
    }

    fn disconnect(&self, presence: &TopicUser, grace: Duration) {
        let mut state = self.state();
        let Some(entry) = state.users.get_mut(presence) else { return };
        entry.connections -= 1;
        if entry.connections > 0 {
            return;
        }
        let offline_at = Instant::now() + grace;
        entry.offline_at = Some(offline_at);
        if entry.check_at.is_none_or(|at| offline_at < at) {
            entry.check_at = Some(offline_at);
            state.checks.push(Reverse((offline_at, presence.clone())));
            self.changed.notify_one();
        }
    }

    /// Reconciles the registrations and renews the lease, forever. `notify` receives each change.
    pub async fn run(&self, store: Arc<Store>, notify: impl Fn(StateUpdate) + Send + Sync) {
        let mut heartbeat_at = Instant::now();
        let mut drivers_after = None;
        loop {
            let replica = *self.lease.borrow();
            let result = match replica {
                None => self.register(&store, &notify).await,
                Some(name) if heartbeat_at <= Instant::now() => {
                    heartbeat_at = Instant::now() + HEARTBEAT.mul_f64(0.8 + 0.2 * fastrand::f64());
                    let is_alive = heartbeat(&store, name, &mut drivers_after, &notify).await;
                    is_alive.map(|is_alive| {
                        if !is_alive {
                            self.lease.send_replace(None);
                        }
                    })
                }
                Some(name) => self.reconcile(&store, name, &notify).await,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "presence update failed, retrying");
                sleep(PAUSE).await;
                continue;
            }
            let Some(next) = self.next_change(heartbeat_at).filter(|_| self.lease.borrow().is_some()) else { continue };
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Returns when there is something to do next, or `None` if there is something to do now.
    fn next_change(&self, heartbeat_at: Instant) -> Option<Instant> {
        let state = self.state();
        let check_at = state.checks.peek().map_or(heartbeat_at, |Reverse((offline_at, _))| *offline_at);
        state.pending.is_empty().then_some(check_at.min(heartbeat_at))
    }

    /// Takes a lease under a new id and registers all connected users under it.
    async fn register(&self, store: &Store, notify: &impl Fn(StateUpdate)) -> Result<(), StoreError> {
        let replica = Uuid::now_v7();
        let users = self.connected_users();
        store.register_replica(replica, LEASE, &users).await?.into_iter().for_each(notify);
        self.mark_stored(&users, &[]);
        self.lease.send_replace(Some(replica));
        Ok(())
    }

    /// Returns all connected users and marks them as unregistered. Users whose grace period has passed are marked for removal.
    fn connected_users(&self) -> Vec<TopicUser> {
        let now = Instant::now();
        let mut state = self.state();
        let TrackerState { users, pending, .. } = &mut *state;
        let mut connected = Vec::with_capacity(users.len());
        for (presence, entry) in users {
            entry.is_registered = false;
            if entry.offline_at.is_some_and(|offline_at| offline_at <= now) {
                pending.insert(presence.clone());
            } else {
                connected.push(presence.clone());
            }
        }
        connected
    }

    async fn reconcile(&self, store: &Store, replica: Uuid, notify: &impl Fn(StateUpdate)) -> Result<(), StoreError> {
        let (to_register, to_unregister) = self.take_pending();
        if to_register.is_empty() && to_unregister.is_empty() {
            return Ok(());
        }
        match store.reconcile_presence(replica, &to_register, &to_unregister).await {
            Ok(updates) => {
                updates.into_iter().for_each(notify);
                self.mark_stored(&to_register, &to_unregister);
                Ok(())
            }
            Err(error) => {
                self.state().pending.extend(to_register.into_iter().chain(to_unregister));
                Err(error)
            }
        }
    }

    /// Takes some of the users whose registration must change: those to register and those to unregister.
    fn take_pending(&self) -> (Vec<TopicUser>, Vec<TopicUser>) {
        let now = Instant::now();
        let mut state = self.state();
        state.check_due(now);
        let (mut to_register, mut to_unregister) = (Vec::new(), Vec::new());
        let batch: Vec<_> = state.pending.iter().take(RECONCILE_LIMIT).cloned().collect();
        for presence in batch {
            state.pending.remove(&presence);
            let Some(entry) = state.users.get(&presence) else { continue };
            let is_offline = entry.offline_at.is_some_and(|offline_at| offline_at <= now);
            match (is_offline, entry.is_registered) {
                (false, false) => to_register.push(presence),
                (true, true) => to_unregister.push(presence),
                (true, false) => drop(state.users.remove(&presence)),
                (false, true) => {}
            }
        }
        (to_register, to_unregister)
    }

    /// Notes what the database has stored. A user who connected or disconnected meanwhile is reconciled again.
    fn mark_stored(&self, registered: &[TopicUser], unregistered: &[TopicUser]) {
        let mut state = self.state();
        for presence in registered {
            if let Some(entry) = state.users.get_mut(presence) {
                entry.is_registered = true;
            }
        }
        for presence in unregistered {
            let Some(entry) = state.users.get_mut(presence) else { continue };
            entry.is_registered = false;
            if entry.connections == 0 {
                state.users.remove(presence);
            } else {
                state.pending.insert(presence.clone());
            }
        }
    }
}

/// Renews the lease, removes expired users of every replica, and checks some of the available drivers: those after `drivers_after`.
/// Returns `false` if the lease has expired. Then no user is removed, because the users of this replica would be announced as offline.
async fn heartbeat(
    store: &Store,
    replica: Uuid,
    drivers_after: &mut Option<UserId>,
    notify: &impl Fn(StateUpdate),
) -> Result<bool, StoreError> {
    let began = Instant::now();
    if !store.heartbeat(replica, LEASE).await? {
        tracing::warn!("presence lease of this replica expired; all its users are registered again");
        return Ok(false);
    }
    store.expire_leases().await?;
    loop {
        let expired = store.expired_presence(RECONCILE_LIMIT).await?;
        if expired.is_empty() {
            break;
        }
        store.remove_expired_presence(&expired).await?.into_iter().for_each(notify);
        if began.elapsed() > EXPIRE_TIME {
            return Ok(true);
        }
    }
    // As long as other replicas may need to register their drivers again after a crash of the database.
    let (unregistered, last) = store.unregistered_drivers(drivers_after.as_ref(), DRIVER_LIMIT).await?;
    if !unregistered.is_empty() {
        store.register_drivers(&unregistered, LEASE).await?;
    }
    *drivers_after = last;
    Ok(true)
}

impl TrackerState {
    /// Marks users whose grace period has passed for reconciliation. A user who reconnected and disconnected again is checked later.
    fn check_due(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.checks.peek()
            && *at <= now
            && let Some(Reverse((at, presence))) = self.checks.pop()
        {
            // An entry that was replaced by an earlier one is ignored.
            let Some(entry) = self.users.get_mut(&presence).filter(|entry| entry.check_at == Some(at)) else {
                continue;
            };
            entry.check_at = entry.offline_at.filter(|offline_at| *offline_at > now);
            match entry.check_at {
                Some(later) => self.checks.push(Reverse((later, presence))),
                None => {
                    self.pending.insert(presence);
                }
            }
        }
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        self.tracker.disconnect(&self.presence, self.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(15);

    fn user() -> TopicUser {
        (Topic::drivers(), UserId::parse("driver").unwrap())
    }

    /// Connects and disconnects.
    fn poll(tracker: &Arc<PresenceTracker>, grace: Duration) {
        let (topic, user) = user();
        drop(tracker.connect(topic, user, grace));
    }

    fn is_due(tracker: &PresenceTracker, after: Duration) -> bool {
        let mut state = tracker.state();
        state.pending.clear();
        state.check_due(Instant::now() + after);
        state.pending.contains(&user())
    }

    #[test]
    fn a_user_who_polls_repeatedly_has_one_entry() {
        let tracker = Arc::new(PresenceTracker::default());
        (0..1_000).for_each(|_| poll(&tracker, GRACE));
        assert_eq!(tracker.state().checks.len(), 1);
    }

    #[test]
    fn under_a_new_lease_all_users_are_unregistered_and_disconnected_ones_are_removed() {
        let tracker = Arc::new(PresenceTracker::default());
        poll(&tracker, GRACE);
        assert_eq!(tracker.connected_users(), [user()]);
        tracker.mark_stored(&[user()], &[]);
        assert_eq!(tracker.connected_users(), [user()], "for another lease");
        poll(&tracker, Duration::ZERO);
        assert_eq!(tracker.connected_users(), []);
        assert_eq!(tracker.take_pending(), (Vec::new(), Vec::new()));
        assert!(tracker.state().users.is_empty());
    }

    #[test]
    fn a_user_who_reconnects_within_the_grace_period_gets_all_of_it_again() {
        let tracker = Arc::new(PresenceTracker::default());
        poll(&tracker, GRACE / 2);
        poll(&tracker, GRACE);
        assert!(!is_due(&tracker, GRACE / 2));
        assert!(is_due(&tracker, GRACE));
    }

    #[test]
    fn a_shorter_grace_period_brings_the_check_forward() {
        let tracker = Arc::new(PresenceTracker::default());
        poll(&tracker, GRACE * 4);
        poll(&tracker, GRACE);
        assert!(is_due(&tracker, GRACE));
        assert!(!is_due(&tracker, GRACE * 4), "no further check is scheduled");
    }
}
