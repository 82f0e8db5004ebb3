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

mod access;
mod access_log;
mod architecture;
mod audit;
mod auth;
mod backends;
mod bad_input;
mod bounds;
mod broadcasts;
mod browsers;
mod check;
mod cli;
mod closing;
mod console;
mod curl;
mod docs;
mod drivers;
mod erasure;
mod feed;
mod flights;
mod fuzz;
mod health;
mod history;
mod idempotency;
mod jwks;
mod known;
mod limits;
mod listing;
mod live;
mod locked;
mod logs;
mod many_rides;
mod merged;
mod message_trace;
mod messages;
mod metrics;
mod moderation;
mod newer;
mod openapi;
mod pages;
mod poll;
mod pooler;
mod presence;
mod private;
mod prometheus;
mod protocol;
mod proxies;
mod push;
mod reactions;
mod receipts;
mod removed;
mod reopening;
mod resume;
mod retention;
mod revocation;
mod rides;
mod rights;
mod scripted;
mod secure;
mod sql;
mod startup;
mod startup_errors;
mod strangers;
mod stream;
mod tickets;
mod tls;
mod tokens;
mod toolchain;
mod traces;
mod undelivered;
mod values;
mod webhook_targets;
mod webhooks;
mod window;
