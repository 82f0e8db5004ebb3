//! The keyed hash that distinguishes a repeated send from another one.
//!
//! The key is of the deployment: the database has it (`secrets`), beside the hashes but in no response, log or dump of single tables.
//! Whoever has a hash alone cannot find out a short content by trying. It is erased with the content.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Content, Metadata};

/// The bytes of a hash.
const LENGTH: usize = 16;

/// The key of all content hashes of a deployment. Clones share it.
#[derive(Clone)]
pub struct ContentKey(Arc<Hmac<Sha256>>);

impl ContentKey {
    /// A key of any length; `None` for one that is empty.
    pub fn new(secret: &[u8]) -> Option<Self> {
        let mac = Hmac::new_from_slice(secret).ok().filter(|_| !secret.is_empty())?;
        Some(Self(Arc::new(mac)))
    }

    /// The hash of what a message is first sent with.
    pub fn hash(&self, content: &Content, metadata: Option<&Metadata>) -> ContentHash {
        // HMAC of the hash without a key, so that hashes without one could be replaced (`V21__erasure.sql`).
        let mac = (*self.0).clone().chain_update(ContentHash::without_key(content, metadata).0);
        ContentHash::first_of(&mac.finalize().into_bytes())
    }
}

/// Says nothing of the key.
impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentKey").finish_non_exhaustive()
    }
}

/// Tells one original content from another, also after it was edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash([u8; LENGTH]);

impl ContentHash {
    /// The hash as versions before the key have stored it.
    pub fn without_key(content: &Content, metadata: Option<&Metadata>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(content.as_str());
        // U+0000 is in no content, so this cannot be mistaken for a part of it.
        hasher.update([0]);
        hasher.update(metadata.map_or("", Metadata::as_json));
        Self::first_of(&hasher.finalize())
    }

    fn first_of(digest: &[u8]) -> Self {
        let mut first = [0; LENGTH];
        first.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        Self(first)
    }

    /// The hash as the database keeps it.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(text: &str) -> Metadata {
        Metadata::parse(serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn the_order_of_metadata_keys_does_not_make_another_message() {
        let key = ContentKey::new(&[7; 32]).unwrap();
        let content = Content::parse("hi".into()).unwrap();
        let one = key.hash(&content, Some(&metadata(r#"{"a":1,"b":{"x":2,"y":3}}"#)));
        let same = key.hash(&content, Some(&metadata(r#"{ "b":{"y":3,"x":2}, "a":1 }"#)));
        let other = key.hash(&content, Some(&metadata(r#"{"a":1}"#)));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_ne!(other, key.hash(&content, None));
    }

    #[test]
    fn without_the_key_a_hash_says_nothing_of_a_content() {
        let content = Content::parse("hi".into()).unwrap();
        let [one, other] = [7, 8].map(|byte| ContentKey::new(&[byte; 32]).unwrap().hash(&content, None));
        assert_ne!(one, other);
        assert_ne!(one, ContentHash::without_key(&content, None));
        assert!(ContentKey::new(&[]).is_none());
        let key = ContentKey::new(b"a secret").unwrap();
        assert!(!format!("{key:?}").contains("secret"));
    }
}
