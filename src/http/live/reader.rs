//! The sources of streams and polls: one ride, all the caller's events, or the feed.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;

use super::state::{GapView, State};
use crate::domain::{RideId, RideRole, Seq};
use crate::http::context::Api;
use crate::http::metrics::Transport;
use crate::realtime::{
    CloseReason, Event, FeedReader, Gap, MergedItem, MergedReader, RideItem, RideReader, StateFrame,
};
use crate::store::StoreError;

/// A reader of events, of any source.
pub(super) trait Reader: Send + 'static {
    /// The smallest limit of events that the reader can respect.
    const MIN_LIMIT: usize;

    /// Waits for the next item: at most `limit` events. Cancel-safe: if the future is dropped, no event is lost.
    fn next(&mut self, limit: usize) -> impl Future<Output = StreamItem> + Send;

    /// Returns the cursor after the delivered events.
    fn cursor(&self) -> Cursor;

    /// Returns whether an item can be delivered without waiting.
    fn is_behind(&self) -> bool;

    /// Returns whether the source is ongoing: for a ride, whether it has not ended.
    fn source_is_ongoing(&self) -> bool;

    /// Returns the ride of a message, if the caller is a participant of that ride.
    fn ride_as_participant(&self, message: &Event) -> Option<RideId>;

    /// Loads the current state of the source. (`&mut`, because a merged reader cannot be shared between threads.)
    fn state(&mut self) -> impl Future<Output = Result<State, StoreError>> + Send;
}

/// The next item of a reader.
pub(super) enum StreamItem {
    Events(Vec<EventWithCursor>),
    Updates(Vec<StateFrame>),
    Gap(GapView, Cursor),
    /// The set of rides that the merged stream omits has changed; a new sync lists it.
    OmittedRidesChanged,
    Closed(CloseReason),
}

/// A cursor, with which a client resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    /// A cursor of a ride or of the feed.
    Seq(Seq),
    /// A cursor of a merged stream.
    Merged(String),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => seq.fmt(f),
            Self::Merged(cursor) => f.write_str(cursor),
        }
    }
}

/// An event, and the cursor after it.
pub(super) struct EventWithCursor {
    pub(super) event: Event,
    pub(super) cursor: Cursor,
}

impl EventWithCursor {
    /// Returns about how many bytes of a response the event takes.
    pub(super) fn bytes(&self) -> usize {
        let cursor = match &self.cursor {
            Cursor::Seq(_) => 0,
            Cursor::Merged(cursor) => cursor.len(),
        };
        self.event.size() + cursor
    }

    /// Returns the event as an SSE frame. On a ride, all readers share the frame.
    pub(super) fn frame(&self) -> Bytes {
        match &self.cursor {
            Cursor::Seq(_) => self.event.frame().clone(),
            Cursor::Merged(cursor) => self.event.frame_as(cursor),
        }
    }
}

/// Records a trace span for each sampled event that is now delivered.
pub(super) fn record_spans(events: &[EventWithCursor], api: &Api, transport: Transport) {
    for EventWithCursor { event, .. } in events {
        if let Some(trace) = &event.trace {
            api.traces.delivered(**trace, event.seq, transport.as_str(), event.received_at);
        }
    }
}

impl Reader for RideReader {
    const MIN_LIMIT: usize = 1;

    async fn next(&mut self, limit: usize) -> StreamItem {
        Self::next(self, limit).await.into()
    }

    fn cursor(&self) -> Cursor {
        Cursor::Seq(Self::cursor(self))
    }

    fn is_behind(&self) -> bool {
        Self::is_behind(self)
    }

    fn source_is_ongoing(&self) -> bool {
        Self::is_ongoing(self)
    }

    fn ride_as_participant(&self, _: &Event) -> Option<RideId> {
        matches!(self.access().role, RideRole::Rider | RideRole::Driver).then(|| self.ride().clone())
    }

    async fn state(&mut self) -> Result<State, StoreError> {
        self.snapshot().await.map(|snapshot| State::Ride(Box::new(snapshot)))
    }
}

impl From<RideItem> for StreamItem {
    fn from(item: RideItem) -> Self {
        let with_cursor = |event: Event| EventWithCursor { cursor: Cursor::Seq(event.seq), event };
        match item {
            RideItem::Events(events) => Self::Events(events.into_iter().map(with_cursor).collect()),
            RideItem::Updates(updates) => Self::Updates(updates),
            RideItem::Gap(gap) => Self::Gap(gap.into(), Cursor::Seq(gap.to)),
            RideItem::Closed(closed) => Self::Closed(closed),
        }
    }
}

impl Reader for FeedReader {
    const MIN_LIMIT: usize = 1;

    async fn next(&mut self, limit: usize) -> StreamItem {
        Self::next(self, limit).await.into()
    }

    fn cursor(&self) -> Cursor {
        Cursor::Seq(Self::cursor(self))
    }

    fn is_behind(&self) -> bool {
        Self::is_behind(self)
    }

    fn source_is_ongoing(&self) -> bool {
        true
    }

    fn ride_as_participant(&self, _: &Event) -> Option<RideId> {
        None
    }

    async fn state(&mut self) -> Result<State, StoreError> {
        Ok(State::Feed)
    }
}

impl Reader for MergedReader {
    /// The next item is requested before the limit is known.
    const MIN_LIMIT: usize = Self::PAGE;

    async fn next(&mut self, _: usize) -> StreamItem {
        match Self::next(self).await {
            MergedItem::Events(events) => {
                let events = events.into_iter();
                let events = events.map(|one| EventWithCursor { event: one.event, cursor: Cursor::Merged(one.cursor) });
                StreamItem::Events(events.collect())
            }
            MergedItem::Updates(updates) => StreamItem::Updates(updates),
            MergedItem::Gap(topic, gap) => {
                let cursor = Cursor::Merged(Self::cursor(self));
                StreamItem::Gap(GapView::of(&topic, gap), cursor)
            }
            MergedItem::OmittedRidesChanged => StreamItem::OmittedRidesChanged,
            MergedItem::Reset => StreamItem::Closed(CloseReason::Reset),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor::Merged(Self::cursor(self))
    }

    fn is_behind(&self) -> bool {
        Self::is_behind(self)
    }

    fn source_is_ongoing(&self) -> bool {
        Self::is_ongoing(self)
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageData<'a> {
    ride_id: &'a str,
}

/// Returns the ride that the data of a `message:new` names.
fn ride_of(data: &str) -> Option<RideId> {
    let MessageData { ride_id } = serde_json::from_str(data).ok()?;
    RideId::parse(ride_id).ok()
}

impl From<Gap> for GapView {
    fn from(gap: Gap) -> Self {
        Self { topic: None, from: gap.from, to: gap.to }
    }
}
