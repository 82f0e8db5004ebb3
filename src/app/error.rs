//! The errors of a start and of a running server.

use crate::embedded::EmbeddedError;
use crate::jwks;
use crate::keys::KeysError;
use crate::moderation::ModerationError;
use crate::push::{PushError, VapidError};
use crate::serving::TlsError;
use crate::store::{ShardError, StoreError};
use crate::webhooks::WebhooksError;

/// The reason why the server could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A setting is invalid.
    #[error("{0}")]
    Setting(String),
    /// No key to verify tokens with could be loaded.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The issuer's keys could not be read.
    #[error("RIDEWIRE_JWKS: {0}; set it to the https:// address or the file of the issuer's JWKS")]
    Jwks(#[from] jwks::ReadError),
    /// The certificate or its key could not be used.
    #[error("RIDEWIRE_TLS_CERTIFICATE and RIDEWIRE_TLS_KEY: {0}")]
    Tls(#[from] TlsError),
    /// The settings of the moderation hook are invalid.
    #[error(transparent)]
    Moderation(#[from] ModerationError),
    /// The private Postgres could not be started, or stopped.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database failed, with the setting and the address of the database.
    #[error("{setting} ({place}): {error}; {}", error.advice())]
    Database {
        /// The setting that holds its address.
        setting: &'static str,
        /// Its host and port.
        place: String,
        /// The cause.
        error: StoreError,
    },
    /// The deployment does not have the expected shards.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// Webhooks could not be started.
    #[error(transparent)]
    Webhooks(#[from] WebhooksError),
    /// Web Push could not be started.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A setting of Web Push is invalid.
    #[error(transparent)]
    Vapid(#[from] VapidError),
    /// The server could not listen on an address.
    #[error("{setting}: cannot listen on {address}: {error}; {}", advice(error))]
    Listen {
        /// The setting that holds the address.
        setting: &'static str,
        /// The address.
        address: String,
        /// The cause.
        error: std::io::Error,
    },
    /// A metric could not be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Signal handlers could not be installed.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// A task that runs as long as the server has ended.
    #[error("a task of the server ended: {0}")]
    Task(String),
}

/// Returns what the operator can do about an address that cannot be bound.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "stop the program that listens there, or choose another port",
        std::io::ErrorKind::AddrNotAvailable => "choose an address of this machine; 0.0.0.0 stands for all of them",
        std::io::ErrorKind::PermissionDenied => "choose a port from 1024 on, or give the server CAP_NET_BIND_SERVICE",
        _ => "write an address and a port, as 127.0.0.1:8080",
    }
}
