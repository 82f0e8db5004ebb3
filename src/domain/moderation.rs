//! What the platform's moderation says of a content before it is stored.

use serde::{Deserialize, Serialize};

use super::{Content, Error};

/// The labels of a flagged message, as moderation names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Vec<String>);

impl Labels {
    /// The most labels.
    pub const MAX: usize = 32;
    /// The most characters of a label.
    pub const MAX_CHARS: usize = 100;

    /// Takes at most [`Self::MAX`] labels of 1 to [`Self::MAX_CHARS`] printable characters.
    pub fn parse(labels: Vec<String>) -> Result<Self, &'static str> {
        let is_label = |label: &String| {
            (1..=Self::MAX_CHARS).contains(&label.chars().take(Self::MAX_CHARS + 1).count())
                && !label.chars().any(char::is_control)
        };
        if labels.len() > Self::MAX {
            return Err("must be at most 32 labels");
        }
        if labels.iter().all(is_label) { Ok(Self(labels)) } else { Err("must be 1 to 100 printable characters each") }
    }

    /// Reads what [`Labels::to_stored`] wrote.
    pub fn from_stored(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The form that the database keeps.
    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "[]".to_owned())
    }

    /// The labels.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// The response of moderation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The content is stored as it is.
    Allow,
    /// This content is stored in its place.
    Replace(Content),
    /// The content is not stored. The reason is for its sender.
    Reject(String),
    /// The content is stored, and staff see the labels.
    Flag(Labels),
}

impl Verdict {
    /// The verdict as the interface names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Replace(_) => "replace",
            Self::Reject(_) => "reject",
            Self::Flag(_) => "flag",
        }
    }
}

/// What a command that stores content knows of its moderation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Review {
    /// Nothing is needed: moderation is off, or it has failed and the content is allowed then.
    NotNeeded,
    /// It was not asked, since the command did not seem to store anything. If it would, moderation has to be asked first.
    Missing,
    /// Moderation has let it pass.
    Passed {
        /// What is stored in place of the content.
        replacement: Option<Content>,
        /// The labels, if it was flagged.
        labels: Option<Labels>,
    },
    /// The content must not be stored. This is the response to a command that would store it; one that was carried out before
    /// gets the response of a retry.
    Refused(Error),
}

impl From<Verdict> for Review {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Passed { replacement: None, labels: None },
            Verdict::Replace(content) => Self::Passed { replacement: Some(content), labels: None },
            Verdict::Flag(labels) => Self::Passed { replacement: None, labels: Some(labels) },
            Verdict::Reject(reason) => Self::Refused(Error::MessageRejected(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_printable() {
        let parse = |labels: &[&str]| Labels::parse(labels.iter().map(|label| (*label).to_owned()).collect());
        let kept = parse(&["phone_number", "Telefonnummer ☎"]).unwrap();
        assert_eq!(Labels::from_stored(&kept.to_stored()), Some(kept));
        assert!(parse(&[]).is_ok() && parse(&["x"; 32]).is_ok());
        for wrong in [&["x"; 33][..], &[""], &["a\0b"], &["a\nb"], &[&"x".repeat(101)]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
