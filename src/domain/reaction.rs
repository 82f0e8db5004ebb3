//! Reactions: the users who reacted to a message, by emoji.

use serde::{Deserialize, Serialize};

use super::{Error, Result, UserId};

/// An emoji: one grapheme that Unicode lists as an emoji, in its fully qualified form. An emoji with and without its variation
/// selector is therefore the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emoji(&'static str);

impl Emoji {
    /// Parses one emoji, skin tones and flags included.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        emojis::get(text).map(|emoji| Self(emoji.as_str())).ok_or("must be one emoji")
    }

    /// Returns the emoji as text.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// The reactions to one message. The emoji are in the order in which they were first used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reactions(Vec<(String, Vec<String>)>);

/// The JSON form of the reactions with one emoji.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReactionView<'a> {
    emoji: &'a str,
    user_ids: &'a [String],
}

impl Reactions {
    /// The maximum number of different emoji on one message.
    pub const MAX_EMOJI: usize = 20;

    /// Reads stored reactions.
    pub fn from_stored(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Returns the form to store.
    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Adds a user's reaction. Returns `Ok(false)` where it exists already.
    pub fn add(&mut self, emoji: Emoji, user: &UserId) -> Result<bool> {
        let is_full = self.0.len() >= Self::MAX_EMOJI;
        match self.0.iter_mut().find(|(kind, _)| kind == emoji.0) {
            Some((_, users)) if users.iter().any(|known| known == user.as_str()) => return Ok(false),
            Some((_, users)) => users.push(user.to_string()),
            None if is_full => return Err(Error::TooManyReactions),
            None => self.0.push((emoji.0.to_owned(), vec![user.to_string()])),
        }
        Ok(true)
    }

    /// Removes a user's reaction. Returns `false` where it does not exist.
    pub fn remove(&mut self, emoji: Emoji, user: &UserId) -> bool {
        let Some((_, users)) = self.0.iter_mut().find(|(kind, _)| kind == emoji.0) else { return false };
        let before = users.len();
        users.retain(|known| known != user.as_str());
        let removed = users.len() < before;
        self.0.retain(|(_, users)| !users.is_empty());
        removed
    }

    /// Removes all reactions of a user. Returns `false` where there are none.
    pub fn remove_all(&mut self, user: &UserId) -> bool {
        let mut removed = false;
        for (_, users) in &mut self.0 {
            let before = users.len();
            users.retain(|known| known != user.as_str());
            removed |= users.len() < before;
        }
        self.0.retain(|(_, users)| !users.is_empty());
        removed
    }

    /// Returns the JSON form.
    pub fn view(&self) -> Vec<ReactionView<'_>> {
        self.0.iter().map(|(emoji, user_ids)| ReactionView { emoji, user_ids }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emoji_is_a_single_unicode_emoji() {
        for good in ["👍", "👍🏽", "❤️", "🇩🇪", "👩‍🚀", "1️⃣"] {
            assert_eq!(Emoji::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Emoji::parse("❤").unwrap().as_str(), "❤️", "one spelling each");
        for bad in ["", "a", "1", "👍👍", "👍 ", ":+1:", "e\u{301}", "\u{fe0f}"] {
            assert!(Emoji::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reactions_are_idempotent_and_have_at_most_20_emoji() {
        let (user, other) = (UserId::parse("u").unwrap(), UserId::parse("v").unwrap());
        let kinds: Vec<_> = emojis::iter().take(21).map(|emoji| Emoji::parse(emoji.as_str()).unwrap()).collect();
        let mut reactions = Reactions::default();
        for kind in &kinds[..20] {
            assert_eq!(reactions.add(*kind, &user), Ok(true));
            assert_eq!(reactions.add(*kind, &user), Ok(false));
        }
        assert_eq!(reactions.add(kinds[20], &user), Err(Error::TooManyReactions));
        assert_eq!(reactions.add(kinds[0], &other), Ok(true));
        assert_eq!(Reactions::from_stored(&reactions.to_stored()), Some(reactions.clone()));
        assert!(reactions.remove(kinds[0], &user) && !reactions.remove(kinds[0], &user));
        assert!(reactions.remove(kinds[0], &other));
        assert_eq!(reactions.add(kinds[20], &user), Ok(true), "there is room again");
        assert_eq!(reactions.add(kinds[20], &other), Ok(true));
        assert!(reactions.remove_all(&user) && !reactions.remove_all(&user));
        assert_eq!(reactions.0, [(kinds[20].as_str().to_owned(), vec![other.to_string()])]);
    }
}
