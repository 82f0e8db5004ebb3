//! The results of the platform's moderation, which checks content before it is stored.

use super::{Content, Error, Labels};

/// The response of moderation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The content is stored unchanged.
    Allow,
    /// This content is stored instead.
    Replace(Content),
    /// The content is not stored. The sender receives the reason.
    Reject(String),
    /// The content is stored, and staff receive the labels.
    Flag(Labels),
}

impl Verdict {
    /// Returns the value of `action`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Replace(_) => "replace",
            Self::Reject(_) => "reject",
            Self::Flag(_) => "flag",
        }
    }
}

/// The result of moderation for a command that stores content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Review {
    /// No check is needed: moderation is off, or it failed and the configuration allows the content in that case.
    NotNeeded,
    /// The content was not checked, because the command did not seem to store anything. If the writer finds that the command
    /// would store content, the content must be checked first.
    NotChecked,
    /// Moderation accepted the content.
    Passed {
        /// The content to store instead.
        replacement: Option<Content>,
        /// The labels, where moderation flagged the content.
        labels: Option<Labels>,
    },
    /// The content must not be stored. This is the response to a command that would store it. A command that was already carried
    /// out gets the response of a retry instead.
    Rejected(Error),
}

impl From<Verdict> for Review {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Passed { replacement: None, labels: None },
            Verdict::Replace(content) => Self::Passed { replacement: Some(content), labels: None },
            Verdict::Flag(labels) => Self::Passed { replacement: None, labels: Some(labels) },
            Verdict::Reject(reason) => Self::Rejected(Error::MessageRejected(reason)),
        }
    }
}
