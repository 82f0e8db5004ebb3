//! Ridewire: real-time messaging for rides over plain HTTP.
//!
//! The modules, along the path of one message:
//!
//! 1. [`http`] parses a request into the types of [`domain`]. [`auth`] verifies its token.
//! 2. [`writer`] queues the request as a command. It applies the command under the lock of its ride's topic, and commits it
//!    together with the other commands of its batch.
//! 3. [`realtime`] publishes the committed events to the readers of the ride on this replica. A NOTIFY makes the other
//!    replicas read them from the log.
//! 4. A subscription, a loop over a cursor, delivers them to a stream or a poll of [`http`].
//!
//! [`webhooks`] delivers the events of the feed to the platform's endpoints. [`push`] notifies browsers of undelivered messages.
//! [`audit`] records the actions of support and service users, and [`handovers`] the handovers of messages to connections.
//!
//! All of them share these modules:
//!
//! - [`shards`] holds the parts of each shard, so that a handler finds those of a ride or a user.
//! - [`store`] contains the access to Postgres.
//! - [`serving`] accepts connections, and [`memory`] limits the memory of their requests and responses.
//! - `happy_eyeballs` connects to the first of several addresses that responds.
//! - [`jwks`] keeps the issuer's keys current.
//! - [`moderation`] sends each message content to the platform before it is stored.
//! - [`traces`] exports OpenTelemetry traces.
//! - [`app`] starts and stops the server, [`cli`] parses the command line, and [`check`] reports problems of a setup.
//! - [`embedded`] runs a private Postgres if none is configured.
//!
//! `docs/explanation/architecture.md` explains the reasons.

pub mod app;
pub mod audit;
pub mod auth;
pub mod check;
pub mod cli;
pub mod config;
mod deferred;
mod demo;
pub mod domain;
pub mod embedded;
pub mod handovers;
mod happy_eyeballs;
pub mod http;
pub mod jwks;
pub mod keys;
pub mod memory;
pub mod moderation;
pub mod push;
pub mod realtime;
pub mod serving;
pub mod shards;
mod signature;
pub mod store;
mod telemetry;
pub mod traces;
mod trust;
mod version;
mod web;
pub mod webhooks;
pub mod writer;
