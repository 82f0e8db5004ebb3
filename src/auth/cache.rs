//! A cache of verified tokens, so that each token is parsed and its signature verified once, not for each request.
//!
//! Only verified tokens are cached. The reader checks whether an entry has expired since.

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync;
use sha2::{Digest as _, Sha256};

use crate::domain::Caller;

/// The most entries. An entry takes about 200 bytes whatever the length of the token, so a full cache takes about 3 MB.
const CAPACITY: usize = 16_384;

/// The SHA-256 of the whole token including its signature. The token itself is a credential and is not stored. Finding
/// another token with the same hash is as hard as forging the signature.
type Digest = [u8; 32];

/// A bounded map from tokens to callers. Entries in use stay, and others are evicted.
///
/// The epoch is part of the key. So an entry of an earlier epoch is never returned, also if it is inserted after [`Cache::clear`].
pub(super) struct Cache {
    entries: sync::Cache<(u64, Digest), Caller>,
    /// The number of calls of [`Cache::clear`].
    epoch: AtomicU64,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { entries: sync::Cache::new(capacity), epoch: AtomicU64::new(0) }
    }

    /// Returns the cache key of `token`.
    pub(super) fn digest(token: &str) -> Digest {
        Sha256::digest(token.as_bytes()).into()
    }

    /// Returns the caller of the token, if it is cached.
    pub(super) fn get(&self, token: &Digest) -> Option<Caller> {
        self.entries.get(&(self.epoch(), *token))
    }

    /// Returns the current epoch. Read it before a token is verified, and pass it to [`Cache::put`].
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Caches the caller of a token for the epoch in which the token was verified. In a later epoch its key may no longer be valid.
    pub(super) fn put(&self, epoch: u64, token: Digest, caller: Caller) {
        self.entries.insert((epoch, token), caller);
    }

    /// Starts a new epoch, and removes all entries.
    pub(super) fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Role, Time, UserId};

    fn caller(name: usize) -> Caller {
        Caller {
            user: UserId::parse(&name.to_string()).unwrap(),
            role: Role::Rider,
            issued_at: None,
            key: None,
            expires_at: Time::now(),
        }
    }

    fn key(name: usize) -> Digest {
        Cache::digest(&name.to_string())
    }

    #[test]
    fn an_entry_is_found_only_under_its_own_token() {
        let cache = Cache::new();
        cache.put(0, key(1), caller(1));
        assert_eq!(cache.get(&key(1)).unwrap().user.as_str(), "1");
        assert_eq!(cache.get(&key(2)), None);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_entries_in_use() {
        let cache = Cache::with_capacity(100);
        cache.put(0, key(0), caller(0));
        for name in 1..10_000 {
            cache.put(0, key(name), caller(name));
            assert!(cache.get(&key(0)).is_some(), "evicted after {name}");
        }
        assert!((50..=100).contains(&cache.entries.len()));
    }

    #[test]
    fn a_caller_verified_before_the_cache_was_cleared_is_not_cached() {
        let cache = Cache::new();
        let before = cache.epoch();
        cache.put(before, key(1), caller(1));
        cache.clear();
        cache.put(before, key(2), caller(2));
        assert_eq!((cache.get(&key(1)), cache.get(&key(2))), (None, None));
        cache.put(cache.epoch(), key(2), caller(2));
        assert!(cache.get(&key(2)).is_some());
    }
}
