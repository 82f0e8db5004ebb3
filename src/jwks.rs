//! The issuer's set of keys, read where it publishes it and kept current.
//!
//! What holds here:
//!
//! - Keys that were read stay until others are: an issuer that is away takes nobody's login with it.
//! - A token of an unknown key has the set looked at again, ten times at once and then every 5 s at most whoever asks; so who makes
//!   up tokens costs the issuer little. Nobody is told that their key is unknown but by a look that began after they had come: a
//!   made-up key delays no real one, and beyond these looks one has to come again.
//! - An empty set is taken for a fault of the issuer, and the known keys stay: to withdraw the last key, publish another.
//! - While the set cannot be read, nobody is told that their key is unknown: it may be there.

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

/// How often unknown keys may have the set looked at: so many times at once, and one time more after each such while.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// When it is looked at again where that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Some hundred keys.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file that cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// An address that does not answer, or not with a set.
    #[error(transparent)]
    Web(#[from] web::WebError),
    /// Whoever is between could put keys of their own in.
    #[error("from another machine the keys are read over https:// alone; http:// is for this machine")]
    Insecure,
    /// Not a set that can be used.
    #[error(transparent)]
    Set(#[from] JwksError),
}

/// Where a set is.
#[derive(Debug, Clone)]
pub enum Source {
    /// At an `https://` or `http://` address.
    Url(String),
    /// In a file.
    File(PathBuf),
}

impl FromStr for Source {
    type Err = ReadError;

    fn from_str(text: &str) -> Result<Self, ReadError> {
        if text.starts_with("http://") && !is_of_this_machine(text) {
            return Err(ReadError::Insecure);
        }
        let is_url = text.starts_with("https://") || text.starts_with("http://");
        Ok(if is_url { Self::Url(text.to_owned()) } else { Self::File(text.into()) })
    }
}

/// Whether a URL names this machine by a loopback address.
fn is_of_this_machine(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    authority.is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        is_loopback && !authority.as_str().contains('@')
    })
}

impl Source {
    fn read(&self) -> Result<Vec<u8>, ReadError> {
        match self {
            Self::Url(url) => Ok(web::get(url, MAX_BYTES)?),
            Self::File(path) => std::fs::read(path).map_err(|error| ReadError::File { path: path.clone(), error }),
        }
    }
}

/// Reads a set once.
pub async fn read(source: Source) -> Result<Keys, ReadError> {
    let read = spawn_blocking(move || source.read().and_then(|text| Ok(Keys::from_jwks(&text)?))).await;
    // A reading that panics has found no set.
    read.unwrap_or(Err(ReadError::Set(JwksError::NotASet)))
}

/// A set that is kept current.
#[derive(Debug)]
pub struct Jwks {
    source: Source,
    verifier: Arc<Verifier>,
    period: Duration,
    state: Mutex<State>,
    /// When the set was last read. Apart from the state, which is locked as long as the issuer takes to answer.
    read_at: RwLock<Instant>,
}

#[derive(Debug, Default)]
struct State {
    /// The set as it was read last.
    text: Vec<u8>,
    /// Whether the last look has found a set.
    is_known: bool,
    /// When the last look began.
    looked: Option<Instant>,
    /// Until when the looks that unknown keys may cause are used up: each takes [`LOOK_AGAIN`] of them.
    used: Option<Instant>,
}

impl Jwks {
    /// Has `verifier` take what `source` publishes, looked at every `period`.
    pub fn new(source: Source, verifier: Arc<Verifier>, period: Duration) -> Self {
        Self { source, verifier, period, state: Mutex::default(), read_at: RwLock::new(Instant::now()) }
    }

    /// How long ago the set was last read; where it has never been, since the start.
    pub fn age(&self) -> Duration {
        self.read_at.read().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// The first look. A file that is not there, or holds no set, is a mistake; an address that does not answer may be back
    /// any moment.
    pub async fn start(&self) -> Result<(), ReadError> {
        match (self.look(&mut *self.state.lock().await).await, &self.source) {
            (Err(error), Source::File(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Looks at it for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let is_known = self.state.lock().await.is_known;
            sleep(if is_known { self.period } else { AGAIN.min(self.period) }).await;
            drop(self.look(&mut *self.state.lock().await).await);
        }
    }

    /// Somebody has come with an unknown key: looks whether it is there by now. Whether the set is known as it is since they have
    /// come; where it is not, nobody can say what is in it.
    pub async fn look_for_unknown(&self) -> bool {
        let came = Instant::now();
        let mut state = self.state.lock().await;
        // Of those who come together the first looks for all.
        if state.looked.is_none_or(|looked| looked < came) {
            let now = Instant::now();
            let used = state.used.map_or(now, |used| used.max(now)) + LOOK_AGAIN;
            if used > now + LOOK_AGAIN * LOOKS {
                return false;
            }
            state.used = Some(used);
            drop(self.look(&mut state).await);
        }
        state.is_known
    }

    async fn look(&self, state: &mut State) -> Result<(), ReadError> {
        state.looked = Some(Instant::now());
        let source = self.source.clone();
        let read = spawn_blocking(move || source.read().and_then(|text| Ok((Keys::from_jwks(&text)?, text)))).await;
        let was_known = std::mem::replace(&mut state.is_known, matches!(read, Ok(Ok(_))));
        match read {
            Ok(Ok((keys, text))) => {
                *self.read_at.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                if text != state.text {
                    tracing::info!(keys = keys.iter().count(), "the issuer's keys were read");
                    self.verifier.publish(keys);
                    state.text = text;
                }
                Ok(())
            }
            Ok(Err(error)) => {
                // Once, however long it lasts.
                if was_known || state.text.is_empty() {
                    tracing::warn!(%error, "the issuer's keys cannot be read; those that are known stay");
                }
                Err(error)
            }
            // The runtime ends.
            Err(_) => Ok(()),
        }
    }
}
