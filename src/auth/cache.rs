//! Tokens that were verified, so that each is parsed once, and its signature checked once, and not with each request.
//!
//! Only what was verified gets in. Whether an entry has expired meanwhile is the reader's to judge.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::domain::Caller;

/// Twice as many entries as this fit in all. An entry takes some 200 bytes, so a full cache about 3 MB, and no
/// token is any longer in it than another.
const HALF: usize = 8_192;

/// The SHA-256 of a whole token, its signature too. The token itself is a credential and is not kept; who could
/// find another token of the same hash could forge the signature as well.
type Digest = [u8; 32];

/// A bounded map from tokens to callers.
///
/// It forgets by halves: when the recent half is full it becomes the older one, and what was in the older one and
/// was not asked for since is gone. So what is in use stays, nothing is ever emptied at once, and neither expired
/// entries nor an order of use need any bookkeeping.
pub(super) struct Cache {
    halves: Mutex<Halves>,
    half: usize,
}

#[derive(Default)]
struct Halves {
    /// How often everything was forgotten.
    generation: u64,
    recent: HashMap<Digest, Caller>,
    older: HashMap<Digest, Caller>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self::with_half(HALF)
    }

    fn with_half(half: usize) -> Self {
        Self { halves: Mutex::default(), half }
    }

    /// The key of `token`.
    pub(super) fn digest(token: &str) -> Digest {
        Sha256::digest(token.as_bytes()).into()
    }

    /// Whom the token stands for, if it is known.
    pub(super) fn get(&self, token: &Digest) -> Option<Caller> {
        let mut halves = self.lock();
        if let Some(caller) = halves.recent.get(token) {
            return Some(caller.clone());
        }
        let caller = halves.older.remove(token)?;
        let forgotten = halves.put(self.half, *token, caller.clone());
        // Freeing thousands of entries is not for others to wait for.
        drop(halves);
        drop(forgotten);
        Some(caller)
    }

    /// What is to be given to [`Cache::put`], once what was asked for before it has been answered.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Keeps what a token was found to stand for; unless everything was forgotten since `generation`: it may have been found
    /// with what counts no longer.
    pub(super) fn put(&self, generation: u64, token: Digest, caller: Caller) {
        let mut halves = self.lock();
        if halves.generation == generation {
            let forgotten = halves.put(self.half, token, caller);
            drop(halves);
            drop(forgotten);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut halves = self.lock();
        let generation = halves.generation + 1;
        let forgotten = std::mem::replace(&mut *halves, Halves { generation, ..Halves::default() });
        drop(halves);
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        // Whatever panicked, each entry is whole.
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halves {
    /// Adds to the recent half; what fell out of the older one goes to the caller, to be freed without the lock.
    fn put(&mut self, half: usize, token: Digest, caller: Caller) -> Option<HashMap<Digest, Caller>> {
        let mut forgotten = None;
        if self.recent.len() >= half && !self.recent.contains_key(&token) {
            let recent = std::mem::take(&mut self.recent);
            forgotten = Some(std::mem::replace(&mut self.older, recent));
        }
        self.recent.insert(token, caller);
        forgotten
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
    fn what_was_put_is_found_under_its_own_token_alone() {
        let cache = Cache::new();
        cache.put(0, key(1), caller(1));
        assert_eq!(cache.get(&key(1)).unwrap().user.as_str(), "1");
        assert_eq!(cache.get(&key(2)), None);
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_in_use() {
        let cache = Cache::with_half(10);
        cache.put(0, key(0), caller(0));
        for name in 1..1_000 {
            cache.put(0, key(name), caller(name));
            assert!(cache.get(&key(0)).is_some(), "lost after {name}");
            assert!(cache.get(&key(name)).is_some());
            let halves = cache.lock();
            assert!(halves.recent.len() <= 10 && halves.older.len() <= 10);
            assert!(name < 20 || halves.recent.len() + halves.older.len() >= 10, "emptied at once");
        }
        assert_eq!(cache.get(&key(900)), None);
    }

    #[test]
    fn what_was_found_before_everything_was_forgotten_is_not_kept() {
        let cache = Cache::new();
        let before = cache.generation();
        cache.put(before, key(1), caller(1));
        cache.clear();
        cache.put(before, key(2), caller(2));
        assert_eq!((cache.get(&key(1)), cache.get(&key(2))), (None, None));
        cache.put(cache.generation(), key(2), caller(2));
        assert!(cache.get(&key(2)).is_some());
    }

    #[test]
    fn the_same_token_again_takes_no_more_room() {
        let cache = Cache::with_half(2);
        for name in [1, 2, 1, 2, 1, 2] {
            cache.put(0, key(name), caller(name));
        }
        assert!(cache.lock().older.is_empty());
    }
}
