//! The labels of a flagged message.

use serde::{Deserialize, Serialize};

/// The labels that moderation gives a flagged message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Vec<String>);

impl Labels {
    /// The maximum number of labels.
    pub const MAX: usize = 32;
    /// The maximum number of characters of a label.
    pub const MAX_CHARS: usize = 100;

    /// Accepts at most [`Self::MAX`] labels of 1 to [`Self::MAX_CHARS`] printable characters.
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

    /// Reads stored labels.
    pub fn from_stored(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Returns the form to store.
    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Returns the labels.
    pub fn as_slice(&self) -> &[String] {
        &self.0
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
