//! Where following everything begins: at a cursor, or now.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;

use super::turns::{Found, Turn, find, own_turn, watched_turn};
use super::{Attend, MOST_NAMED, MOST_RIDES, Merged};
use crate::domain::{RideSnapshot, Seq, Signal, Topic};
use crate::realtime::{Gap, OpenError, Places, Reader, Step, Subscription};
use crate::store::StoreError;

/// The most drivers that are shown at once; all are at `/drivers/available`.
const MOST_DRIVERS: i64 = 1_000;

/// Where following everything begins.
#[derive(Debug)]
pub struct MergedOpened {
    /// Whether a cursor was given and honoured without a gap.
    pub resumed: bool,
    /// The first thing that retention has taken; others follow.
    pub gap: Option<(Topic, Gap)>,
    /// The rides, and on each the place that the cursor gave, where it was honoured.
    pub rides: Vec<(RideSnapshot, Option<Seq>)>,
    /// The drivers who take rides, for those who see them.
    pub drivers: Option<Vec<Signal>>,
}

impl Merged {
    /// Begins to follow everything of the reader's after `cursor`; from now on where none is given.
    pub async fn open(
        reader: Reader,
        cursor: Option<Places>,
        attend: Attend,
    ) -> Result<(Self, MergedOpened), OpenError> {
        let reader = Arc::new(reader);
        let own_topic = Topic::user(&reader.caller.user);
        let mut own = Subscription::register(&reader.hub, Arc::clone(&reader.store), &own_topic);
        let mut going_on = reader.store.going_on(&reader.caller.user, MOST_NAMED).await?;
        let was_given = cursor.is_some();
        // One past the end is from another life of this database: it begins now.
        let given = cursor.filter(|places| places.own <= going_on.head);
        let mut places = given.clone().unwrap_or_else(|| {
            let mut places = Places::beginning(&reader.caller.user);
            places.own = going_on.head;
            places
        });
        // What lies before the log's beginning was never the reader's, or was erased: no gap.
        places.own = places.own.max(going_on.begins_after);
        own.start(places.own, going_on.head, &[], true);
        let former = places.others(going_on.rides.iter().map(|one| &one.ride));
        let left_out = going_on.rides.split_off(going_on.rides.len().min(MOST_RIDES));
        if given.is_none() {
            // They begin now too, for when there is room.
            left_out.iter().for_each(|one| places.advance(&one.ride, one.head));
        }
        let mut merged = Self {
            reader: Arc::clone(&reader),
            attend,
            turns: FuturesUnordered::new(),
            rides: HashMap::new(),
            generations: 0,
            held: VecDeque::new(),
            own: None,
            taken_up_for: 0,
            replayed_at: going_on.head,
            later: BTreeMap::new(),
            former,
            places,
            gaps: VecDeque::new(),
            omitted: left_out.iter().map(|one| one.ride.clone()).collect(),
            omitted_told: left_out.into_iter().map(|one| one.ride).collect(),
            wants_look: false,
            looks: false,
        };
        merged.spare_places();
        let finding = going_on.rides.into_iter().map(|one| find(&reader, one.ride, given.as_ref()));
        let mut rides = Vec::new();
        let mut resumed = given.is_some() || !was_given;
        for found in join_all(finding).await {
            match found? {
                Found::Followed(opened, place) => {
                    let (follow, opened) = *opened;
                    merged.follow(follow, &opened);
                    resumed &= place.is_none() || opened.resumed;
                    rides.push((opened.snapshot, place.filter(|_| opened.resumed)));
                }
                Found::New(snapshot) => {
                    if let Some(access) = snapshot.access(&reader.caller) {
                        merged.later.insert(snapshot.ride.id.clone(), access.from_seq - 1);
                        rides.push((*snapshot, None));
                    }
                }
                Found::Gone => {}
            }
        }
        // Whether the own log still has what comes next is known from the log alone.
        let turn: BoxFuture<'static, Turn> = match own.is_behind() {
            false => Box::pin(own_turn(own)),
            true => match own.next(Self::PAGE).await? {
                Step::Gap(gap) => {
                    merged.gaps.push_front((own_topic, gap));
                    Box::pin(own_turn(own))
                }
                step => Box::pin(std::future::ready(Turn::Own(own, step))),
            },
        };
        merged.turns.push(turn);
        let drivers = merged.watch_drivers().await?;
        let gap = merged.next_gap();
        let opened = MergedOpened { resumed: was_given && resumed && gap.is_none(), gap, rides, drivers };
        Ok((merged, opened))
    }

    /// Support and service see the drivers as well: those who take rides now, and what changes.
    async fn watch_drivers(&mut self) -> Result<Option<Vec<Signal>>, StoreError> {
        let Reader { hub, store, caller, .. } = &*self.reader;
        if !caller.role.is_staff() {
            return Ok(None);
        }
        let mut watched = Subscription::register(hub, Arc::clone(store), &Topic::drivers());
        let drivers = self.drivers().await?;
        watched.start(0, 0, drivers.as_deref().unwrap_or_default(), true);
        self.turns.push(Box::pin(watched_turn(watched)));
        Ok(drivers)
    }

    /// The drivers who take rides now, for those who see them.
    pub async fn drivers(&mut self) -> Result<Option<Vec<Signal>>, StoreError> {
        let Reader { store, caller, .. } = &*self.reader;
        match caller.role.is_staff() {
            true => store.available_drivers(None, MOST_DRIVERS).await.map(Some),
            false => Ok(None),
        }
    }
}
