//! What comes next on each topic of a merged stream: futures that own their topic's follower.

use std::sync::Arc;

use super::{MOST_NAMED, Merged};
use crate::domain::{RideId, RideSnapshot, Seq};
use crate::realtime::follow::{as_seen, pause};
use crate::realtime::{Follow, Next, OpenError, Opened, Places, Reader, Step, Subscription};
use crate::store::GoingOn;

/// What a topic has for the reader.
pub(super) enum Turn {
    Own(Subscription, Step),
    Watched(Subscription, Step),
    Opened(RideId, u64, Option<Box<(Follow, Opened)>>),
    Ride(RideId, u64, Box<Follow>, Next),
    /// Of a ride that is followed no longer.
    Stopped,
    /// The rides that are the reader's now.
    Looked(GoingOn),
}

/// A ride as it is found while opening.
pub(super) enum Found {
    Followed(Box<(Follow, Opened)>, Option<Seq>),
    /// Not in the cursor: it came since.
    New(Box<RideSnapshot>),
    Gone,
}

pub(super) async fn find(reader: &Arc<Reader>, ride: RideId, given: Option<&Places>) -> Result<Found, OpenError> {
    let place = match given.map(|places| places.of(&ride)) {
        Some(None) => {
            let Some(snapshot) = reader.store.snapshot(&ride).await? else { return Ok(Found::Gone) };
            return Ok(Found::New(Box::new(as_seen(reader, snapshot).await?)));
        }
        Some(place) => place,
        None => None,
    };
    match Follow::open(Arc::clone(reader), ride, place).await {
        Ok(opened) => Ok(Found::Followed(Box::new(opened), place)),
        // It ceased to be the reader's just now; their own topic says so.
        Err(OpenError::Refused(_)) => Ok(Found::Gone),
        Err(error) => Err(error),
    }
}

pub(super) async fn open_turn(reader: Arc<Reader>, ride: RideId, generation: u64, after: Seq) -> Turn {
    loop {
        match Follow::join(Arc::clone(&reader), ride.clone(), after).await {
            Ok(opened) => return Turn::Opened(ride, generation, Some(Box::new(opened))),
            Err(OpenError::Refused(_)) => return Turn::Opened(ride, generation, None),
            Err(OpenError::Store(error)) => pause(&error).await,
        }
    }
}

pub(super) async fn ride_turn(ride: RideId, generation: u64, mut follow: Box<Follow>) -> Turn {
    let next = follow.next(Merged::PAGE).await;
    Turn::Ride(ride, generation, follow, next)
}

async fn step(subscription: &mut Subscription) -> Step {
    loop {
        let step = subscription.next(Merged::PAGE).await;
        match step {
            // The topic was created since: its log begins behind the gap.
            Ok(Step::Gap(gap)) if subscription.begins_behind(gap).await => {}
            Ok(step) => return step,
            Err(error) => pause(&error).await,
        }
    }
}

pub(super) async fn own_turn(mut own: Subscription) -> Turn {
    let step = step(&mut own).await;
    Turn::Own(own, step)
}

pub(super) async fn watched_turn(mut watched: Subscription) -> Turn {
    let step = step(&mut watched).await;
    Turn::Watched(watched, step)
}

pub(super) async fn look_turn(reader: Arc<Reader>) -> Turn {
    loop {
        match reader.store.going_on(&reader.caller.user, MOST_NAMED).await {
            Ok(going_on) => return Turn::Looked(going_on),
            Err(error) => pause(&error).await,
        }
    }
}
