//! Live: events as a stream, and as a poll; of one ride, of everything that is the caller's, or of the feed. A stream is the loop of
//! a [`Reader`](reader::Reader) without end, a poll is one turn of it with a time-out.

mod acknowledged;
pub(super) mod feed;
mod handed;
pub(super) mod poll;
mod reader;
mod request;
pub(super) mod sse;
pub(super) mod state;
mod stream;
