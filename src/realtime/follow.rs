//! Following a ride: a subscription, and what of the log is the follower's to see.
//!
//! Rights are read from the database after registering, and again after every event that can move them, before
//! the next one is handed out. Such an event and the change of rights are one commit, so who is replaced at seq 9
//! is handed 9 and never 10, on any replica and whatever the clock says.
//!
//! Values obey the same: a subscription gives them when its cursor has reached the seq that they name, so whatever ends or
//! begins the rights up to there has been handed out, and rights have been read again, before it is asked whether they cover
//! that seq.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Event, Hub, Step, Subscription, Value, subject};
use crate::domain::{Access, Caller, Error, EventType, Parts, RideId, RideSnapshot, Seq, Signal, Topic};
use crate::store::{Store, StoreError};

/// How long to wait before a database that has failed is asked again; jittered.
const PAUSE_MS: std::ops::Range<u64> = 200..1_000;

/// How long to wait between two looks whether a ride is closed whose chat window has passed; jittered.
const CLOSING_MS: std::ops::Range<u64> = 300..600;

/// Events that the log no longer has, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, salvo::oapi::ToSchema)]
#[salvo(schema(name = "Gap"))]
pub struct Gap {
    /// The first.
    pub from: Seq,
    /// The last.
    pub to: Seq,
}

/// Who follows, and what they read.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Live events.
    pub hub: Arc<Hub>,
    /// The log.
    pub store: Arc<Store>,
    /// Who.
    pub caller: Caller,
}

/// Somebody who follows a ride.
#[derive(Debug)]
pub struct Follow {
    subscription: Subscription,
    reader: Arc<Reader>,
    ride: RideId,
    access: Access,
    /// All of their times on the ride, up to now: whose messages they may see.
    parts: Parts,
    /// Whether the ride has not ended.
    goes_on: bool,
    /// When the chat window will have passed for everyone: then it is looked whether the ride is closed.
    closes_at: Option<Instant>,
    /// Read, and to be handed out first: it waits for what has to be known about it.
    first: Option<Step>,
    /// Rights may have moved at the last event that was handed out.
    recheck: bool,
}

/// Where following begins.
#[derive(Debug)]
pub struct Opened {
    /// What is handed out lies after this.
    pub cursor: Seq,
    /// Whether a cursor was given and honoured without a gap.
    pub resumed: bool,
    /// What retention has taken between the given cursor and `cursor`.
    pub gap: Option<Gap>,
    /// The ride at that moment, and the head of its log.
    pub snapshot: RideSnapshot,
    /// Nothing is there to be handed out, and nothing will be: the ride is closed.
    pub is_over: bool,
    /// The chat window has passed for everyone, and the ride is still to be closed.
    pub is_to_be_closed: bool,
}

/// Why a ride cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not there, or not the caller's.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The database could not say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What comes next for a follower.
#[derive(Debug)]
pub enum Next {
    /// Events, in order.
    Events(Vec<Event>),
    /// Values that have changed, the last of each.
    Values(Vec<Value>),
    /// The log no longer has these; what follows comes after them.
    Gap(Gap),
    /// Nothing more will come.
    Closed(Closed),
}

/// Why nothing more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The ride is over and its grace has passed.
    RideOver,
    /// The follower is no longer on the ride.
    Removed,
    /// The log is another than the one that was followed; a new look is needed.
    Reset,
}

impl Follow {
    /// Begins to follow `ride` after `cursor`; from now on where none is given. The follower is told the ride as it is.
    pub async fn open(reader: Arc<Reader>, ride: RideId, cursor: Option<Seq>) -> Result<(Self, Opened), OpenError> {
        Self::open_as(reader, ride, cursor, true).await
    }

    /// The same where the follower is not told that, or was told something older: the last values come as such.
    pub(super) async fn join(reader: Arc<Reader>, ride: RideId, cursor: Seq) -> Result<(Self, Opened), OpenError> {
        Self::open_as(reader, ride, Some(cursor), false).await
    }

    async fn open_as(
        reader: Arc<Reader>,
        ride: RideId,
        cursor: Option<Seq>,
        is_told: bool,
    ) -> Result<(Self, Opened), OpenError> {
        let Reader { hub, store, caller } = &*reader;
        let mut subscription = Subscription::register(hub, Arc::clone(store), &Topic::ride(&ride));
        let snapshot = store.snapshot(&ride).await?.ok_or(Error::RideNotFound)?;
        let head = snapshot.head;
        // A cursor past the head is from another life of this database: nothing in it can be trusted, so it begins now.
        let honoured = cursor.filter(|cursor| *cursor <= head);
        let access = honoured.map_or_else(|| snapshot.access(caller), |cursor| snapshot.access_after(caller, cursor));
        let access = access.ok_or(Error::RideNotFound)?;
        // What lies before the follower's time is no gap.
        let start = honoured.map_or(head, |cursor| cursor.max(access.from_seq - 1));
        if access.until_seq.is_some_and(|until| start >= until) {
            return Err(Error::RideNotFound.into());
        }
        let location = snapshot.location.as_ref().zip(snapshot.ride.driver.as_ref());
        let location = location.map(|(last, driver)| Signal {
            topic: Topic::ride(&ride),
            kind: EventType::RideLocation,
            user: driver.clone(),
            version: last.version,
            seq: last.seq,
            data: last.data.get().to_owned(),
        });
        let people = snapshot.participants.iter();
        let presence = people.filter_map(|person| Some(person.presence?.signal(&ride, &person.user)));
        subscription.start(start, head, &presence.chain(location).collect::<Vec<_>>(), is_told);
        let parts = snapshot.parts(caller);
        let (goes_on, closes_at) = (!snapshot.ride.status.is_ended(), when_over(&snapshot));
        let recheck = false;
        let mut follow = Self { subscription, reader, ride, access, parts, goes_on, closes_at, first: None, recheck };
        let mut gap = None;
        // Whether the log still has what comes next is known from the log alone. Where the hub is not as far as the
        // database yet there is no need to wait for it: between the two nothing is missing.
        if follow.subscription.is_behind() {
            match follow.subscription.next(FIRST_PAGE).await? {
                Step::Gap(hole) => gap = Some(follow.within_access(hole)),
                step => follow.first = Some(step),
            }
            // Whatever moved rights may have been in it.
            follow.recheck = gap.is_some();
        }
        let opened = Opened {
            cursor: gap.map_or(start, |gap| gap.to),
            resumed: honoured.is_some() && gap.is_none(),
            gap,
            is_over: snapshot.ride.closed_at.is_some() && follow.first.is_none() && start >= head,
            is_to_be_closed: snapshot.is_to_be_closed(),
            snapshot: as_seen(&follow.reader, snapshot).await?,
        };
        Ok((follow, opened))
    }

    /// Of what the log no longer has, the part that is the follower's. What lies behind it is of another time of theirs, or
    /// somebody else's: the subscription goes on from where this ends.
    fn within_access(&mut self, gap: Gap) -> Gap {
        match self.access.until_seq.filter(|until| *until < gap.to) {
            Some(until) => {
                self.subscription.return_to(until);
                Gap { from: gap.from, to: until }
            }
            None => gap,
        }
    }

    /// Whether the ride has not ended.
    pub fn is_going_on(&self) -> bool {
        self.goes_on
    }

    /// Whether there is something to hand out now.
    pub fn is_behind(&self) -> bool {
        self.first.is_some() || self.subscription.is_behind()
    }

    /// The ride.
    pub fn ride(&self) -> &RideId {
        &self.ride
    }

    /// Who follows.
    pub fn caller(&self) -> &Caller {
        &self.reader.caller
    }

    /// As what the follower is on the ride.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Up to where events were handed out.
    pub fn cursor(&self) -> Seq {
        let before = match &self.first {
            Some(Step::Events(events)) => events.first().map(|first| first.seq - 1),
            Some(Step::Gap(gap)) => Some(gap.from - 1),
            Some(Step::Values(_) | Step::Reset) | None => None,
        };
        before.unwrap_or_else(|| self.subscription.cursor())
    }

    /// The ride as it is now, or as the follower has left it.
    pub async fn snapshot(&self) -> Result<RideSnapshot, StoreError> {
        as_seen(&self.reader, self.look().await?).await
    }

    async fn look(&self) -> Result<RideSnapshot, StoreError> {
        self.reader.store.snapshot(&self.ride).await?.ok_or(StoreError::Corrupt("a followed ride is gone"))
    }

    /// Waits for what comes next, at most `limit` events. Dropping the future loses nothing. A database that is
    /// away is waited for.
    pub async fn next(&mut self, limit: usize) -> Next {
        loop {
            match self.step(limit).await {
                Ok(next) => return next,
                Err(error) => Box::pin(pause(&error)).await,
            }
        }
    }

    async fn step(&mut self, limit: usize) -> Result<Next, StoreError> {
        if self.recheck {
            Box::pin(self.look_again()).await?;
        }
        let cursor = self.subscription.cursor();
        if self.first.is_none() && self.access.until_seq.is_some_and(|until| cursor >= until) {
            return Ok(Next::Closed(Closed::Removed));
        }
        if self.first.is_none() {
            self.first = self.wait(limit).await?;
        }
        // What was read is kept while it is asked for, so that dropping the future does not lose it.
        let hidden = match &self.first {
            Some(Step::Events(events)) if !self.parts.is_whole() => {
                Box::pin(subject::hidden(&self.reader.store, &self.parts, events)).await?
            }
            _ => HashSet::new(),
        };
        let Some(step) = self.first.take() else { return Ok(Next::Closed(Closed::RideOver)) };
        Ok(match step {
            Step::Events(mut events) => {
                if let Some(until) = self.access.until_seq {
                    events.retain(|event| event.seq <= until);
                }
                self.recheck = events.last().is_some_and(|last| last.kind.moves_rights());
                events.retain(|event| !hidden.contains(&event.seq));
                Next::Events(events)
            }
            Step::Values(mut values) => {
                values.retain(|value| self.is_for_follower(value));
                Next::Values(values)
            }
            Step::Gap(gap) => {
                // Whatever moved rights may have been in it.
                self.recheck = true;
                Next::Gap(self.within_access(gap))
            }
            Step::Reset => Next::Closed(Closed::Reset),
        })
    }

    /// Whether a value lies in the part of the log that is the follower's, and is not about themselves.
    fn is_for_follower(&self, value: &Value) -> bool {
        let is_own = value.kind != EventType::RideLocation && value.user == self.reader.caller.user;
        self.access.covers(value.seq) && !is_own
    }

    /// The next step, or `None` when the ride is closed and all of it was handed out.
    ///
    /// The ride is closed by a command that holds the lock of its log, and nobody may write after that. So what was sent until
    /// then is in the log where it is found closed, whatever the clocks say.
    async fn wait(&mut self, limit: usize) -> Result<Option<Step>, StoreError> {
        loop {
            let Some(closes_at) = self.closes_at else { return self.subscription.next(limit).await.map(Some) };
            let over = Box::pin(sleep_until(closes_at));
            tokio::select! {
                biased;
                step = self.subscription.next(limit) => return step.map(Some),
                () = over => {}
            }
            let snapshot = Box::pin(self.look()).await?;
            if snapshot.ride.closed_at.is_some() {
                // What is still on its way from the database is handed out first: of that, the head knows.
                if self.subscription.cursor() >= snapshot.head {
                    return Ok(None);
                }
                self.subscription.observe(snapshot.head);
                return self.subscription.next(limit).await.map(Some);
            }
            // Somebody is about to close it, or it was reopened.
            let soon = Instant::now() + Duration::from_millis(fastrand::u64(CLOSING_MS));
            self.closes_at = when_over(&snapshot).map(|at| at.max(soon));
        }
    }

    async fn look_again(&mut self) -> Result<(), StoreError> {
        let snapshot = self.look().await?;
        (self.goes_on, self.closes_at) = (!snapshot.ride.status.is_ended(), when_over(&snapshot));
        self.parts = snapshot.parts(&self.reader.caller);
        // Who was on the ride has access to a part of it for ever; so `None` cannot be.
        // One who was taken off and is back goes on from there: what lies between is somebody else's.
        if let Some(access) = snapshot.access_after(&self.reader.caller, self.subscription.cursor()) {
            self.access = access;
            self.subscription.skip_to(access.from_seq - 1);
        }
        self.recheck = false;
        Ok(())
    }
}

/// A ride to somebody who may have left it: what it has become is not theirs to see, nor are watermarks on others' messages.
pub(super) async fn as_seen(reader: &Reader, snapshot: RideSnapshot) -> Result<RideSnapshot, StoreError> {
    let Some(until) = snapshot.left_at(&reader.caller) else {
        return reader.store.with_seen_marks(snapshot, &reader.caller).await;
    };
    let left_as = reader.store.left_as(&snapshot.ride.id, &reader.caller.user, until).await?;
    Ok(snapshot.as_left(until, left_as))
}

/// When a ride's chat window will have passed for everyone. The database's clock decides that: how far off it is by that clock is
/// waited for by ours.
fn when_over(snapshot: &RideSnapshot) -> Option<Instant> {
    if !snapshot.ride.status.is_ended() {
        return None;
    }
    // Where an older version has ended it, that is decided in a moment.
    let closes_in = snapshot.ride.closed_at.or(snapshot.ride.closes_at()).map(|at| at.since(snapshot.read_at));
    Some(Instant::now() + closes_in.unwrap_or(Duration::from_millis(CLOSING_MS.end)))
}

/// Waits before a database that has failed is asked again.
pub(super) async fn pause(error: &StoreError) {
    tracing::debug!(%error, "a follower waits for the database");
    sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
}

/// The most events read while opening.
const FIRST_PAGE: usize = 100;
