//! Postgres: the connection pool, the migrations, the SQL statements and the queries that use them.
//!
//! Every statement is a file under `sql/`. This module makes no decisions of the domain. It converts rows into domain
//! types, and database errors into [`StoreError`]. Errors are classified by SQLSTATE, never by message text.

mod address;
mod audit;
mod batched;
mod batcher;
mod deliveries;
mod drivers;
mod erasure;
mod error;
mod feed;
mod followers;
pub mod hints;
mod lists;
mod locations;
mod message_trace;
mod migrations;
mod open;
mod outbox;
mod pool;
mod presence;
mod pushes;
mod reads;
mod retention;
mod revocations;
mod rows;
mod shards;
pub mod sql;
mod types;
mod visibility;
mod webhooks;

pub use address::{Address, AddressError};
pub use audit::AuditEntry;
pub use batched::{AttemptOutcome, DeliveryState, DueDelivery, Lease, PageRequest, StoredEvent};
pub use batcher::Batcher;
pub use deliveries::{Delivery, FanOut};
pub use error::StoreError;
pub(crate) use feed::feed_data;
pub use feed::{RelayStep, SearchStep};
pub use followers::FollowerKey;
pub use lists::{RideList, StoredRide};
pub use message_trace::{HandedOver, Handover, MessageTrace, ParticipantTrace, WebhookTrace};
pub use migrations::{SchemaState, compare, migrate};
pub use outbox::{OutboxEvent, OutboxRow, RemoteRide};
pub use pool::{PLAN_TTL, PoolStatus, Prepared, SETTINGS, Session, Store, StoreConfig, pool_wait_histogram};
pub use presence::TopicUser;
pub use pushes::{DuePush, NewSubscription, NextPush, PushLease};
pub use reads::{Direction, HistoryPage, OpenRide, OpenRides, UnreadRide};
pub use retention::Retention;
pub use revocations::Revocation;
pub use rows::{LogPosition, ParticipantRow, message_from_row, participant_from_row, ride_from_row};
pub use shards::{ShardError, Shards};
pub use types::parameter_types;
pub use webhooks::{NewWebhook, Replayed, Webhook, WebhookState, WebhookUpdate};
