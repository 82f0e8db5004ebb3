//! The rules of rides, messages and events, without I/O.
//!
//! Everything that comes from outside is parsed into one of these types before it goes any further, so what
//! holds a `Content` or a `RideId` holds a valid one. This module knows no other module of the crate.

mod caller;
mod chat;
mod content_hash;
mod driver;
mod error;
mod event;
mod id;
mod location;
mod message;
mod moderation;
mod place;
mod reaction;
mod ride;
mod signal;
mod snapshot;
mod time;
mod trace;

pub use caller::{Caller, KeyPrint, Role};
pub use chat::{Chat, ChatPolicy, GraceSeconds, OpensAt, Window};
pub use content_hash::{ContentHash, ContentKey};
pub use driver::{DriverState, DriverView};
pub use error::{Code, Error, FieldError, FieldErrors, Result};
pub use event::{BatchId, EventType, Filter, NewEvent, Seq, Topic};
pub use id::{InvalidId, MessageId, RideId, UserId};
pub use location::{Location, LocationView, Position};
pub use message::{ClientMessageId, Content, Message, MessageView, Metadata};
pub use moderation::{Labels, Review, Verdict};
pub use place::RidePlace;
pub use reaction::{Emoji, ReactionView, Reactions};
pub use ride::{ClosedReason, Ride, RideClosed, RideView, Status};
pub use signal::{LastPresence, Signal, SignalKind};
pub use snapshot::{Access, LastValue, LeftAs, Participant, Parts, Receipt, Receipts, RideRole, RideSnapshot};
pub use time::Time;
pub use trace::{NotTraced, TraceContext};
