//! Puts `message:undelivered` on the feed for messages that have not been delivered in time, so that the platform can send a push.
//!
//! The feed itself is the queue: each of its events is looked at once, when it is old enough. So there is no row per message, and a
//! server that was stopped goes on where the last one was. The delivered watermark decides, as it is in the snapshot of the statement
//! that looks: what was delivered before the message was due causes nothing. A user gets one event until the watermark moves; when it
//! does, the receipt that reports it comes by on the feed too, and what lies after it is looked at again.
//!
//! Every replica looks; one at a time works, under the lock of the feed's head.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::domain::Seq;
use crate::store::{Relayed, Store, StoreError};

/// The most events of the feed in one step.
const PAGE: i64 = 500;

/// The time between two looks of a replica; jittered.
const PERIOD: Duration = Duration::from_millis(500);

/// Looks for messages that have not been delivered `age` after they were sent, for ever. `relayed` gets the end of the feed after
/// each step that has put something there.
pub async fn run(store: Arc<Store>, age: Duration, relayed: impl Fn(Seq)) {
    loop {
        sleep(PERIOD.mul_f64(0.5 + fastrand::f64())).await;
        if let Err(error) = work(&store, age, &relayed).await {
            tracing::debug!(%error, "undelivered messages cannot be looked for now");
        }
    }
}

/// Works as long as there is something to do, and no other replica does it.
async fn work(store: &Store, age: Duration, relayed: &impl Fn(Seq)) -> Result<(), StoreError> {
    while store.has_older(age).await? {
        match store.find_undelivered(age, PAGE).await? {
            Relayed::UpTo { last, .. } => relayed(last),
            Relayed::Passed => {}
            Relayed::Nothing | Relayed::Busy => break,
        }
    }
    Ok(())
}
