//! The sources of a merged stream: futures that return the next item of a topic together with its reader.

use std::sync::Arc;

use super::{MAX_NAMED_RIDES, MergedReader};
use crate::domain::{RideId, RideSnapshot, Seq};
use crate::realtime::ride_reader::{pause, visible_snapshot};
use crate::realtime::{MergedCursor, OpenError, ReadContext, RideItem, RideReader, RideStart, Subscription, TopicItem};
use crate::store::OpenRides;

/// An item of one topic.
pub(super) enum SourceItem {
    UserTopic(Subscription, TopicItem),
    Drivers(Subscription, TopicItem),
    RideOpened(RideId, u64, Option<Box<(RideReader, RideStart)>>),
    Ride(RideId, u64, Box<RideReader>, RideItem),
    /// The ride is no longer read.
    Aborted,
    /// The user's current rides.
    OpenRides(OpenRides),
}

/// A ride that was found while the merged reader was being opened.
pub(super) enum InitialRide {
    Opened(Box<(RideReader, RideStart)>, Option<Seq>),
    /// The ride is not in the cursor: it was assigned after the cursor.
    New(Box<RideSnapshot>),
    Gone,
}

pub(super) async fn open_initial(
    context: &Arc<ReadContext>,
    ride: RideId,
    given: Option<&MergedCursor>,
) -> Result<InitialRide, OpenError> {
    let seq = match given.map(|cursor| cursor.of(&ride)) {
        Some(None) => {
            let Some(snapshot) = context.logs.of_ride(&ride).store.snapshot(&ride).await? else {
                return Ok(InitialRide::Gone);
            };
            return Ok(InitialRide::New(Box::new(visible_snapshot(context, snapshot).await?)));
        }
        Some(seq) => seq,
        None => None,
    };
    match RideReader::open(Arc::clone(context), ride, seq).await {
        Ok(opened) => Ok(InitialRide::Opened(Box::new(opened), seq)),
        // The user has just lost access to it. The user topic reports that.
        Err(OpenError::Rejected(_)) => Ok(InitialRide::Gone),
        Err(error) => Err(error),
    }
}

pub(super) async fn open_ride(context: Arc<ReadContext>, ride: RideId, generation: u64, after: Seq) -> SourceItem {
    loop {
        match RideReader::open_with_updates(Arc::clone(&context), ride.clone(), after).await {
            Ok(opened) => return SourceItem::RideOpened(ride, generation, Some(Box::new(opened))),
            Err(OpenError::Rejected(_)) => return SourceItem::RideOpened(ride, generation, None),
            Err(OpenError::Store(error)) => pause(&error).await,
        }
    }
}

pub(super) async fn next_of_ride(ride: RideId, generation: u64, mut ride_reader: Box<RideReader>) -> SourceItem {
    let item = ride_reader.next(MergedReader::PAGE).await;
    SourceItem::Ride(ride, generation, ride_reader, item)
}

async fn next_of_topic(subscription: &mut Subscription) -> TopicItem {
    loop {
        let item = subscription.next(MergedReader::PAGE).await;
        match item {
            // The topic was created after the cursor: its log begins after the gap.
            Ok(TopicItem::Gap(gap)) if subscription.begins_after_gap(gap).await => {}
            Ok(item) => return item,
            Err(error) => pause(&error).await,
        }
    }
}

pub(super) async fn next_of_user_topic(mut subscription: Subscription) -> SourceItem {
    let item = next_of_topic(&mut subscription).await;
    SourceItem::UserTopic(subscription, item)
}

pub(super) async fn next_of_drivers(mut subscription: Subscription) -> SourceItem {
    let item = next_of_topic(&mut subscription).await;
    SourceItem::Drivers(subscription, item)
}

pub(super) async fn load_open_rides(context: Arc<ReadContext>) -> SourceItem {
    loop {
        match context.logs.of_user(&context.caller.user).store.open_rides(&context.caller.user, MAX_NAMED_RIDES).await {
            Ok(open_rides) => return SourceItem::OpenRides(open_rides),
            Err(error) => pause(&error).await,
        }
    }
}
