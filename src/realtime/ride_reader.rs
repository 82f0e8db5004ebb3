//! Reading a ride's events: a subscription, restricted to the part of the log that the reader may see.
//!
//! The reader loads its rights from the database after it has registered with the hub. It refreshes them after each event that can change
//! rights, before it delivers the next event. Such an event and the change of rights are one commit. So a driver who is replaced at seq 9
//! receives 9 and never 10, on every replica and independently of clocks.
//!
//! State updates obey the same rule. A subscription returns an update only when its cursor has reached the seq that the update names. By
//! then, the event that ends or begins the rights up to that seq is delivered, and the rights are refreshed. Only then does the reader
//! check whether its rights cover that seq.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Event, Gap, ShardLog, StateFrame, Subscription, TopicItem, subject};
use crate::domain::{
    Access, AccessIntervals, Caller, Error, EventType, RideId, RideSnapshot, Seq, Sharded, StateUpdate, Topic,
};
use crate::store::StoreError;

/// How long to wait before a failed database call is retried, in milliseconds; jittered.
const PAUSE_MS: std::ops::Range<u64> = 200..1_000;

/// How long to wait between two checks whether a ride is closed, once its chat window has passed; in milliseconds, jittered.
const CLOSING_MS: std::ops::Range<u64> = 300..600;

/// The caller of a reader, and what the reader reads from.
#[derive(Debug, Clone)]
pub struct ReadContext {
    /// The logs of all shards.
    pub logs: Arc<Sharded<ShardLog>>,
    /// The user that reads.
    pub caller: Caller,
}

/// A reader of one ride's events, with the rights of its caller.
#[derive(Debug)]
pub struct RideReader {
    subscription: Subscription,
    context: Arc<ReadContext>,
    ride: RideId,
    access: Access,
    /// All of the caller's intervals on the ride up to now. Their messages are the ones that the caller may see.
    intervals: AccessIntervals,
    /// Whether the ride has not ended.
    is_ongoing: bool,
    /// When the chat window will have passed for everyone. From then on, the reader checks whether the ride is closed.
    closes_at: Option<Instant>,
    /// An item that was read and must be delivered first. It is kept here while more must be loaded for it.
    pending: Option<TopicItem>,
    /// Whether the last delivered event may have changed rights.
    rights_stale: bool,
}

/// Where reading starts.
#[derive(Debug)]
pub struct RideStart {
    /// The position after which events are delivered.
    pub cursor: Seq,
    /// Whether the client gave a cursor and the reader continues from it without a gap.
    pub resumed: bool,
    /// The events between the given cursor and `cursor` that retention has deleted.
    pub gap: Option<Gap>,
    /// The ride at that time, and the head of its log.
    pub snapshot: RideSnapshot,
    /// Whether the ride is closed and all of its events are delivered.
    pub is_closed: bool,
    /// Whether the chat window has passed for everyone, but the ride is not closed yet.
    pub is_due_to_close: bool,
}

/// Why a ride cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The ride does not exist, or the caller has no access to it.
    #[error(transparent)]
    Rejected(#[from] Error),
    /// A database call failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The next item of a ride.
#[derive(Debug)]
pub enum RideItem {
    /// Events, in order.
    Events(Vec<Event>),
    /// State updates that have changed, only the latest of each.
    Updates(Vec<StateFrame>),
    /// The log no longer has these events. The next item follows them.
    Gap(Gap),
    /// The reader has ended.
    Closed(CloseReason),
}

/// Why a reader has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The ride has ended and its chat window has passed.
    RideClosed,
    /// The caller is no longer on the ride.
    Removed,
    /// The log was replaced (a restored database). The client must start again.
    Reset,
}

impl RideReader {
    /// Opens `ride` after `cursor`, or at the end of the log without one. The client receives the ride's state with the snapshot.
    pub async fn open(
        context: Arc<ReadContext>,
        ride: RideId,
        cursor: Option<Seq>,
    ) -> Result<(Self, RideStart), OpenError> {
        Self::open_as(context, ride, cursor, true).await
    }

    /// Opens a ride for a client that has no state of it, or an older one. The latest state is then delivered as updates.
    pub(super) async fn open_with_updates(
        context: Arc<ReadContext>,
        ride: RideId,
        cursor: Seq,
    ) -> Result<(Self, RideStart), OpenError> {
        Self::open_as(context, ride, Some(cursor), false).await
    }

    async fn open_as(
        context: Arc<ReadContext>,
        ride: RideId,
        cursor: Option<Seq>,
        client_has_state: bool,
    ) -> Result<(Self, RideStart), OpenError> {
        let ReadContext { logs, caller } = &*context;
        let ShardLog { hub, store } = logs.of_ride(&ride);
        let mut subscription = Subscription::register(hub, Arc::clone(store), &Topic::ride(&ride)).await;
        let snapshot = store.snapshot(&ride).await?.ok_or(Error::RideNotFound)?;
        let head = snapshot.head;
        // A cursor past the head is from a time before the database was restored. It cannot be trusted, so the reader starts now.
        let accepted = cursor.filter(|cursor| *cursor <= head);
        let access = accepted.map_or_else(|| snapshot.access(caller), |cursor| snapshot.access_after(caller, cursor));
        let access = access.ok_or(Error::RideNotFound)?;
        // Events before the reader's access began are not a gap.
        let start = accepted.map_or(head, |cursor| cursor.max(access.from_seq - 1));
        if access.until_seq.is_some_and(|until| start >= until) {
            return Err(Error::RideNotFound.into());
        }
        let location = snapshot.location.as_ref().zip(snapshot.ride.driver.as_ref());
        let location = location.map(|(last, driver)| StateUpdate {
            topic: Topic::ride(&ride),
            kind: EventType::RideLocation,
            user: driver.clone(),
            version: last.version,
            seq: last.seq,
            data: last.data.get().to_owned(),
        });
        let participants = snapshot.participants.iter();
        let presence = participants.filter_map(|one| Some(one.presence?.to_update(&ride, &one.user)));
        subscription.start(start, head, &presence.chain(location).collect::<Vec<_>>(), client_has_state);
        let intervals = snapshot.access_intervals(caller);
        let (is_ongoing, closes_at) = (!snapshot.ride.status.is_ended(), closing_time(&snapshot));
        let rights_stale = false;
        let pending = None;
        let mut reader =
            Self { subscription, context, ride, access, intervals, is_ongoing, closes_at, pending, rights_stale };
        let mut gap = None;
        // Only the log itself shows whether it still has the next event. If the hub is behind the database, there is no need to wait for
        // the hub: no event is missing between the two.
        if reader.subscription.is_behind() {
            match reader.subscription.next(FIRST_PAGE).await? {
                TopicItem::Gap(missing) => gap = Some(reader.clip_to_access(missing)),
                item => reader.pending = Some(item),
            }
            // The missing events may have changed rights.
            reader.rights_stale = gap.is_some();
        }
        let opened = RideStart {
            cursor: gap.map_or(start, |gap| gap.to),
            resumed: accepted.is_some() && gap.is_none(),
            gap,
            is_closed: snapshot.ride.closed_at.is_some() && reader.pending.is_none() && start >= head,
            is_due_to_close: snapshot.is_due_to_close(),
            snapshot: visible_snapshot(&reader.context, snapshot).await?,
        };
        Ok((reader, opened))
    }

    /// Returns the part of a gap that lies within the reader's access. Events after that belong to a later interval of the caller, or to
    /// another user. The subscription continues from the end of that part.
    fn clip_to_access(&mut self, gap: Gap) -> Gap {
        match self.access.until_seq.filter(|until| *until < gap.to) {
            Some(until) => {
                self.subscription.return_to(until);
                Gap { from: gap.from, to: until }
            }
            None => gap,
        }
    }

    /// Returns whether the ride has not ended.
    pub fn is_ongoing(&self) -> bool {
        self.is_ongoing
    }

    /// Returns whether an item can be delivered without waiting.
    pub fn is_behind(&self) -> bool {
        self.pending.is_some() || self.subscription.is_behind()
    }

    /// Returns the ride.
    pub fn ride(&self) -> &RideId {
        &self.ride
    }

    /// Returns the user that reads.
    pub fn caller(&self) -> &Caller {
        &self.context.caller
    }

    /// Returns the caller's access to the ride.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns the position up to which events were delivered.
    pub fn cursor(&self) -> Seq {
        let before = match &self.pending {
            Some(TopicItem::Events(events)) => events.first().map(|first| first.seq - 1),
            Some(TopicItem::Gap(gap)) => Some(gap.from - 1),
            Some(TopicItem::Updates(_) | TopicItem::Reset) | None => None,
        };
        before.unwrap_or_else(|| self.subscription.cursor())
    }

    /// Loads the ride as it is now, or as it was when the caller left it.
    pub async fn snapshot(&self) -> Result<RideSnapshot, StoreError> {
        visible_snapshot(&self.context, self.load_snapshot().await?).await
    }

    async fn load_snapshot(&self) -> Result<RideSnapshot, StoreError> {
        self.subscription.store().snapshot(&self.ride).await?.ok_or(StoreError::Corrupt("ride not found"))
    }

    /// Waits for the next item: at most `limit` events. If the database is unavailable, it retries. Cancel-safe: if the future is dropped,
    /// no event is lost.
    pub async fn next(&mut self, limit: usize) -> RideItem {
        loop {
            match self.next_item(limit).await {
                Ok(next) => return next,
                Err(error) => Box::pin(pause(&error)).await,
            }
        }
    }

    async fn next_item(&mut self, limit: usize) -> Result<RideItem, StoreError> {
        if self.rights_stale {
            Box::pin(self.refresh_rights()).await?;
        }
        let cursor = self.subscription.cursor();
        if self.pending.is_none() && self.access.until_seq.is_some_and(|until| cursor >= until) {
            return Ok(RideItem::Closed(CloseReason::Removed));
        }
        if self.pending.is_none() {
            self.pending = self.wait(limit).await?;
        }
        // The item stays in `pending` while this waits. So it is not lost if the future is dropped.
        let hidden = match &self.pending {
            Some(TopicItem::Events(events)) if !self.intervals.covers_whole_log() => {
                Box::pin(subject::hidden(self.subscription.store(), &self.intervals, events)).await?
            }
            _ => HashSet::new(),
        };
        let Some(item) = self.pending.take() else { return Ok(RideItem::Closed(CloseReason::RideClosed)) };
        Ok(match item {
            TopicItem::Events(mut events) => {
                if let Some(until) = self.access.until_seq {
                    events.retain(|event| event.seq <= until);
                }
                self.rights_stale = events.last().is_some_and(|last| last.kind.changes_access());
                events.retain(|event| !hidden.contains(&event.seq));
                RideItem::Events(events)
            }
            TopicItem::Updates(mut updates) => {
                updates.retain(|update| self.is_visible(update));
                RideItem::Updates(updates)
            }
            TopicItem::Gap(gap) => {
                // The missing events may have changed rights.
                self.rights_stale = true;
                RideItem::Gap(self.clip_to_access(gap))
            }
            TopicItem::Reset => RideItem::Closed(CloseReason::Reset),
        })
    }

    /// Returns whether an update lies within the reader's access and is not about the caller.
    fn is_visible(&self, update: &StateFrame) -> bool {
        let is_own = update.kind != EventType::RideLocation && update.user == self.context.caller.user;
        self.access.covers(update.seq) && !is_own
    }

    /// Waits for the next item. Returns `None` when the ride is closed and all of its events were delivered.
    ///
    /// A command closes the ride while it holds the lock of the ride's log. No command can write to the log after that. So once the ride is
    /// found closed, its log is complete, independently of clocks.
    async fn wait(&mut self, limit: usize) -> Result<Option<TopicItem>, StoreError> {
        let mut check_at = self.closes_at;
        loop {
            tokio::select! {
                biased;
                item = self.subscription.next(limit) => return item.map(Some),
                () = until(check_at) => {}
            }
            let Some(closed_head) = Box::pin(self.closed_head()).await? else {
                check_at = self.closes_at;
                continue;
            };
            if self.subscription.cursor() >= closed_head {
                return Ok(None);
            }
            // Deliver first what is still being loaded.
            self.subscription.observe(closed_head);
            check_at = None;
        }
    }

    /// Returns the head of the ride's log if the ride is closed. Otherwise determines when this is checked again.
    async fn closed_head(&mut self) -> Result<Option<Seq>, StoreError> {
        let snapshot = self.load_snapshot().await?;
        if snapshot.ride.closed_at.is_some() {
            return Ok(Some(snapshot.head));
        }
        // A replica is about to close the ride, or the ride was reopened.
        let soon = Instant::now() + Duration::from_millis(fastrand::u64(CLOSING_MS));
        self.closes_at = closing_time(&snapshot).map(|at| at.max(soon));
        Ok(None)
    }

    async fn refresh_rights(&mut self) -> Result<(), StoreError> {
        let snapshot = self.load_snapshot().await?;
        (self.is_ongoing, self.closes_at) = (!snapshot.ride.status.is_ended(), closing_time(&snapshot));
        self.intervals = snapshot.access_intervals(&self.context.caller);
        // A user who was on the ride keeps access to a part of it forever, so this is never `None`. A user who was removed and added again
        // continues with the new interval: the events in between belong to another user.
        if let Some(access) = snapshot.access_after(&self.context.caller, self.subscription.cursor()) {
            self.access = access;
            self.subscription.skip_to(access.from_seq - 1);
        }
        self.rights_stale = false;
        Ok(())
    }
}

/// Returns a ride as its reader may see it. A reader who has left sees the ride, and receipts, as they were at that time.
pub(super) async fn visible_snapshot(
    context: &ReadContext,
    snapshot: RideSnapshot,
) -> Result<RideSnapshot, StoreError> {
    let store = &context.logs.of_ride(&snapshot.ride.id).store;
    let Some(until) = snapshot.left_at(&context.caller) else {
        return store.with_visible_watermarks(snapshot, &context.caller).await;
    };
    let ride_at_leave = store.ride_at_leave(&snapshot.ride.id, &context.caller.user, until).await?;
    Ok(snapshot.as_of_leave(until, ride_at_leave))
}

/// Returns when a ride's chat window will have passed for everyone. The database's clock decides that. The remaining time by that clock is
/// then measured by the local clock.
fn closing_time(snapshot: &RideSnapshot) -> Option<Instant> {
    if !snapshot.ride.status.is_ended() {
        return None;
    }
    // If an older version has ended the ride, its closing time will be decided in a moment.
    let closes_in = snapshot.ride.closed_at.or(snapshot.ride.closes_at()).map(|at| at.since(snapshot.read_at));
    Some(Instant::now() + closes_in.unwrap_or(Duration::from_millis(CLOSING_MS.end)))
}

/// Waits until a time, or forever. Boxed, to keep the future of a reader small.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => Box::pin(sleep_until(at)).await,
        None => std::future::pending().await,
    }
}

/// Waits before a failed database call is retried.
pub(super) async fn pause(error: &StoreError) {
    tracing::debug!(%error, "database read failed, reader retries");
    sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
}

/// The largest number of events that are read while opening.
const FIRST_PAGE: usize = 100;
