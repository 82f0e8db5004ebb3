//! The rules of rides, messages and events, without I/O.
//!
//! All input is parsed into one of these types at the boundary, so a `Content` or a `RideId` is always valid. This module
//! imports no other module of the crate.

mod caller;
mod chat;
mod content;
mod content_hash;
mod driver;
mod error;
mod event;
mod id;
mod labels;
mod location;
mod message;
mod moderation;
mod reaction;
mod ride;
mod ride_list_cursor;
mod ride_role;
mod shard;
mod snapshot;
mod state_update;
mod status;
mod time;
mod trace;
mod unknown_name;

pub use caller::{Caller, KeyFingerprint, Role};
pub use chat::{Chat, ChatPolicy, ClosingTimes, GraceSeconds, OpensAt};
pub use content::{Content, Metadata};
pub use content_hash::{ContentHash, ContentKey};
pub use driver::{DriverState, DriverView};
pub use error::{Code, Error, FieldError, FieldErrors, Result};
pub use event::{BatchId, EventType, Filter, NewEvent, Seq, Topic};
pub use id::{InvalidId, MessageId, RideId, UserId};
pub use labels::Labels;
pub use location::{Coordinates, Location, LocationView};
pub use message::{ClientMessageId, Message, MessageView};
pub use moderation::{Review, Verdict};
pub use reaction::{Emoji, ReactionView, Reactions};
pub use ride::{ClosedReason, Ride, RideClosed, RideView};
pub use ride_list_cursor::RideListCursor;
pub use ride_role::RideRole;
pub use shard::{LocalShard, ShardId, ShardMap, Sharded};
pub use snapshot::{Access, AccessIntervals, LatestValue, Participant, Receipt, Receipts, RideAtLeave, RideSnapshot};
pub use state_update::{LastPresence, StateKind, StateUpdate};
pub use status::Status;
pub use time::Time;
pub use trace::{NotSampled, TraceContext};
pub use unknown_name::UnknownName;
