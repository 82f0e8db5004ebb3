//! What streams and polls read from: one ride, everything of the caller's, or the feed.

use std::fmt;

use bytes::Bytes;

use super::handed::ride_of;
use super::state::{GapView, State};
use crate::domain::{RideId, RideRole, Seq};
use crate::http::context::Api;
use crate::http::metrics::Transport;
use crate::realtime::{Closed, Event, FeedReader, Follow, Gap, Merged, MergedNext, Next, Value};
use crate::store::StoreError;

/// A follower, of whatever it may be.
pub(super) trait Reader: Send + 'static {
    /// The least limit of events that it can keep to.
    const LEAST: usize;

    /// Waits for what comes next, at most `limit` events. Dropping the future loses nothing.
    fn next(&mut self, limit: usize) -> impl Future<Output = Turn> + Send;

    /// Up to where events were handed out.
    fn cursor(&self) -> Cursor;

    /// Whether there is something to hand out now.
    fn is_behind(&self) -> bool;

    /// Whether what is followed goes on: a ride that has not ended.
    fn is_going_on(&self) -> bool;

    /// The ride that a message of it is on, where whoever follows is a participant there.
    fn ride_as_participant(&self, message: &Event) -> Option<RideId>;

    /// What is followed, as it is now. (`&mut`, since a merged follower cannot be shared between threads.)
    fn state(&mut self) -> impl Future<Output = Result<State, StoreError>> + Send;
}

/// What comes next for a reader.
pub(super) enum Turn {
    Events(Vec<Handed>),
    Values(Vec<Value>),
    Gap(GapView, Cursor),
    /// Other rides are left out than before.
    Omitted,
    Closed(Closed),
}

/// A position: what a client gives to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    /// On a ride, or on the feed.
    Seq(Seq),
    /// On many topics.
    Places(String),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => seq.fmt(f),
            Self::Places(places) => f.write_str(places),
        }
    }
}

/// An event, and the position after it.
pub(super) struct Handed {
    pub(super) event: Event,
    pub(super) cursor: Cursor,
}

impl Handed {
    /// About how much of a response it takes.
    pub(super) fn bytes(&self) -> usize {
        let cursor = match &self.cursor {
            Cursor::Seq(_) => 0,
            Cursor::Places(places) => places.len(),
        };
        self.event.size() + cursor
    }

    /// The event as a frame. On a ride it is the one that all readers share.
    pub(super) fn frame(&self) -> Bytes {
        match &self.cursor {
            Cursor::Seq(_) => self.event.frame().clone(),
            Cursor::Places(places) => self.event.frame_as(places),
        }
    }
}

/// Records that these are handed out now.
pub(super) fn trace(events: &[Handed], api: &Api, transport: Transport) {
    for Handed { event, .. } in events {
        if let Some(trace) = &event.trace {
            api.traces.delivered(**trace, event.seq, transport.as_str(), event.arrived);
        }
    }
}

impl Reader for Follow {
    const LEAST: usize = 1;

    async fn next(&mut self, limit: usize) -> Turn {
        Self::next(self, limit).await.into()
    }

    fn cursor(&self) -> Cursor {
        Cursor::Seq(Self::cursor(self))
    }

    fn is_behind(&self) -> bool {
        Self::is_behind(self)
    }

    fn is_going_on(&self) -> bool {
        Self::is_going_on(self)
    }

    fn ride_as_participant(&self, _: &Event) -> Option<RideId> {
        matches!(self.access().role, RideRole::Rider | RideRole::Driver).then(|| self.ride().clone())
    }

    async fn state(&mut self) -> Result<State, StoreError> {
        self.snapshot().await.map(|snapshot| State::Ride(Box::new(snapshot)))
    }
}

impl From<Next> for Turn {
    fn from(next: Next) -> Self {
        let handed = |event: Event| Handed { cursor: Cursor::Seq(event.seq), event };
        match next {
            Next::Events(events) => Self::Events(events.into_iter().map(handed).collect()),
            Next::Values(values) => Self::Values(values),
            Next::Gap(gap) => Self::Gap(gap.into(), Cursor::Seq(gap.to)),
            Next::Closed(closed) => Self::Closed(closed),
        }
    }
}

impl Reader for FeedReader {
    const LEAST: usize = 1;

    async fn next(&mut self, limit: usize) -> Turn {
        Self::next(self, limit).await.into()
    }

    fn cursor(&self) -> Cursor {
        Cursor::Seq(Self::cursor(self))
    }

    fn is_behind(&self) -> bool {
        Self::is_behind(self)
    }

    fn is_going_on(&self) -> bool {
        true
    }

    fn ride_as_participant(&self, _: &Event) -> Option<RideId> {
        None
    }

    async fn state(&mut self) -> Result<State, StoreError> {
        Ok(State::Feed)
    }
}

impl Reader for Merged {
    /// What comes next was asked for before the limit was known.
    const LEAST: usize = Self::PAGE;

    async fn next(&mut self, _: usize) -> Turn {
        match Self::next(self).await {
            MergedNext::Events(events) => {
                let handed = events.into_iter();
                let handed = handed.map(|one| Handed { event: one.event, cursor: Cursor::Places(one.cursor) });
                Turn::Events(handed.collect())
            }
            MergedNext::Values(values) => Turn::Values(values),
            MergedNext::Gap(topic, gap) => {
                let cursor = Cursor::Places(Self::cursor(self));
                Turn::Gap(GapView::of(&topic, gap), cursor)
            }
            MergedNext::Omitted => Turn::Omitted,
            MergedNext::Reset => Turn::Closed(Closed::Reset),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor::Places(Self::cursor(self))
    }

    fn is_behind(&self) -> bool {
        Self::is_behind(self)
    }

    fn is_going_on(&self) -> bool {
        Self::is_going_on(self)
    }

    fn ride_as_participant(&self, message: &Event) -> Option<RideId> {
        // Only participants have a ride in their merged stream.
        ride_of(message.data())
    }

    async fn state(&mut self) -> Result<State, StoreError> {
        let (rides, drivers) = (self.snapshots().await?, self.drivers().await?);
        Ok(State::All { rides, drivers, omitted: self.omitted().to_vec() })
    }
}

impl From<Gap> for GapView {
    fn from(gap: Gap) -> Self {
        Self { topic: None, from: gap.from, to: gap.to }
    }
}
