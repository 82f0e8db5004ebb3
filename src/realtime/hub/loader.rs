//! The loader: reads the events that the topics of this replica miss from the log.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Hub;
use crate::domain::{Seq, Topic};
use crate::realtime::event::Encoder;
use crate::realtime::topic::{Missing, TopicState};
use crate::realtime::{Event, RemoteObserver, RemoteUpdate};
use crate::store::{PageRequest, Store, StoreError, StoredEvent};

/// The largest number of events per topic, and of topics, that the loader reads with one statement.
const LOAD_EVENTS: i64 = 100;
const LOAD_TOPICS: usize = 500;

/// How long the loader waits before it retries a failed database call.
const LOAD_PAUSE: Duration = Duration::from_millis(200);

impl Hub {
    /// Loads missing events, forever. Each statement reads the next page of many topics, once for all readers.
    pub async fn run_loader(&self, store: Arc<Store>, observer: Arc<RemoteObserver>) {
        loop {
            self.work.notified().await;
            loop {
                let Some(behind) = self.take_behind() else { break };
                if let Err(error) = self.load(&store, &behind, &observer).await {
                    tracing::debug!(%error, topics = behind.len(), "events could not be read; the read is retried");
                    behind.into_iter().for_each(|(state, _)| self.load_later(state.name.clone()));
                    tokio::time::sleep(LOAD_PAUSE).await;
                }
            }
        }
    }

    /// Takes some of the topics that are behind, with the events that they miss. Returns `None` when no topic is left.
    fn take_behind(&self) -> Option<Vec<(Arc<TopicState>, Missing)>> {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = BTreeSet::new();
        while taken.len() < LOAD_TOPICS
            && let Some(topic) = behind.pop_first()
        {
            taken.insert(topic);
        }
        drop(behind);
        if taken.is_empty() {
            return None;
        }
        // A topic without readers needs no events.
        let found = taken.iter().filter_map(|topic| self.find(topic));
        Some(found.filter_map(|state| state.missing().map(|missing| (state, missing))).collect())
    }

    async fn load(
        &self,
        store: &Store,
        behind: &[(Arc<TopicState>, Missing)],
        observer: &RemoteObserver,
    ) -> Result<(), StoreError> {
        let requested_at = Instant::now();
        let request = |(state, missing): &(Arc<TopicState>, Missing)| PageRequest {
            topic: state.name.clone(),
            after: missing.after,
            limit: LOAD_EVENTS,
        };
        let pages = store.pages(behind.iter().map(request).collect()).await?;
        let (mut empty, mut encoder) = (Vec::new(), Encoder::default());
        for ((state, missing), page) in behind.iter().zip(pages) {
            let Some(page) = readable(state, *missing, page) else { continue };
            if page.is_empty() {
                empty.push((state, *missing));
                continue;
            }
            let (topic, after) = (&state.name, missing.after);
            observer.on_update(RemoteUpdate::Events { topic, after, events: &page, requested_at });
            self.fill(state, *missing, page, &mut encoder);
        }
        if empty.is_empty() {
            return Ok(());
        }
        // The page is empty: either retention has deleted the events, or the hint was wrong. The log's head decides. Events up to that head
        // that still exist are found by a read that starts after it.
        let names: Vec<_> = empty.iter().map(|(state, _)| state.name.as_str()).collect();
        let heads: HashMap<Topic, Seq> = store.heads(&names).await?.into_iter().collect();
        let head_of = |state: &TopicState| heads.get(&state.name).copied().unwrap_or(0);
        let mut again = Vec::new();
        for (state, missing) in empty {
            let head = head_of(state);
            if head > missing.after {
                again.push((Arc::clone(state), Missing { up_to: head, ..missing }));
            } else {
                state.retract_hint(missing);
            }
        }
        let pages = store.pages(again.iter().map(request).collect()).await?;
        for ((state, missing), page) in again.iter().zip(pages) {
            if let Some(page) = readable(state, *missing, page) {
                self.fill(state, *missing, page, &mut encoder);
            }
        }
        Ok(())
    }

    fn fill(&self, state: &TopicState, missing: Missing, page: Vec<StoredEvent>, encoder: &mut Encoder) {
        // The feed is a single topic whose frames have ids, so its events share no bytes.
        let encode = |event: StoredEvent| match state.name.is_feed() {
            true => Event::from(event),
            false => encoder.encode(event.seq, event.kind, &event.data, event.trace),
        };
        if state.fill(missing, page.into_iter().map(encode).collect()) {
            self.load_later(state.name.clone());
        }
    }
}

/// Returns the page of a topic. If one of its events cannot be parsed, the topic is left as it is until the next check,
/// so that it does not delay the other topics.
fn readable(
    state: &TopicState,
    missing: Missing,
    page: Result<Vec<StoredEvent>, StoreError>,
) -> Option<Vec<StoredEvent>> {
    page.inspect_err(|error| {
        tracing::warn!(%error, topic = %state.name, after = missing.after, "event could not be parsed; readers of its topic on this replica wait");
        state.retract_hint(missing);
    })
    .ok()
}
