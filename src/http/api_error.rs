//! The errors of the API: the domain's errors, and those that exist only in HTTP.

use serde::Serialize;

use crate::auth::TokenError;
use crate::domain::Error;
use crate::realtime::OpenError;
use crate::store::StoreError;
use crate::writer::BroadcastError;

/// Why a request fails. [`super::problem`] writes it as a problem (RFC 9457).
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// An error of the domain.
    #[error(transparent)]
    Domain(#[from] Error),
    /// A database error. The cause is logged; the client receives the domain error that it maps to.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Missing or invalid token. `None`: the request has no token.
    #[error("{}", .0.as_ref().map_or_else(|| "send a token: Authorization: Bearer <JWT>".to_owned(), ToString::to_string))]
    Unauthorized(Option<TokenError>),
    /// The body is larger than the limit.
    #[error("a body may have at most 64 KiB")]
    BodyTooLarge,
    /// A limit on requests, connections or queued writes is reached.
    #[error("too many {what}; try again in {seconds} s")]
    TooMany {
        /// What is limited, in the plural.
        what: &'static str,
        /// The value of `Retry-After`, in seconds.
        seconds: u64,
    },
    /// A broadcast that is committed for some of its users only.
    #[error("committed for the first {done} users in the order of their ids{}; repeat it later for the others", possibly(*.in_doubt))]
    BroadcastStopped {
        /// The number of users for whom it is committed.
        done: usize,
        /// The number of users after them for whom the commit's outcome is unknown.
        in_doubt: usize,
    },
    /// The server is not ready. Only `/readyz` returns this.
    #[error("{}", .0.reason())]
    NotReady(NotReady),
    /// No route matches the path.
    #[error("there is no resource at this path")]
    NotFound,
    /// The path exists, but not with this method.
    #[error("this path does not support this method; see the Allow header")]
    MethodNotAllowed,
}

/// The checks of a server that is not ready.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NotReady {
    pub(super) database: bool,
    pub(super) writable: bool,
    pub(super) keys: bool,
    pub(super) listen: &'static str,
}

impl NotReady {
    /// Returns the first failed check, in words.
    fn reason(&self) -> &'static str {
        match (self.database, self.writable, self.keys) {
            (false, ..) => "Postgres does not respond",
            (_, false, _) => "Postgres does not accept writes",
            (.., false) => "no key to verify tokens is loaded",
            _ => "the server is stopping",
        }
    }
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Rejected(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl From<BroadcastError> for ApiError {
    fn from(error: BroadcastError) -> Self {
        match error {
            BroadcastError::QueueFull => Self::TooMany { what: "queued broadcasts", seconds: 5 },
            BroadcastError::Interrupted { done, in_doubt, error: Error::Unavailable } => {
                Self::BroadcastStopped { done, in_doubt }
            }
            BroadcastError::Interrupted { error, .. } => error.into(),
        }
    }
}

fn possibly(users: usize) -> String {
    if users == 0 { String::new() } else { format!(", and possibly for the next {users}") }
}
