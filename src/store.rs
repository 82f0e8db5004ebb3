//! Postgres: the pool, the migrations, the statements and what is read with them.
//!
//! Every statement is a file under `sql/`. Nothing here decides anything: it turns rows into the domain's types
//! and the database's errors into [`StoreError`], told by SQLSTATE, never by text.

mod address;
mod audit;
mod batcher;
mod deliveries;
mod drivers;
mod erasure;
mod error;
mod feed;
pub mod hints;
mod lists;
mod locations;
mod message_trace;
mod migrations;
mod pool;
mod presence;
mod pushes;
mod reads;
mod retention;
mod revocations;
mod rows;
mod seen;
pub mod sql;
mod types;
mod webhooks;

pub use address::{Address, AddressError};
pub use audit::AuditEntry;
pub use batcher::Batcher;
pub use deliveries::{Attempted, Claimed, Delivery, DeliveryState, Due, FannedOut, Lease};
pub use error::StoreError;
pub use feed::Relayed;
pub use lists::{RideList, StoredRide};
pub use message_trace::{HandedOver, Handover, MessageTrace, ParticipantTrace, WebhookTrace};
pub use migrations::{SchemaState, compare, migrate};
pub use pool::{PLANS_AGE, PoolStatus, Prepared, SETTINGS, Session, Store, StoreConfig};
pub use presence::Presence;
pub use pushes::{DuePush, NewSubscription, NextPush, PushLease};
pub use reads::{Direction, GoingOn, HistoryPage, PageRequest, RideGoingOn, StoredEvent, UnreadRide};
pub use retention::{Place, Retention};
pub use revocations::Revocation;
pub use rows::{Person, message_from_row, person_from_row, ride_from_row};
pub use types::parameter_types;
pub use webhooks::{NewWebhook, Replayed, Webhook, WebhookState, WebhookUpdate};
