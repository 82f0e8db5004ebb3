//! Reading the platform's feed: a subscription to the feed's topic. No access rights apply, because only the platform reads the feed.

use std::sync::Arc;
use std::time::Duration;

use super::ride_reader::{CloseReason, RideItem, pause};
use super::{Gap, ShardLog, Subscription, TopicItem};
use crate::domain::{Seq, Topic};
use crate::store::StoreError;

/// How long to wait for the relay while opening.
const RELAY_TIMEOUT: Duration = Duration::from_millis(250);

/// The largest number of events that are read while opening.
const FIRST_PAGE: usize = 100;

/// A reader of the feed.
#[derive(Debug)]
pub struct FeedReader {
    subscription: Subscription,
    /// An item that was read while opening and is not delivered yet.
    pending: Option<TopicItem>,
}

/// Where reading starts.
#[derive(Debug, Clone, Copy)]
pub struct FeedStart {
    /// The position after which events are delivered.
    pub cursor: Seq,
    /// Whether the client gave a cursor and the reader continues from it without a gap.
    pub resumed: bool,
    /// The events after the given cursor that the feed no longer has.
    pub gap: Option<Gap>,
}

impl FeedReader {
    /// Opens the feed after `cursor`. Without a cursor, or with one past the feed's end (a restored database), the reader starts now.
    pub async fn open(
        ShardLog { hub, store }: &ShardLog,
        cursor: Option<Seq>,
        wake_relay: impl FnOnce(),
    ) -> Result<(Self, FeedStart), StoreError> {
        let topic = Topic::feed();
        let mut subscription = Subscription::register(hub, Arc::clone(store), &topic).await;
        // A client that has received the response to its write finds the event on the feed. Events that are committed from now on are
        // relayed promptly, because the feed has a reader.
        wake_relay();
        store.wait_for_relay(RELAY_TIMEOUT).await?;
        let heads = store.heads(&[topic.as_str()]).await?;
        let head = heads.first().map_or(0, |(_, head)| *head);
        let accepted = cursor.filter(|cursor| *cursor <= head);
        let start = accepted.unwrap_or(head);
        subscription.start(start, head, &[], true);
        let mut reader = Self { subscription, pending: None };
        let mut gap = None;
        if reader.subscription.is_behind() {
            match reader.subscription.next(FIRST_PAGE).await? {
                TopicItem::Gap(missing) => gap = Some(missing),
                item => reader.pending = Some(item),
            }
        }
        let cursor = gap.map_or(start, |gap| gap.to);
        Ok((reader, FeedStart { cursor, resumed: accepted.is_some() && gap.is_none(), gap }))
    }

    /// Waits for the next item: at most `limit` events. If the database is unavailable, it retries. Cancel-safe: if the future is dropped,
    /// no event is lost.
    pub async fn next(&mut self, limit: usize) -> RideItem {
        loop {
            let item = match self.pending.take() {
                Some(TopicItem::Events(mut events)) => {
                    let rest = events.split_off(limit.min(events.len()));
                    self.pending = (!rest.is_empty()).then_some(TopicItem::Events(rest));
                    Ok(TopicItem::Events(events))
                }
                Some(item) => Ok(item),
                None => self.subscription.next(limit).await,
            };
            match item {
                Ok(TopicItem::Events(events)) => return RideItem::Events(events),
                // The feed has no state updates.
                Ok(TopicItem::Updates(_)) => {}
                Ok(TopicItem::Gap(gap)) => return RideItem::Gap(gap),
                Ok(TopicItem::Reset) => return RideItem::Closed(CloseReason::Reset),
                Err(error) => Box::pin(pause(&error)).await,
            }
        }
    }

    /// Returns the position up to which events were delivered.
    pub fn cursor(&self) -> Seq {
        match &self.pending {
            Some(TopicItem::Events(events)) => events.first().map(|first| first.seq - 1),
            _ => None,
        }
        .unwrap_or_else(|| self.subscription.cursor())
    }

    /// Returns whether an item can be delivered without waiting.
    pub fn is_behind(&self) -> bool {
        self.pending.is_some() || self.subscription.is_behind()
    }
}
