//! Event streams (SSE) and long polls: of one ride, of all the caller's events, or of the feed. A stream is an endless loop over a
//! [`Reader`](reader::Reader). A poll is one iteration of it with a timeout.

mod acknowledged;
mod delivery_record;
pub(super) mod feed;
pub(super) mod poll;
mod reader;
mod request;
pub(super) mod sse;
pub(super) mod state;
mod stream;
