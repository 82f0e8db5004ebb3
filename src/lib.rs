//! Ridewire: real-time messaging for rides over plain HTTP.
//!
//! The map, and the way of one message through it:
//!
//! 1. [`http`] parses a request into the types of [`domain`] and asks [`auth`] whose token it carries.
//! 2. [`writer`] takes it as a command, judges it under the lock of its ride's topic, and commits it together with
//!    whatever else is waiting.
//! 3. [`realtime`] publishes what was committed to those who follow the ride here, and a NOTIFY has the other
//!    replicas read it from the log.
//! 4. A subscription, a loop over a cursor, hands it to a stream or a poll, which are in [`http`] again.
//!
//! [`webhooks`] delivers the events of the feed to the platform's endpoints; [`push`] tells browsers what was not delivered.
//! [`webhooks`] delivers the events of the feed to the platform's endpoints. [`audit`] records what support and service users do, and
//! [`handovers`] when messages were handed to connections.
//!
//! [`store`] is Postgres for all of them; [`serving`] takes the connections, [`memory`] bounds what they hold, [`jwks`] keeps
//! the issuer's keys current, [`moderation`] asks the platform about a content before it is stored, and [`traces`] tells a collector
//! of each step. [`app`] puts everything together, [`check`] reports what would keep it from working, [`cli`] starts it, and [`embedded`]
//! brings a Postgres where there is none. `docs/architecture.md` says why it is built so.

pub mod app;
pub mod audit;
pub mod auth;
pub mod check;
pub mod cli;
pub mod config;
mod demo;
pub mod domain;
pub mod embedded;
pub mod handovers;
pub mod http;
pub mod jwks;
pub mod keys;
pub mod memory;
pub mod moderation;
pub mod push;
pub mod realtime;
pub mod serving;
mod signature;
pub mod store;
mod telemetry;
pub mod traces;
mod version;
mod web;
pub mod webhooks;
pub mod writer;
