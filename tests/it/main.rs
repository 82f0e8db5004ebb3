//! Integration tests: the `ridewire` program with a real Postgres, tested over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first unexpected value"
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
mod batches;
mod bounds;
mod broadcasts;
mod browsers;
mod chat_window;
mod check;
mod cli;
mod closing;
mod console;
mod corrupt_rows;
mod curl;
mod database_hosts;
mod database_tls;
mod docs;
mod driver_removal;
mod drivers;
mod erasure;
mod existence;
mod feed;
mod followers;
mod fuzz;
mod health;
mod history;
mod idempotency;
mod jwks;
mod latest_only;
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
mod migration_guides;
mod moderation;
mod newer_version;
mod openapi;
mod poll;
mod pooler;
mod presence;
mod private_postgres;
mod prometheus;
mod protocol;
mod proxies;
mod push;
mod reactions;
mod receipts;
mod reopening;
mod resume;
mod retention;
mod revocation;
mod ride_cache;
mod ride_scenario;
mod rides;
mod rights;
mod shards;
mod sql;
mod startup;
mod startup_errors;
mod stream;
mod tickets;
mod tls;
mod tokens;
mod toolchain;
mod traces;
mod undelivered;
mod waiting_polls;
mod webhook_targets;
mod webhooks;
mod words;
