//! Opening a merged stream: at a cursor, or now.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all, try_join_all};
use futures_util::stream::FuturesUnordered;

use super::sources::{InitialRide, SourceItem, next_of_drivers, next_of_user_topic, open_initial};
use super::{MAX_NAMED_RIDES, MAX_RIDES, MergedReader, TrackPresence};
use crate::domain::{RideId, RideSnapshot, Seq, ShardMap, Sharded, StateUpdate, Topic};
use crate::realtime::{Gap, MergedCursor, OpenError, ReadContext, ShardLog, Subscription, TopicItem};
use crate::store::StoreError;

/// The largest number of drivers in the initial state. All of them are at `/drivers/available`.
const MAX_DRIVERS: i64 = 1_000;

/// Where a merged stream starts.
#[derive(Debug)]
pub struct MergedStart {
    /// Whether the client gave a cursor and the reader continues from it without a gap.
    pub resumed: bool,
    /// The first gap. Further gaps follow as items.
    pub gap: Option<(Topic, Gap)>,
    /// The rides. For each, the position that the cursor gave, if the ride was resumed from it.
    pub rides: Vec<(RideSnapshot, Option<Seq>)>,
    /// The available drivers, for support and service.
    pub drivers: Option<Vec<StateUpdate>>,
}

impl MergedReader {
    /// Opens all of the user's topics after `cursor`. Without a cursor, the stream starts now.
    pub async fn open(
        context: ReadContext,
        cursor: Option<MergedCursor>,
        track_presence: TrackPresence,
    ) -> Result<(Self, MergedStart), OpenError> {
        let includes_drivers = context.caller.role.is_staff();
        let context = Arc::new(ReadContext { caller: context.caller.as_participant(), ..context });
        let ShardLog { hub, store } = context.logs.of_user(&context.caller.user);
        let user_topic_name = Topic::user(&context.caller.user);
        let mut user_topic = Subscription::register(hub, Arc::clone(store), &user_topic_name).await;
        let mut open_rides = store.open_rides(&context.caller.user, MAX_NAMED_RIDES).await?;
        let was_given = cursor.is_some();
        // A cursor past the end is from a time before the database was restored. The stream starts now.
        let given = cursor.filter(|cursor| cursor.user_seq <= open_rides.head);
        let mut cursor = given.clone().unwrap_or_else(|| {
            let mut cursor = MergedCursor::beginning(&context.caller.user);
            cursor.user_seq = open_rides.head;
            cursor
        });
        // Events before the beginning of the log never belonged to this user, or were erased: not a gap.
        cursor.user_seq = cursor.user_seq.max(open_rides.begins_after);
        user_topic.start(cursor.user_seq, open_rides.head, &[], true);
        let former_rides = cursor.others(open_rides.rides.iter().map(|one| &one.ride));
        let omitted = open_rides.rides.split_off(open_rides.rides.len().min(MAX_RIDES));
        if given.is_none() {
            // Omitted rides start now too, for the time when there is room.
            let rides = omitted.iter().map(|one| (&one.ride, one.head));
            for (ride, head) in heads(&context.logs, rides.collect()).await? {
                cursor.advance(ride, head);
            }
        }
        let mut merged = Self {
            context: Arc::clone(&context),
            includes_drivers,
            track_presence,
            sources: FuturesUnordered::new(),
            rides: HashMap::new(),
            generations: 0,
            queued: VecDeque::new(),
            user_topic: None,
            reopened_for: 0,
            replay_end: open_rides.head,
            deferred: BTreeMap::new(),
            former_rides,
            cursor,
            gaps: VecDeque::new(),
            omitted: omitted.iter().map(|one| one.ride.clone()).collect(),
            reported_omitted: omitted.into_iter().map(|one| one.ride).collect(),
            needs_refresh: false,
            is_refreshing: false,
        };
        merged.limit_cursor();
        let opening = open_rides.rides.into_iter().map(|one| open_initial(&context, one.ride, given.as_ref()));
        let mut rides = Vec::new();
        let mut resumed = given.is_some() || !was_given;
        for initial in join_all(opening).await {
            match initial? {
                InitialRide::Opened(opened, seq) => {
                    let (ride_reader, opened) = *opened;
                    merged.add_ride(ride_reader, &opened);
                    resumed &= seq.is_none() || opened.resumed;
                    rides.push((opened.snapshot, seq.filter(|_| opened.resumed)));
                }
                InitialRide::New(snapshot) => {
                    if let Some(access) = snapshot.access(&context.caller) {
                        merged.deferred.insert(snapshot.ride.id.clone(), access.from_seq - 1);
                        rides.push((*snapshot, None));
                    }
                }
                InitialRide::Gone => {}
            }
        }
        // Only the log itself shows whether the user topic still has the next event.
        let source: BoxFuture<'static, SourceItem> = match user_topic.is_behind() {
            false => Box::pin(next_of_user_topic(user_topic)),
            true => match user_topic.next(Self::PAGE).await? {
                TopicItem::Gap(gap) => {
                    merged.gaps.push_front((user_topic_name, gap));
                    Box::pin(next_of_user_topic(user_topic))
                }
                item => Box::pin(std::future::ready(SourceItem::UserTopic(user_topic, item))),
            },
        };
        merged.sources.push(source);
        let drivers = merged.open_drivers().await?;
        let gap = merged.next_gap();
        let opened = MergedStart { resumed: was_given && resumed && gap.is_none(), gap, rides, drivers };
        Ok((merged, opened))
    }

    /// Reads the drivers' topic, for support and service. Returns the drivers that are available now.
    async fn open_drivers(&mut self) -> Result<Option<Vec<StateUpdate>>, StoreError> {
        if !self.includes_drivers {
            return Ok(None);
        }
        let ShardLog { hub, store } = self.context.logs.first();
        let mut subscription = Subscription::register(hub, Arc::clone(store), &Topic::drivers()).await;
        let drivers = self.drivers().await?;
        subscription.start(0, 0, drivers.as_deref().unwrap_or_default(), true);
        self.sources.push(Box::pin(next_of_drivers(subscription)));
        Ok(drivers)
    }

    /// Loads the available drivers, for support and service.
    pub async fn drivers(&mut self) -> Result<Option<Vec<StateUpdate>>, StoreError> {
        match self.includes_drivers {
            true => self.context.logs.first().store.available_drivers(None, MAX_DRIVERS).await.map(Some),
            false => Ok(None),
        }
    }
}

/// Returns the heads of rides. Those that are not given are loaded from the rides' shards.
async fn heads<'a>(
    logs: &Sharded<ShardLog>,
    rides: Vec<(&'a RideId, Option<Seq>)>,
) -> Result<Vec<(&'a RideId, Seq)>, StoreError> {
    let missing = rides.iter().filter(|(_, head)| head.is_none()).map(|(ride, _)| *ride);
    let missing = ShardMap::group(missing, |ride| logs.map().of_ride(ride));
    let loading = missing.iter().map(async |(shard, rides)| {
        let topics: Vec<_> = rides.iter().map(|ride| Topic::ride(ride)).collect();
        let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
        logs.get(*shard).store.heads(&topics).await
    });
    let loaded = try_join_all(loading).await?;
    let loaded: HashMap<_, _> = loaded.into_iter().flatten().collect();
    let head =
        |(ride, head): (&'a RideId, Option<Seq>)| Some((ride, head.or(loaded.get(&Topic::ride(ride)).copied())?));
    Ok(rides.into_iter().filter_map(head).collect())
}
