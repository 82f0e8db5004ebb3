//! Why a request gets no answer: the domain's refusals, and those that only HTTP knows.

use super::health::NotReady;
use crate::auth::TokenError;
use crate::domain::Error;
use crate::realtime::OpenError;
use crate::store::StoreError;
use crate::writer::Stopped;

/// A request that is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The domain refuses.
    #[error(transparent)]
    Domain(#[from] Error),
    /// The database failed: the cause for the log, while the caller is told what it means for them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No token, or none that counts. `None`: there was none.
    #[error("{}", .0.as_ref().map_or_else(|| "give a token: Authorization: Bearer <JWT>".to_owned(), ToString::to_string))]
    Unauthorized(Option<TokenError>),
    /// The body is larger than anybody's message.
    #[error("a body may have at most 64 KiB")]
    BodyTooLarge,
    /// More than one user may have, for now.
    #[error("too many {what}; try again in {seconds} s")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// When to try again, in seconds.
        seconds: u64,
    },
    /// A broadcast that has not reached all.
    #[error("committed for the first {done} users, in the order of their ids{}; send it to the others later", perhaps(*.in_doubt))]
    BroadcastStopped {
        /// How many were told.
        done: usize,
        /// How many after them may have been.
        in_doubt: usize,
    },
    /// The server is not ready: to whoever asks just that.
    #[error("{}", .0.reason())]
    NotReady(NotReady),
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    NotFound,
    /// There is, but not for this method.
    #[error("this path does not take this method; see the Allow header")]
    MethodNotAllowed,
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Refused(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Busy => Self::TooMany { what: "broadcasts wait for their turn", seconds: 5 },
            Stopped::After { done, in_doubt, error: Error::Unavailable } => Self::BroadcastStopped { done, in_doubt },
            Stopped::After { error, .. } => error.into(),
        }
    }
}

fn perhaps(users: usize) -> String {
    if users == 0 { String::new() } else { format!(", and perhaps for the {users} after them") }
}
