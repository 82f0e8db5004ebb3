//! The shards of this deployment: everything that commits, stores and publishes the events of one shard.
//!
//! Invariants:
//! - A batch, and so a lock and a commit, concerns one shard.
//! - Each shard has its own connections, writer, hub and listener. If the database of one shard fails, the others go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::domain::{Caller, RideId, RideListCursor, RideSnapshot, ShardId, ShardMap, Sharded, StateUpdate, UserId};
use crate::realtime::{Hub, Listener, PresenceTracker};
use crate::store::{RideList, Store, StoreError, StoredRide, UnreadRide};
use crate::writer::outbox::OutboxSender;
use crate::writer::relay::Relay;
use crate::writer::{Acknowledger, Notifier, Writer};

/// The parts of one shard.
#[derive(Debug, Clone)]
pub struct Shard {
    /// The number of the shard.
    pub id: ShardId,
    /// Reads from the shard's database.
    pub store: Arc<Store>,
    /// Commits commands.
    pub writer: Writer,
    /// Commits the deliveries that cursors acknowledge.
    pub acknowledger: Arc<Acknowledger>,
    /// The presence of users with open streams and polls.
    pub presence: Arc<PresenceTracker>,
    /// Notifies the other replicas.
    pub notifier: Arc<Notifier>,
    /// Live events.
    pub hub: Arc<Hub>,
    /// Receives notifications from the other replicas.
    pub listener: Arc<Listener>,
    /// Appends events to the feed.
    pub relay: Arc<Relay>,
    /// Sends updates to the other shards.
    pub outbox: Arc<OutboxSender>,
}

impl Shard {
    /// Publishes a latest-only or ephemeral value here and on the other replicas.
    pub fn publish(&self, update: StateUpdate) {
        publish(&self.hub, &self.notifier, update);
    }
}

/// Publishes a latest-only or ephemeral value here and on the other replicas.
pub fn publish(hub: &Hub, notifier: &Notifier, update: StateUpdate) {
    hub.publish_update(&update);
    notifier.notify(update);
}

/// How long a response may wait until a change of a ride has reached the shards of its users.
const OUTBOX_TIMEOUT: Duration = Duration::from_millis(250);

/// Operations that concern several shards.
impl Sharded<Shard> {
    /// Waits until the users of a ride, which was just changed, have it in their lists and their topics. If a shard is not available, the
    /// change reaches it later.
    pub async fn wait_for_users(&self, snapshot: &RideSnapshot) {
        let shard = self.of_ride(&snapshot.ride.id);
        let users = snapshot.participants.iter().map(|participant| self.map().of_user(&participant.user));
        let others: BTreeSet<_> = users.filter(|other| *other != shard.id).collect();
        if !others.is_empty() {
            shard.outbox.wait_until_sent(&others, OUTBOX_TIMEOUT).await;
        }
    }

    /// Returns the positions of the rides of a list after `after`, newest first. The list of a user is in the user's shard. Of all rides,
    /// each shard lists its own.
    pub async fn page_of_rides(
        &self,
        list: RideList<'_>,
        after: Option<&RideListCursor>,
        limit: usize,
    ) -> Result<Vec<RideListCursor>, StoreError> {
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        if let Some(user) = list.user {
            return self.of_user(user).store.page_of_rides(list, after, rows).await;
        }
        let pages = try_join_all(self.iter().map(|shard| shard.store.page_of_rides(list, after, rows))).await?;
        let mut rides: Vec<_> = pages.into_iter().flatten().collect();
        rides.sort_unstable_by(|one, other| (other.at, &other.ride).cmp(&(one.at, &one.ride)));
        rides.truncate(limit);
        Ok(rides)
    }

    /// Returns the position of a ride in a list; `None` if it was never there.
    pub async fn cursor_of_ride(
        &self,
        list: RideList<'_>,
        ride: &RideId,
    ) -> Result<Option<RideListCursor>, StoreError> {
        let shard = list.user.map_or_else(|| self.of_ride(ride), |user| self.of_user(user));
        shard.store.cursor_of_ride(list, ride).await
    }

    /// Returns these rides as `reader` sees them, in no order, without rides that no longer exist.
    pub async fn inbox(&self, reader: &Caller, rides: &[RideListCursor]) -> Result<Vec<StoredRide>, StoreError> {
        let by_shard = ShardMap::group(rides.iter().cloned(), |cursor| self.map().of_ride(&cursor.ride));
        let reading = by_shard.iter().map(|(shard, rides)| self.get(*shard).store.inbox(reader, rides));
        Ok(try_join_all(reading).await?.into_iter().flatten().collect())
    }

    /// Returns the rides of a user that have unread messages, in the order of their ids.
    pub async fn unread_of_user(&self, user: &UserId) -> Result<Vec<UnreadRide>, StoreError> {
        let own = self.map().of_user(user);
        let mut shards = BTreeSet::from([own]);
        if self.map().count() > 1 {
            let remote = self.get(own).store.remote_unread_rides(user).await?;
            shards.extend(remote.iter().map(|ride| self.map().of_ride(ride)));
        }
        let reading = shards.into_iter().map(|shard| self.get(shard).store.unread_of_user(user));
        let mut rides: Vec<_> = try_join_all(reading).await?.into_iter().flatten().collect();
        rides.sort_unstable_by(|one, other| one.ride.cmp(&other.ride));
        Ok(rides)
    }
}
