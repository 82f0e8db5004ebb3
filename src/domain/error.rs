//! The domain's errors. They are independent of HTTP: `http::problem` maps each to a status and a title.

use super::{Seq, Status};

/// The result of applying a rule to a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request is rejected. A rejected request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fields of the body, parameters or headers are invalid.
    #[error("{}", .0.summary())]
    Invalid(FieldErrors),
    /// The ride does not exist, or the caller has no access to it.
    #[error("the ride does not exist, or you have no access to it")]
    RideNotFound,
    /// The message does not exist, or the caller has no access to it.
    #[error("the message does not exist, or you have no access to it")]
    MessageNotFound,
    /// The webhook does not exist.
    #[error("the webhook does not exist")]
    WebhookNotFound,
    /// The feed no longer has all events after a cursor.
    #[error("the feed no longer has all events after this cursor: give a cursor from {first} to {last}")]
    FeedGap {
        /// The first cursor after which the feed has all events.
        first: Seq,
        /// The cursor at the feed's end.
        last: Seq,
    },
    /// The driver of the ride has not sent a location yet.
    #[error("the driver has not sent a location yet")]
    LocationUnknown,
    /// The caller may see the resource, but may not use this operation on it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The ride's chat window has not opened yet.
    #[error("the chat of this ride is not open yet")]
    ChatNotOpen,
    /// The ride's chat window has passed.
    #[error("the chat of this ride is closed")]
    ChatClosed,
    /// The same `clientMessageId` was used for other content.
    #[error("this clientMessageId was already used on this ride for a message with other content")]
    IdempotencyConflict,
    /// Moderation rejected the content, for this reason.
    #[error("{0}")]
    MessageRejected(String),
    /// Moderation does not respond, and the server is configured to store no content without it.
    #[error("the message cannot be checked at the moment; try again")]
    ModerationUnavailable,
    /// The message was deleted.
    #[error("this message was deleted")]
    MessageDeleted,
    /// The message has the maximum number of different reaction emoji.
    #[error("a message can have at most 20 different reaction emoji")]
    TooManyReactions,
    /// The ride's status cannot change to the requested one.
    #[error("a ride with status {} cannot change to {}", .from.as_str(), .to.as_str())]
    InvalidTransition {
        /// The ride's status.
        from: Status,
        /// The requested status.
        to: Status,
    },
    /// The ride's state does not allow the operation.
    #[error("{0}")]
    RideConflict(&'static str),
    /// The queue of writes is full. The request changed nothing and can be repeated.
    #[error("too many writes are queued; try again in 1 s")]
    TooManyQueuedWrites,
    /// The database is unreachable or cannot write at the moment. The request can be repeated.
    #[error("the service is unavailable at the moment; try again")]
    Unavailable,
    /// An internal error. The server logs its cause with the request's id.
    #[error("an internal error occurred; the server's log has its cause under the requestId")]
    Internal,
}

/// The kind of an [`Error`], for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is one variant of `Error`, by the same name")]
pub enum Code {
    InvalidRequest,
    RideNotFound,
    MessageNotFound,
    WebhookNotFound,
    FeedGap,
    LocationUnknown,
    Forbidden,
    ChatNotOpen,
    ChatClosed,
    IdempotencyConflict,
    MessageRejected,
    ModerationUnavailable,
    MessageDeleted,
    TooManyReactions,
    InvalidTransition,
    RideConflict,
    TooManyQueuedWrites,
    Unavailable,
    Internal,
}

impl Error {
    /// Returns the error for one invalid field. `pointer` is a JSON Pointer (RFC 6901) into the body, or the name of a
    /// parameter or header.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors(vec![FieldError { pointer: pointer.into(), detail: detail.into() }]))
    }

    /// Returns the kind of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidRequest,
            Self::RideNotFound => Code::RideNotFound,
            Self::MessageNotFound => Code::MessageNotFound,
            Self::WebhookNotFound => Code::WebhookNotFound,
            Self::FeedGap { .. } => Code::FeedGap,
            Self::LocationUnknown => Code::LocationUnknown,
            Self::Forbidden(_) => Code::Forbidden,
            Self::ChatNotOpen => Code::ChatNotOpen,
            Self::ChatClosed => Code::ChatClosed,
            Self::IdempotencyConflict => Code::IdempotencyConflict,
            Self::MessageRejected(_) => Code::MessageRejected,
            Self::ModerationUnavailable => Code::ModerationUnavailable,
            Self::MessageDeleted => Code::MessageDeleted,
            Self::TooManyReactions => Code::TooManyReactions,
            Self::InvalidTransition { .. } => Code::InvalidTransition,
            Self::RideConflict(_) => Code::RideConflict,
            Self::TooManyQueuedWrites => Code::TooManyQueuedWrites,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }
}

/// One invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// A JSON Pointer (RFC 6901) into the body, or the name of a parameter or header.
    pub pointer: String,
    /// What a valid value must be.
    pub detail: String,
}

/// All invalid fields of one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// Returns the value of a parsed field. Where parsing failed, records the error and returns `None`.
    pub fn check<T, E: std::fmt::Display>(&mut self, pointer: &str, parsed: std::result::Result<T, E>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(detail) => {
                self.0.push(FieldError { pointer: pointer.to_owned(), detail: detail.to_string() });
                None
            }
        }
    }

    /// Converts the recorded errors into one [`Error`].
    pub fn into_error(self) -> Error {
        Error::Invalid(self)
    }

    fn summary(&self) -> String {
        let fields: Vec<_> = self.0.iter().map(|e| format!("{}: {}", e.pointer, e.detail)).collect();
        fields.join("; ")
    }
}
