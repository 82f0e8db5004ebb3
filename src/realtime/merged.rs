//! The merged stream of one user: the user topic, and each of the user's rides.
//!
//! Every topic is read as if it were alone. The merged reader puts their items into one sequence, and returns with each event the cursor
//! over all topics. The user topic reports which rides come and go (`ride:assigned`, `ride:closed`). So a client that resumes from a
//! cursor receives these changes at the right position: a ride is read from the event that assigned it. The event that closed it waits
//! until the ride is delivered up to there.
//!
//! Invariants:
//! - `cursor` covers exactly the events that were delivered. Events that were read but not delivered are read again after a resume.
//! - A ride is in `cursor` from its assignment to its closing. So its remaining events are found even if it closes while the client is
//!   disconnected. A ride that is reopened is assigned again, from where it was closed.
//! - At most [`MAX_RIDES`] rides are read at once. The position of an omitted ride stays in `cursor` too, so the reader continues from
//!   there when there is room again, or when the ride closes.

mod open;
mod room;
mod sources;
mod user_topic;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use futures_util::future::{AbortHandle, BoxFuture, FutureExt, abortable, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};

pub use self::open::MergedStart;
use self::sources::{SourceItem, next_of_drivers, next_of_ride, next_of_user_topic, open_ride};
use super::merged_cursor::RideKey;
use super::{
    CloseReason, Event, Gap, MergedCursor, PresenceGuard, ReadContext, RideItem, RideReader, RideStart, StateFrame,
    Subscription, TopicItem,
};
use crate::domain::{RideId, RideSnapshot, Seq, Topic};
use crate::store::StoreError;

/// The largest number of rides that are read at once.
pub const MAX_RIDES: usize = 64;

/// The largest number of rides that are read or reported as omitted.
const MAX_NAMED_RIDES: i64 = 1_000;

/// Tracks the presence of a ride's reader, if the user is a participant.
pub type TrackPresence = Box<dyn Fn(&RideReader) -> Option<PresenceGuard> + Send + Sync>;

/// A reader of all events of one user.
pub struct MergedReader {
    /// Its caller has the rights of a participant only.
    context: Arc<ReadContext>,
    /// Whether the user receives the drivers' topic: support and service do.
    includes_drivers: bool,
    track_presence: TrackPresence,
    /// The next item of each topic. Each future owns its topic's reader, and returns it together with the item.
    sources: FuturesUnordered<BoxFuture<'static, SourceItem>>,
    cursor: MergedCursor,
    rides: HashMap<RideId, FollowedRide>,
    generations: u64,
    /// Events of the user topic that are not delivered yet: the first one waits for its ride. Meanwhile `user_topic` holds the topic's
    /// subscription.
    queued: VecDeque<Event>,
    user_topic: Option<Subscription>,
    /// The seq of the event for which a closed ride was opened again.
    reopened_for: Seq,
    /// The head of the user topic when the merged reader was opened. Rides in `deferred` are opened when the user topic is delivered up to
    /// there, unless the topic reports them before.
    replay_end: Seq,
    deferred: BTreeMap<RideId, Seq>,
    /// Rides of the given cursor that are no longer the user's. The user topic reports where each one closed. Rides that remain after its
    /// replay were deleted by retention.
    former_rides: Vec<RideKey>,
    /// Gaps that are not reported yet.
    gaps: VecDeque<(Topic, Gap)>,
    /// Omitted rides, in the order in which they will be read; and the omitted rides that were reported to the client.
    omitted: Vec<RideId>,
    reported_omitted: BTreeSet<RideId>,
    /// Whether the set of rides to read may have changed, and whether it is being loaded.
    needs_refresh: bool,
    is_refreshing: bool,
}

/// A ride that is read, or is about to be.
struct FollowedRide {
    /// Distinguishes this reader of the ride from an earlier one that may still be in `sources`.
    generation: u64,
    /// The first seq of the user's current interval on the ride.
    from_seq: Seq,
    /// The ride's head when it was opened, or `None` until that is known.
    head: Option<Seq>,
    /// Where the user's next interval on the ride begins, if it was assigned before the end of this one was read.
    next_from: Option<Seq>,
    _presence: Option<PresenceGuard>,
    _abort: Option<AbortOnDrop>,
}

/// Aborts the future of a ride that is no longer read. Otherwise it could wait for a day.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An event, and the cursor after it.
#[derive(Debug)]
pub struct MergedEvent {
    /// The event.
    pub event: Event,
    /// The cursor.
    pub cursor: String,
}

/// The next item of a merged stream.
#[derive(Debug)]
pub enum MergedItem {
    /// Events. Those of one topic are in order.
    Events(Vec<MergedEvent>),
    /// State updates that have changed, only the latest of each.
    Updates(Vec<StateFrame>),
    /// The topic's log no longer has these events.
    Gap(Topic, Gap),
    /// The set of omitted rides has changed; see [`MergedReader::omitted`].
    OmittedRidesChanged,
    /// The log was replaced (a restored database). No more items follow.
    Reset,
}

impl MergedReader {
    /// The largest number of events that are delivered at once.
    pub const PAGE: usize = 100;

    /// Returns whether a ride is being read.
    pub fn is_ongoing(&self) -> bool {
        !self.rides.is_empty()
    }

    /// Returns whether events that existed when the reader was opened are not delivered yet.
    pub fn is_behind(&self) -> bool {
        let is_behind = |(ride, followed): (&RideId, &FollowedRide)| {
            followed.head.is_none_or(|head| self.cursor.of(ride).is_none_or(|seq| seq < head))
        };
        let user_topic_is_behind = self.cursor.user_seq < self.replay_end || !self.queued.is_empty();
        user_topic_is_behind || !self.deferred.is_empty() || !self.gaps.is_empty() || self.rides.iter().any(is_behind)
    }

    /// Returns the cursor after the delivered events.
    pub fn cursor(&self) -> String {
        self.cursor.encode()
    }

    /// Loads the rides as they are now.
    pub async fn snapshots(&mut self) -> Result<Vec<RideSnapshot>, StoreError> {
        let ReadContext { logs, caller } = &*self.context;
        let rides = self.rides.keys().chain(self.deferred.keys());
        let rides = rides.map(|ride| logs.of_ride(ride).store.snapshot(ride));
        let found = join_all(rides).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let found = found.into_iter().flatten().filter(|snapshot| snapshot.require_access(caller).is_ok());
        let visible = join_all(found.map(|snapshot| {
            let store = &logs.of_ride(&snapshot.ride.id).store;
            store.with_visible_watermarks(snapshot, caller)
        }))
        .await;
        visible.into_iter().collect()
    }

    /// Waits for the next item. If the database is unavailable, it retries. Cancel-safe: if the future is dropped, no event is lost.
    pub async fn next(&mut self) -> MergedItem {
        loop {
            if let Some((topic, gap)) = self.next_gap() {
                return MergedItem::Gap(topic, gap);
            }
            let events = self.take_ready_events();
            if !events.is_empty() {
                return MergedItem::Events(events);
            }
            self.open_deferred();
            self.start_refresh();
            if self.report_omitted() {
                return MergedItem::OmittedRidesChanged;
            }
            let Some(item) = self.sources.next().await else { return MergedItem::Reset };
            if let Some(item) = self.handle(item) {
                return item;
            }
        }
    }

    fn next_gap(&mut self) -> Option<(Topic, Gap)> {
        let (topic, gap) = self.gaps.pop_front()?;
        match topic.ride_id().and_then(|ride| RideId::parse(ride).ok()) {
            Some(ride) => self.cursor.advance(&ride, gap.to),
            None => self.cursor.user_seq = self.cursor.user_seq.max(gap.to),
        }
        Some((topic, gap))
    }

    fn start_ride(&mut self, ride: RideId, from_seq: Seq, after: Seq) {
        let followed = FollowedRide {
            generation: self.next_generation(),
            from_seq,
            head: None,
            next_from: None,
            _presence: None,
            _abort: None,
        };
        self.sources.push(Box::pin(open_ride(Arc::clone(&self.context), ride.clone(), followed.generation, after)));
        self.rides.insert(ride, followed);
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    /// Adds a ride that has been opened.
    fn add_ride(&mut self, ride_reader: RideReader, opened: &RideStart) {
        let (ride, access) = (ride_reader.ride().clone(), ride_reader.access());
        if let Some(gap) = opened.gap {
            self.gaps.push_back((Topic::ride(&ride), gap));
        } else {
            if !opened.resumed {
                // A position that was not used is replaced, also by an earlier one.
                self.cursor.remove(&ride);
            }
            self.cursor.advance(&ride, opened.cursor);
        }
        let head = access.until_seq.map_or(opened.snapshot.head, |until| until.min(opened.snapshot.head));
        let next_from = self.rides.get(&ride).and_then(|followed| followed.next_from);
        let generation = self.next_generation();
        let followed = FollowedRide {
            generation,
            from_seq: access.from_seq,
            head: Some(head),
            next_from: next_from.filter(|from_seq| *from_seq > access.from_seq),
            _presence: (self.track_presence)(&ride_reader),
            _abort: None,
        };
        self.rides.insert(ride.clone(), followed);
        self.wait_for_ride(ride, generation, Box::new(ride_reader));
    }

    /// Waits for the next item of a ride, as long as the ride is read.
    fn wait_for_ride(&mut self, ride: RideId, generation: u64, ride_reader: Box<RideReader>) {
        let Some(followed) = self.rides.get_mut(&ride) else { return };
        let (item, abort) = abortable(next_of_ride(ride, generation, ride_reader));
        followed._abort = Some(AbortOnDrop(abort));
        self.sources.push(item.map(|item| item.unwrap_or(SourceItem::Aborted)).boxed());
    }

    fn is_current(&self, ride: &RideId, generation: u64) -> bool {
        self.rides.get(ride).is_some_and(|followed| followed.generation == generation)
    }

    fn handle(&mut self, item: SourceItem) -> Option<MergedItem> {
        match item {
            SourceItem::UserTopic(subscription, TopicItem::Events(events)) => {
                self.queued.extend(events);
                self.user_topic = Some(subscription);
            }
            SourceItem::UserTopic(subscription, TopicItem::Gap(gap)) => {
                self.gaps.push_back((Topic::user(&self.context.caller.user), gap));
                self.sources.push(Box::pin(next_of_user_topic(subscription)));
            }
            SourceItem::UserTopic(subscription, TopicItem::Updates(_)) => {
                self.sources.push(Box::pin(next_of_user_topic(subscription)))
            }
            SourceItem::UserTopic(_, TopicItem::Reset) | SourceItem::Drivers(_, TopicItem::Reset) => {
                return Some(MergedItem::Reset);
            }
            SourceItem::Drivers(subscription, item) => {
                self.sources.push(Box::pin(next_of_drivers(subscription)));
                if let TopicItem::Updates(updates) = item {
                    return Some(MergedItem::Updates(updates));
                }
            }
            SourceItem::RideOpened(ride, generation, opened) if self.is_current(&ride, generation) => match opened {
                Some(opened) => {
                    let (ride_reader, opened) = *opened;
                    self.add_ride(ride_reader, &opened);
                }
                // The user has no access to it, or it does not exist.
                None => self.remove_ride(&ride),
            },
            SourceItem::Ride(ride, generation, ride_reader, item) if self.is_current(&ride, generation) => {
                return self.handle_ride_item(ride, generation, ride_reader, item);
            }
            SourceItem::OpenRides(open_rides) => self.apply_refresh(open_rides),
            // Of an interval that was closed.
            SourceItem::RideOpened(..) | SourceItem::Ride(..) | SourceItem::Aborted => {}
        }
        None
    }

    fn handle_ride_item(
        &mut self,
        ride: RideId,
        generation: u64,
        ride_reader: Box<RideReader>,
        item: RideItem,
    ) -> Option<MergedItem> {
        let access = ride_reader.access();
        if let Some(followed) = self.rides.get_mut(&ride) {
            followed.from_seq = access.from_seq;
            followed.next_from = followed.next_from.filter(|from_seq| *from_seq > access.from_seq);
        }
        let item = match item {
            RideItem::Events(events) => {
                if events.iter().any(|event| event.kind.changes_access()) {
                    // The ride may have ended, and an omitted ride may take its place.
                    self.request_refresh();
                }
                let with_cursor = |event: Event| {
                    self.cursor.advance(&ride, event.seq);
                    MergedEvent { event, cursor: self.cursor.encode() }
                };
                let events = events.into_iter().map(with_cursor).collect();
                // Also past the events that the user may not see.
                self.cursor.advance(&ride, ride_reader.cursor());
                MergedItem::Events(events)
            }
            RideItem::Updates(updates) => MergedItem::Updates(updates),
            RideItem::Gap(gap) => {
                self.cursor.advance(&ride, gap.to);
                MergedItem::Gap(Topic::ride(&ride), gap)
            }
            RideItem::Closed(CloseReason::Reset) => return Some(MergedItem::Reset),
            RideItem::Closed(CloseReason::Removed | CloseReason::RideClosed) => {
                self.remove_ride(&ride);
                return None;
            }
        };
        self.wait_for_ride(ride, generation, ride_reader);
        Some(item)
    }

    /// Removes a ride that has no more items. Its position stays until its closing event is delivered.
    fn remove_ride(&mut self, ride: &RideId) {
        self.request_refresh();
        if let Some(from_seq) = self.rides.remove(ride).and_then(|followed| followed.next_from) {
            self.on_assigned(ride.clone(), from_seq);
        }
    }
}

impl fmt::Debug for MergedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedReader").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}
