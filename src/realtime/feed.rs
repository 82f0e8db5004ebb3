//! Reading the feed: a subscription to its topic, without rights. Only the platform reads it, and all of it is the platform's.

use std::sync::Arc;
use std::time::Duration;

use super::follow::{Closed, Gap, Next, pause};
use super::{Hub, Step, Subscription};
use crate::domain::{Seq, Topic};
use crate::store::{Store, StoreError};

/// How long the relay is waited for while opening.
const RELAY_TIMEOUT: Duration = Duration::from_millis(250);

/// The most events read while opening.
const FIRST_PAGE: usize = 100;

/// A reader of the feed.
#[derive(Debug)]
pub struct FeedReader {
    subscription: Subscription,
    /// Read while opening, and not delivered yet.
    first: Option<Step>,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy)]
pub struct FeedOpened {
    /// What is delivered comes after this position.
    pub cursor: Seq,
    /// Whether a cursor was given and the reader continues from it without a gap.
    pub resumed: bool,
    /// What the feed no longer has after the given cursor.
    pub gap: Option<Gap>,
}

impl FeedReader {
    /// Begins to read after `cursor`; from now on where none is given, or where the feed ends before it (a restored database).
    pub async fn open(
        hub: &Arc<Hub>,
        store: &Arc<Store>,
        cursor: Option<Seq>,
        wake_relay: impl FnOnce(),
    ) -> Result<(Self, FeedOpened), StoreError> {
        let topic = Topic::feed();
        let mut subscription = Subscription::register(hub, Arc::clone(store), &topic);
        // Whoever has written and had the response finds it on the feed. What is committed from here on is relayed promptly, since
        // there is a reader.
        wake_relay();
        store.await_relay(RELAY_TIMEOUT).await?;
        let heads = store.heads(&[topic.as_str()]).await?;
        let head = heads.first().map_or(0, |(_, head)| *head);
        let honoured = cursor.filter(|cursor| *cursor <= head);
        let start = honoured.unwrap_or(head);
        subscription.start(start, head, &[], true);
        let mut reader = Self { subscription, first: None };
        let mut gap = None;
        if reader.subscription.is_behind() {
            match reader.subscription.next(FIRST_PAGE).await? {
                Step::Gap(hole) => gap = Some(hole),
                step => reader.first = Some(step),
            }
        }
        let cursor = gap.map_or(start, |gap| gap.to);
        Ok((reader, FeedOpened { cursor, resumed: honoured.is_some() && gap.is_none(), gap }))
    }

    /// Waits for what comes next, at most `limit` events. Dropping the future loses nothing. A database that is away is waited
    /// for.
    pub async fn next(&mut self, limit: usize) -> Next {
        loop {
            let step = match self.first.take() {
                Some(Step::Events(mut events)) => {
                    let rest = events.split_off(limit.min(events.len()));
                    self.first = (!rest.is_empty()).then_some(Step::Events(rest));
                    Ok(Step::Events(events))
                }
                Some(step) => Ok(step),
                None => self.subscription.next(limit).await,
            };
            match step {
                Ok(Step::Events(events)) => return Next::Events(events),
                // The feed has none.
                Ok(Step::Values(_)) => {}
                Ok(Step::Gap(gap)) => return Next::Gap(gap),
                Ok(Step::Reset) => return Next::Closed(Closed::Reset),
                Err(error) => Box::pin(pause(&error)).await,
            }
        }
    }

    /// Up to where events were delivered.
    pub fn cursor(&self) -> Seq {
        match &self.first {
            Some(Step::Events(events)) => events.first().map(|first| first.seq - 1),
            _ => None,
        }
        .unwrap_or_else(|| self.subscription.cursor())
    }

    /// Whether there is something to deliver now.
    pub fn is_behind(&self) -> bool {
        self.first.is_some() || self.subscription.is_behind()
    }
}
