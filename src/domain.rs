//! The rules of rides, messages and events, without I/O.
//!
//! Everything that comes from outside is parsed into one of these types before it goes any further, so what
//! holds a `Content` or a `RideId` holds a valid one. This module knows no other module of the crate.

mod caller;
mod error;
mod id;
mod ride;
mod time;

pub use caller::{Caller, Role};
pub use error::{Code, Error, FieldError, FieldErrors, Result};
pub use id::{InvalidId, MessageId, RideId, UserId};
pub use ride::{Chat, Ride, Status};
pub use time::Time;
