//! Why the server cannot start.

use super::addresses::advice;
use crate::embedded::EmbeddedError;
use crate::jwks;
use crate::keys::KeysError;
use crate::moderation::ModerationError;
use crate::push::{PushError, VapidError};
use crate::serving::TlsError;
use crate::store::StoreError;
use crate::webhooks::WebhooksError;

/// Why the server could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// There are no keys to verify tokens with.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The issuer's keys cannot be had.
    #[error("RIDEWIRE_JWKS: {0}; name the https:// address or the file of the issuer's JWKS")]
    Jwks(#[from] jwks::ReadError),
    /// There can be no TLS.
    #[error("RIDEWIRE_TLS_CERTIFICATE and RIDEWIRE_TLS_KEY: {0}")]
    Tls(#[from] TlsError),
    /// The platform's moderation cannot be asked.
    #[error(transparent)]
    Moderation(#[from] ModerationError),
    /// The private Postgres could not be started, or stopped.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The database could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The same, and which database it is.
    #[error("{setting} ({place}): {error}; {}", error.advice())]
    Database {
        /// The setting that names it.
        setting: &'static str,
        /// Its host and port.
        place: String,
        /// Why not.
        error: StoreError,
    },
    /// Webhooks cannot be delivered.
    #[error(transparent)]
    Webhooks(#[from] WebhooksError),
    /// Web Push cannot be sent.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A setting of Web Push is wrong.
    #[error(transparent)]
    Vapid(#[from] VapidError),
    /// The address could not be listened on.
    #[error("{setting}: cannot listen on {address}: {error}; {}", advice(error))]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// Which.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// What is counted cannot be.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The operating system refuses signals.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// Something that never ends has ended.
    #[error("a task of the server ended: {0}")]
    Task(String),
}
