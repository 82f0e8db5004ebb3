//! From the log to those who follow it: the hub, the listener that wakes it, and subscriptions.
//!
//! A subscription is a loop over a cursor and nothing more: events past my cursor, from the hub's ring where it
//! has them, else from the log; hand them out; wait for the head to move. Replay and live, a slow reader, a lost
//! NOTIFY, a restarted Postgres and a client that has moved to another replica are all this loop reading this log.
//!
//! Nothing is queued for a reader. One that is slow asks later, and is then answered from the log.

mod event;
mod feed;
mod follow;
mod heeding;
mod hub;
mod listener;
mod merged;
mod places;
mod presence;
mod revocations;
mod signals;
mod subject;
mod subscription;
mod topic;
mod typing;

pub use event::Event;
pub use feed::{FeedOpened, FeedReader};
pub use follow::{Closed, Follow, Gap, Next, OpenError, Opened, Reader};
pub use heeding::{Heard, Heeding};
pub use hub::Hub;
pub(crate) use listener::listen_to;
pub use listener::{Listener, ListenerState};
pub use merged::{Attend, MOST_RIDES, Merged, MergedNext, MergedOpened, Placed};
pub use places::Places;
pub use presence::{Attendance, Attending};
pub use revocations::Revocations;
pub use signals::Value;
pub use subscription::{Step, Subscription};
