//! Following everything of one's own: one's own topic, and each ride that one is on.
//!
//! Every topic is followed as if it were alone; this puts what comes into one sequence and says after each event
//! where the reader is on all of them. One's own topic says which rides come and go (`ride:assigned`, `ride:closed`),
//! so whoever continues after a cursor meets them where they happened: a ride is followed from the event that assigned
//! it, and the event that closed it waits until the ride has been handed out up to there.
//!
//! Invariants:
//! - `places` is what has been handed out and nothing else. What was read and not handed out yet is read again by
//!   whoever continues.
//! - A ride is in `places` from its assignment to its closing, so its rest is found even if it closes while the reader
//!   is away. A ride that is reopened is assigned again, from where it was closed.
//! - At most [`MOST_RIDES`] are followed at once. What was handed out of one that is left out stays in `places` too, so
//!   the reader goes on from there when there is room again, or when it closes.

mod open;
mod own;
mod room;
mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use futures_util::future::{AbortHandle, BoxFuture, FutureExt, abortable, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};

pub use self::open::MergedOpened;
use self::turns::{Turn, open_turn, own_turn, ride_turn, watched_turn};
use super::places::Key;
use super::{Attending, Closed, Event, Follow, Gap, Next, Opened, Places, Reader, Step, Subscription, Value};
use crate::domain::{RideId, RideSnapshot, Seq, Topic};
use crate::store::StoreError;

/// The most rides that are followed at once.
pub const MOST_RIDES: usize = 64;

/// The most rides that are followed or named as left out.
const MOST_NAMED: i64 = 1_000;

/// Counts somebody as there while they follow a ride, where they are on it.
pub type Attend = Box<dyn Fn(&Follow) -> Option<Attending> + Send + Sync>;

/// Somebody who follows everything of theirs.
pub struct Merged {
    reader: Arc<Reader>,
    attend: Attend,
    /// What comes next on each topic. Each owns its topic's follower, and gives it back with what it found.
    turns: FuturesUnordered<BoxFuture<'static, Turn>>,
    places: Places,
    rides: HashMap<RideId, Followed>,
    generations: u64,
    /// Events of the reader's own topic, the first of which waits for its ride; and the topic's follower meanwhile.
    held: VecDeque<Event>,
    own: Option<Subscription>,
    /// The event for whose sake a ride was taken up again.
    taken_up_for: Seq,
    /// Where the own topic ended when this began; and rides to be followed when it has been handed out up to there,
    /// unless it says so before.
    replayed_at: Seq,
    later: BTreeMap<RideId, Seq>,
    /// Rides of the cursor that are no longer the reader's. The own topic says where each closed; what is left of
    /// them when it has been handed out was taken by retention.
    former: Vec<Key>,
    /// What is missing and has not been told.
    gaps: VecDeque<(Topic, Gap)>,
    /// Rides that are left out, the first to come in first; and those that the reader was told of.
    omitted: Vec<RideId>,
    omitted_told: BTreeSet<RideId>,
    /// Which rides are to be followed may have changed; and is being looked at.
    wants_look: bool,
    looks: bool,
}

/// A ride that is followed, or about to be.
struct Followed {
    /// Tells the follower of this time from one of a time before, which may still be in `turns`.
    generation: u64,
    /// The first seq of the reader's time on it.
    from_seq: Seq,
    /// Where it ended when this began; `None` until that is known.
    head: Option<Seq>,
    /// Where a later time on it begins, which has been assigned before this one was seen to end.
    again_from: Option<Seq>,
    _attending: Option<Attending>,
    _turn: Option<StopTurn>,
}

/// Ends the turn of a ride that is followed no longer: its follower may have a day to wait.
struct StopTurn(AbortHandle);

impl Drop for StopTurn {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An event, and where a reader of everything is after it.
#[derive(Debug)]
pub struct Placed {
    /// The event.
    pub event: Event,
    /// The cursor.
    pub cursor: String,
}

/// What comes next.
#[derive(Debug)]
pub enum MergedNext {
    /// Events; those of a topic in order.
    Events(Vec<Placed>),
    /// Values that have changed, the last of each.
    Values(Vec<Value>),
    /// A log no longer has these.
    Gap(Topic, Gap),
    /// Other rides are left out than before; see [`Merged::omitted`].
    Omitted,
    /// Nothing more will come: a log is another than the one that was followed.
    Reset,
}

impl Merged {
    /// The most events that are handed out at once.
    pub const PAGE: usize = 100;

    /// Whether there is a ride that is not over.
    pub fn is_going_on(&self) -> bool {
        !self.rides.is_empty()
    }

    /// Whether there is something to hand out that was there when this began.
    pub fn is_behind(&self) -> bool {
        let is_behind = |(ride, followed): (&RideId, &Followed)| {
            followed.head.is_none_or(|head| self.places.of(ride).is_none_or(|place| place < head))
        };
        let own_is_behind = self.places.own < self.replayed_at || !self.held.is_empty();
        own_is_behind || !self.later.is_empty() || !self.gaps.is_empty() || self.rides.iter().any(is_behind)
    }

    /// Up to where events were handed out.
    pub fn cursor(&self) -> String {
        self.places.encode()
    }

    /// The rides as they are now.
    pub async fn snapshots(&mut self) -> Result<Vec<RideSnapshot>, StoreError> {
        let Reader { store, caller, .. } = &*self.reader;
        let rides = self.rides.keys().chain(self.later.keys()).map(|ride| store.snapshot(ride));
        let found = join_all(rides).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let found = found.into_iter().flatten().filter(|snapshot| snapshot.admit(caller).is_ok());
        let seen = join_all(found.map(|snapshot| store.with_seen_marks(snapshot, caller))).await;
        seen.into_iter().collect()
    }

    /// Waits for what comes next. Dropping the future loses nothing. A database that is away is waited for.
    pub async fn next(&mut self) -> MergedNext {
        loop {
            if let Some((topic, gap)) = self.next_gap() {
                return MergedNext::Gap(topic, gap);
            }
            let events = self.release();
            if !events.is_empty() {
                return MergedNext::Events(events);
            }
            self.begin_rest();
            self.look_for_room();
            if self.has_to_tell_omitted() {
                return MergedNext::Omitted;
            }
            let Some(turn) = self.turns.next().await else { return MergedNext::Reset };
            if let Some(next) = self.take(turn) {
                return next;
            }
        }
    }

    fn next_gap(&mut self) -> Option<(Topic, Gap)> {
        let (topic, gap) = self.gaps.pop_front()?;
        match topic.ride_id().and_then(|ride| RideId::parse(ride).ok()) {
            Some(ride) => self.places.advance(&ride, gap.to),
            None => self.places.own = self.places.own.max(gap.to),
        }
        Some((topic, gap))
    }

    fn begin(&mut self, ride: RideId, from_seq: Seq, after: Seq) {
        let followed = Followed {
            generation: self.next_generation(),
            from_seq,
            head: None,
            again_from: None,
            _attending: None,
            _turn: None,
        };
        self.turns.push(Box::pin(open_turn(Arc::clone(&self.reader), ride.clone(), followed.generation, after)));
        self.rides.insert(ride, followed);
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    /// Goes on with a ride that has been opened.
    fn follow(&mut self, follow: Follow, opened: &Opened) {
        let (ride, access) = (follow.ride().clone(), follow.access());
        if let Some(gap) = opened.gap {
            self.gaps.push_back((Topic::ride(&ride), gap));
        } else {
            if !opened.resumed {
                // A place that was not honoured gives way to one that lies before it.
                self.places.forget(&ride);
            }
            self.places.advance(&ride, opened.cursor);
        }
        let head = access.until_seq.map_or(opened.snapshot.head, |until| until.min(opened.snapshot.head));
        let again_from = self.rides.get(&ride).and_then(|followed| followed.again_from);
        let generation = self.next_generation();
        let followed = Followed {
            generation,
            from_seq: access.from_seq,
            head: Some(head),
            again_from: again_from.filter(|from_seq| *from_seq > access.from_seq),
            _attending: (self.attend)(&follow),
            _turn: None,
        };
        self.rides.insert(ride.clone(), followed);
        self.go_on(ride, generation, Box::new(follow));
    }

    /// Waits for what comes next on a ride, while it is followed.
    fn go_on(&mut self, ride: RideId, generation: u64, follow: Box<Follow>) {
        let Some(followed) = self.rides.get_mut(&ride) else { return };
        let (turn, stop) = abortable(ride_turn(ride, generation, follow));
        followed._turn = Some(StopTurn(stop));
        self.turns.push(turn.map(|turn| turn.unwrap_or(Turn::Stopped)).boxed());
    }

    fn is_current(&self, ride: &RideId, generation: u64) -> bool {
        self.rides.get(ride).is_some_and(|followed| followed.generation == generation)
    }

    fn take(&mut self, turn: Turn) -> Option<MergedNext> {
        match turn {
            Turn::Own(own, Step::Events(events)) => {
                self.held.extend(events);
                self.own = Some(own);
            }
            Turn::Own(own, Step::Gap(gap)) => {
                self.gaps.push_back((Topic::user(&self.reader.caller.user), gap));
                self.turns.push(Box::pin(own_turn(own)));
            }
            Turn::Own(own, Step::Values(_)) => self.turns.push(Box::pin(own_turn(own))),
            Turn::Own(_, Step::Reset) | Turn::Watched(_, Step::Reset) => return Some(MergedNext::Reset),
            Turn::Watched(drivers, step) => {
                self.turns.push(Box::pin(watched_turn(drivers)));
                if let Step::Values(values) = step {
                    return Some(MergedNext::Values(values));
                }
            }
            Turn::Opened(ride, generation, opened) if self.is_current(&ride, generation) => match opened {
                Some(opened) => {
                    let (follow, opened) = *opened;
                    self.follow(follow, &opened);
                }
                // Nothing of it is the reader's, or it is gone.
                None => self.end(&ride),
            },
            Turn::Ride(ride, generation, follow, next) if self.is_current(&ride, generation) => {
                return self.take_of_ride(ride, generation, follow, next);
            }
            Turn::Looked(going_on) => self.make_room(going_on),
            // Of a time that has been closed.
            Turn::Opened(..) | Turn::Ride(..) | Turn::Stopped => {}
        }
        None
    }

    fn take_of_ride(&mut self, ride: RideId, generation: u64, follow: Box<Follow>, next: Next) -> Option<MergedNext> {
        let access = follow.access();
        if let Some(followed) = self.rides.get_mut(&ride) {
            followed.from_seq = access.from_seq;
            followed.again_from = followed.again_from.filter(|from_seq| *from_seq > access.from_seq);
        }
        let next = match next {
            Next::Events(events) => {
                if events.iter().any(|event| event.kind.moves_rights()) {
                    // It may have ended, and another be waiting for its place.
                    self.want_look();
                }
                let place = |event: Event| {
                    self.places.advance(&ride, event.seq);
                    Placed { event, cursor: self.places.encode() }
                };
                let placed = events.into_iter().map(place).collect();
                // Past those that are not the reader's to see, too.
                self.places.advance(&ride, follow.cursor());
                MergedNext::Events(placed)
            }
            Next::Values(values) => MergedNext::Values(values),
            Next::Gap(gap) => {
                self.places.advance(&ride, gap.to);
                MergedNext::Gap(Topic::ride(&ride), gap)
            }
            Next::Closed(Closed::Reset) => return Some(MergedNext::Reset),
            Next::Closed(Closed::Removed | Closed::RideOver) => {
                self.end(&ride);
                return None;
            }
        };
        self.go_on(ride, generation, follow);
        Some(next)
    }

    /// A ride has nothing more to hand out. Its place stays until its closing is handed out.
    fn end(&mut self, ride: &RideId) {
        self.want_look();
        if let Some(from_seq) = self.rides.remove(ride).and_then(|followed| followed.again_from) {
            self.assigned(ride.clone(), from_seq);
        }
    }
}

impl fmt::Debug for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merged").field("places", &self.places).finish_non_exhaustive()
    }
}
