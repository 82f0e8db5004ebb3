//! Live: a ride's events as a stream, and as a poll. Both are the same [`Follow`](crate::realtime::Follow).

pub(super) mod poll;
mod request;
pub(super) mod sse;
pub(super) mod state;
