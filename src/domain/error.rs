//! What can be wrong with a request, said once, without a word of HTTP.

use super::Seq;
use super::ride::Status;

/// The result of judging a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request was refused. A refusal changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The body, a parameter or a header does not say what it should.
    #[error("{}", .0.summary())]
    Invalid(FieldErrors),
    /// There is no such ride for this caller.
    #[error("there is no such ride, or it is not yours")]
    RideNotFound,
    /// There is no such message for this caller.
    #[error("there is no such message, or it is not yours")]
    MessageNotFound,
    /// There is no such webhook.
    #[error("there is no such webhook")]
    WebhookNotFound,
    /// The feed does not have all events after a cursor.
    #[error("the feed does not have all events after this cursor: it can be read after {first}, and ends at {last}")]
    FeedGap {
        /// The first cursor that can be read after.
        first: Seq,
        /// The last.
        last: Seq,
    },
    /// The driver of this ride has not said where they are.
    #[error("the driver has not said where they are")]
    LocationUnknown,
    /// The caller sees the thing but may not do this to it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The ride's chat window has not opened yet.
    #[error("the chat of this ride is not open yet")]
    ChatNotOpen,
    /// The ride's chat window has passed.
    #[error("the chat of this ride has closed")]
    ChatClosed,
    /// The same `clientMessageId` was used for another content.
    #[error("this clientMessageId was already used on this ride for a message with another content")]
    IdempotencyConflict,
    /// Moderation has rejected the content; its reason.
    #[error("{0}")]
    MessageRejected(String),
    /// Moderation does not respond, and nothing is stored without it.
    #[error("the message cannot be checked at the moment; try again")]
    ModerationUnavailable,
    /// The message was deleted.
    #[error("this message was deleted")]
    MessageDeleted,
    /// The message has as many kinds of reactions as it can.
    #[error("a message has at most 20 kinds of reactions")]
    TooManyReactions,
    /// The status machine has no such step.
    #[error("a ride that is {} cannot become {}", .from.as_str(), .to.as_str())]
    InvalidTransition {
        /// Where the ride is.
        from: Status,
        /// Where it was asked to go.
        to: Status,
    },
    /// The ride is in a state in which this cannot be done.
    #[error("{0}")]
    RideConflict(&'static str),
    /// So many writes wait for the ride already that no more are taken; nothing was done, and it may be tried again.
    #[error("too many writes wait for this ride; try again in 1 s")]
    TooManyWaiting,
    /// The database cannot be reached, or cannot write now; the request may be tried again.
    #[error("the service cannot do this at the moment; try again")]
    Unavailable,
    /// A fault of ours. Its cause is in the log, under the request's id.
    #[error("something went wrong on our side")]
    Internal,
}

/// A stable name for each kind of refusal, for programs.
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
    TooManyWaiting,
    Unavailable,
    Internal,
}

impl Error {
    /// One field that is wrong: `pointer` is a JSON Pointer (RFC 6901) into the body, or the name of a
    /// parameter or header.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors(vec![FieldError { pointer: pointer.into(), detail: detail.into() }]))
    }

    /// The kind of this refusal.
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
            Self::TooManyWaiting => Code::TooManyWaiting,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }
}

/// One field that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// A JSON Pointer (RFC 6901) into the body, or the name of a parameter or header.
    pub pointer: String,
    /// What would be right.
    pub detail: String,
}

/// All that is wrong with the fields of one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// Takes the value of one field, or notes what is wrong with it.
    pub fn take<T, E: std::fmt::Display>(&mut self, pointer: &str, parsed: std::result::Result<T, E>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(detail) => {
                self.0.push(FieldError { pointer: pointer.to_owned(), detail: detail.to_string() });
                None
            }
        }
    }

    /// These errors as a refusal.
    pub fn into_error(self) -> Error {
        Error::Invalid(self)
    }

    fn summary(&self) -> String {
        let fields: Vec<_> = self.0.iter().map(|e| format!("{}: {}", e.pointer, e.detail)).collect();
        fields.join("; ")
    }
}
