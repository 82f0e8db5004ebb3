//! The issuer's JWKS: loading and periodic refresh.
//!
//! Guarantees:
//!
//! - Loaded keys stay valid until the issuer replaces them. An outage of the issuer rejects no valid token.
//! - A token with an unknown key triggers a refresh. These refreshes are rate-limited for all clients together: a burst
//!   of ten, then one every 5 s. So made-up keys cost the issuer little.
//! - A key is reported as unknown only after a refresh that began after the request arrived. So made-up keys do not
//!   delay valid ones. Beyond the rate limit the client must retry.
//! - An empty set is treated as an error of the issuer, and the loaded keys stay valid. To withdraw the last key,
//!   publish another one.
//! - While the set cannot be loaded, no key is reported as unknown, because the set may contain it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use salvo::http::uri::Uri;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::auth::{JwksError, Keys, Verifier};
use crate::web;

/// The rate limit of refreshes for unknown keys: a burst, and the interval at which one more is allowed.
const REFRESH_BURST: u32 = 10;
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// The interval of retries after a failed refresh.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The maximum size of a JWKS: some hundred keys.
const MAX_BYTES: usize = 1024 * 1024;

/// Why a JWKS could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        error: std::io::Error,
    },
    /// The URL cannot be fetched, or its response is not a JWKS.
    #[error(transparent)]
    Web(#[from] web::WebError),
    /// The URL is not encrypted, so a man in the middle could replace the keys.
    #[error("http:// is allowed only for a loopback address; use https:// to load keys from another machine")]
    Insecure,
    /// The set cannot be used.
    #[error(transparent)]
    Set(#[from] JwksError),
}

/// The location of a JWKS.
#[derive(Debug, Clone)]
pub enum Source {
    /// An `https://` or `http://` URL.
    Url(String),
    /// A file.
    File(PathBuf),
}

impl FromStr for Source {
    type Err = ReadError;

    fn from_str(text: &str) -> Result<Self, ReadError> {
        if text.starts_with("http://") && !is_loopback_url(text) {
            return Err(ReadError::Insecure);
        }
        let is_url = text.starts_with("https://") || text.starts_with("http://");
        Ok(if is_url { Self::Url(text.to_owned()) } else { Self::File(text.into()) })
    }
}

/// Returns whether the host of a URL is a loopback address.
fn is_loopback_url(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    authority.is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        is_loopback && !authority.as_str().contains('@')
    })
}

impl Source {
    /// Loads the set. Returns its keys and its text.
    async fn load(&self) -> Result<(Keys, Vec<u8>), ReadError> {
        let parse = |text: Vec<u8>| Ok((Keys::from_jwks(&text)?, text));
        let loaded = match self {
            Self::Url(url) => {
                let text = web::get(url, MAX_BYTES).await?;
                spawn_blocking(move || parse(text.into())).await
            }
            Self::File(path) => {
                let path = path.clone();
                spawn_blocking(move || match std::fs::read(&path) {
                    Ok(text) => parse(text),
                    Err(error) => Err(ReadError::File { path, error }),
                })
                .await
            }
        };
        // A panic counts as an invalid set.
        loaded.unwrap_or(Err(ReadError::Set(JwksError::NotASet)))
    }
}

/// Loads a JWKS once.
pub async fn read(source: Source) -> Result<Keys, ReadError> {
    source.load().await.map(|(keys, _)| keys)
}

/// A JWKS that is refreshed periodically.
#[derive(Debug)]
pub struct Jwks {
    source: Source,
    verifier: Arc<Verifier>,
    period: Duration,
    state: Mutex<State>,
    /// When the set was last loaded. It is separate from the state, whose lock is held while the issuer responds.
    loaded_at: RwLock<Instant>,
}

#[derive(Debug, Default)]
struct State {
    /// The text of the set as last loaded.
    text: Vec<u8>,
    /// Whether the last refresh succeeded.
    is_loaded: bool,
    /// When the last refresh began.
    refreshed_at: Option<Instant>,
    /// The time until which the quota for unknown keys is used up: each refresh adds [`REFRESH_INTERVAL`].
    quota_used_until: Option<Instant>,
}

impl Jwks {
    /// Creates a JWKS that updates the keys of `verifier` from `source` every `period`.
    pub fn new(source: Source, verifier: Arc<Verifier>, period: Duration) -> Self {
        Self { source, verifier, period, state: Mutex::default(), loaded_at: RwLock::new(Instant::now()) }
    }

    /// Returns the time since the set was last loaded; if it never was, since the start.
    pub fn age(&self) -> Duration {
        self.loaded_at.read().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Runs the first refresh. A missing or invalid file is an error of the configuration. A URL that does not respond
    /// is retried later.
    pub async fn start(&self) -> Result<(), ReadError> {
        match (self.refresh(&mut *self.state.lock().await).await, &self.source) {
            (Err(error), Source::File(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Refreshes the set periodically, forever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let is_loaded = self.state.lock().await.is_loaded;
            sleep(if is_loaded { self.period } else { RETRY_INTERVAL.min(self.period) }).await;
            drop(self.refresh(&mut *self.state.lock().await).await);
        }
    }

    /// Refreshes the set for a token with an unknown key. Returns whether the set has been loaded since the call began;
    /// if not, it is unknown whether the set contains the key.
    pub async fn refresh_for_unknown_key(&self) -> bool {
        let called_at = Instant::now();
        let mut state = self.state.lock().await;
        // The first of several concurrent callers refreshes for all of them.
        if state.refreshed_at.is_none_or(|at| at < called_at) {
            let now = Instant::now();
            let used = state.quota_used_until.map_or(now, |until| until.max(now)) + REFRESH_INTERVAL;
            if used > now + REFRESH_INTERVAL * REFRESH_BURST {
                return false;
            }
            state.quota_used_until = Some(used);
            drop(self.refresh(&mut state).await);
        }
        state.is_loaded
    }

    async fn refresh(&self, state: &mut State) -> Result<(), ReadError> {
        state.refreshed_at = Some(Instant::now());
        let loaded = self.source.load().await;
        let was_loaded = std::mem::replace(&mut state.is_loaded, loaded.is_ok());
        match loaded {
            Ok((keys, text)) => {
                *self.loaded_at.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                if text != state.text {
                    tracing::info!(keys = keys.iter().count(), "issuer's keys loaded");
                    self.verifier.update_jwks(keys);
                    state.text = text;
                }
                Ok(())
            }
            Err(error) => {
                // Logged once for each outage.
                if was_loaded || state.text.is_empty() {
                    tracing::warn!(%error, "issuer's keys not loaded; only keys that were loaded before are accepted");
                }
                Err(error)
            }
        }
    }
}
