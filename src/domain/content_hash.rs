//! The keyed hash of a message's content. It distinguishes a repeated send from a send of other content.
//!
//! The key belongs to the deployment. It is stored in the database (table `secrets`), and is not in any response, log or dump of
//! another table. With a hash alone, a short content cannot be found by brute force. The hash is erased with the content.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Content, Metadata};

/// The length of a hash in bytes.
const LENGTH: usize = 16;

/// The key of all content hashes of a deployment. Clones share the key.
#[derive(Clone)]
pub struct ContentKey(Arc<Hmac<Sha256>>);

impl ContentKey {
    /// Creates a key from a secret of any length. Returns `None` for an empty secret.
    pub fn new(secret: &[u8]) -> Option<Self> {
        let mac = Hmac::new_from_slice(secret).ok().filter(|_| !secret.is_empty())?;
        Some(Self(Arc::new(mac)))
    }

    /// Returns the hash of the content and metadata of a send.
    pub fn hash(&self, content: &Content, metadata: Option<&Metadata>) -> ContentHash {
        // HMAC of the unkeyed hash, so that `V21__erasure.sql` could replace stored unkeyed hashes.
        let mac = (*self.0).clone().chain_update(ContentHash::without_key(content, metadata).0);
        ContentHash::truncate(&mac.finalize().into_bytes())
    }
}

/// Does not print the key.
impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentKey").finish_non_exhaustive()
    }
}

/// The hash of a message's original content. Edits do not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash([u8; LENGTH]);

impl ContentHash {
    /// Returns the unkeyed hash, which older versions have stored.
    pub fn without_key(content: &Content, metadata: Option<&Metadata>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(content.as_str());
        // Content contains no U+0000, so the separator is unambiguous.
        hasher.update([0]);
        hasher.update(metadata.map_or("", Metadata::as_json));
        Self::truncate(&hasher.finalize())
    }

    fn truncate(digest: &[u8]) -> Self {
        let mut first = [0; LENGTH];
        first.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        Self(first)
    }

    /// Reads a stored hash.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes to store.
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
    fn the_order_of_metadata_keys_does_not_change_the_hash() {
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
    fn a_hash_depends_on_the_key() {
        let content = Content::parse("hi".into()).unwrap();
        let [one, other] = [7, 8].map(|byte| ContentKey::new(&[byte; 32]).unwrap().hash(&content, None));
        assert_ne!(one, other);
        assert_ne!(one, ContentHash::without_key(&content, None));
        assert!(ContentKey::new(&[]).is_none());
        let key = ContentKey::new(b"a secret").unwrap();
        assert!(!format!("{key:?}").contains("secret"));
    }
}
