//! The tests of the whole: the real program, a real Postgres, and HTTP between.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise"
)]

#[path = "../support/mod.rs"]
mod support;

mod live;
mod reactions;
mod stream;
mod tickets;
