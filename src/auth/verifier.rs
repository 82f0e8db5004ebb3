//! A token, verified.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use tokio::sync::watch;

use super::cache::Cache;
use super::claims::Claims;
use super::jws::Jws;
use super::{Expect, Keys, TokenError};
use crate::domain::{Caller, KeyPrint, Time};

/// Longer than any token with our claims; a header of this size is what HTTP servers take at most.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Verifies tokens. Put it into an `Arc` to share it: what it remembers is then shared, too.
pub struct Verifier {
    /// Those that the settings name.
    keys: Keys,
    /// Those of the issuer's set, where there is to be one: none until it was read.
    published: Option<watch::Sender<Arc<Keys>>>,
    expect: Expect,
    cache: Cache,
    /// The furthest that an accepted token's `iat` has been ahead of the clock here, in milliseconds.
    ahead: AtomicU64,
}

impl Verifier {
    /// Accepts tokens signed with one of `keys` that say what `expect` asks for.
    pub fn new(keys: Keys, expect: Expect) -> Self {
        Self { keys, published: None, expect, cache: Cache::new(), ahead: AtomicU64::new(0) }
    }

    /// Accepts those as well that are signed with what will be [published](Verifier::publish).
    pub fn with_published(self) -> Self {
        Self { published: Some(watch::Sender::default()), ..self }
    }

    /// Takes the keys of the issuer's set in place of those that it had before. Tokens of a key that is gone count no
    /// longer, not even those that are remembered.
    pub fn publish(&self, keys: Keys) {
        if let Some(published) = &self.published {
            // First the keys, then the cache: what is verified with the old ones meanwhile is not kept.
            let keys = Arc::new(keys);
            published.send_modify(|published| *published = Arc::clone(&keys));
            self.cache.clear();
            // Once more, for those who were woken before the cache was empty.
            published.send_modify(|_| {});
        }
    }

    /// Whether the key that a caller's token was signed with is still among the issuer's, if it was one of those.
    pub fn has_key_of(&self, caller: &Caller) -> bool {
        let published = self.published.as_ref();
        caller.key.is_none_or(|key| published.is_some_and(|published| published.borrow().has_key(key)))
    }

    /// Waits until the key that a caller's token was signed with is withdrawn.
    pub async fn withdrawn(&self, caller: &Caller) {
        let (Some(published), Some(_)) = (&self.published, caller.key) else { return std::future::pending().await };
        let mut changes = published.subscribe();
        while self.has_key_of(caller) {
            // The sender lives in `self`, so this cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// How far the issuer's clock has been found to be ahead of ours: of two tokens with the same `iat`, one may have been
    /// issued this much earlier than it says.
    pub fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    /// Whether any token can be verified: not before the first set was read, where the settings name no key.
    pub fn has_keys(&self) -> bool {
        let is_any = |keys: &Keys| keys.iter().next().is_some();
        let published = self.published.as_ref();
        is_any(&self.keys) || published.is_some_and(|keys| is_any(&keys.borrow()))
    }

    /// Verifies a compact JWS and says who it stands for.
    ///
    /// `expires_at` is the token's `exp` as it is: within the leeway, a token is accepted for a little longer.
    pub fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        self.verify_at(token, Time::now())
    }

    /// [`Verifier::verify`], at a moment of the test's choice.
    pub(super) fn verify_at(&self, token: &str, now: Time) -> Result<Caller, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let digest = Cache::digest(token);
        // An expired entry is refused by the full check, which knows how to say so.
        let known = self.cache.get(&digest).filter(|caller| self.expect.is_current(caller.expires_at, now));
        if let Some(caller) = known {
            return Ok(caller);
        }
        let generation = self.cache.generation();
        let caller = self.check(token, now)?;
        self.cache.put(generation, digest, caller.clone());
        Ok(caller)
    }

    fn check(&self, token: &str, now: Time) -> Result<Caller, TokenError> {
        let jws = Jws::split(token)?;
        let (algorithm, key) = jws.signed_with()?;
        let algorithm = Algorithm::from_str(&algorithm).map_err(|_| TokenError::UnsupportedAlgorithm)?;
        let key = self.check_signature(&jws, algorithm, key.as_deref())?;
        let claims: Claims = jws.claims(Claims::WRONG)?;
        let caller = Caller { key, ..claims.into_caller(&self.expect, now)? };
        if let Some(issued_at) = caller.issued_at {
            let ahead = u64::try_from(issued_at.since(now).as_millis()).unwrap_or(0);
            self.ahead.fetch_max(ahead, Ordering::Relaxed);
        }
        Ok(caller)
    }

    /// Which of the keys for `algorithm` has signed it, if it is of the published ones; of these, it can be the one that the
    /// token names.
    fn check_signature(
        &self,
        jws: &Jws<'_>,
        algorithm: Algorithm,
        key: Option<&str>,
    ) -> Result<Option<KeyPrint>, TokenError> {
        let published = self.published.as_ref().map(|keys| keys.borrow().clone());
        let of_set = published.iter().flat_map(|keys| keys.of(algorithm, key));
        let mut is_any = false;
        for candidate in self.keys.of(algorithm, None).chain(of_set) {
            is_any = true;
            if candidate.has_signed(jws.signed, jws.signature)? {
                return Ok(candidate.print);
            }
        }
        // It may be a key of the set as it is by now; unless no key of a set could be.
        let is_publishable = matches!(algorithm, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA);
        let may_be_new = published.is_some_and(|keys| match key {
            Some(id) => !keys.has(id),
            None => keys.iter().next().is_none(),
        });
        match is_any {
            _ if may_be_new && is_publishable => Err(TokenError::UnknownKey),
            true => Err(TokenError::BadSignature),
            false => Err(TokenError::UnsupportedAlgorithm),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys).field("expect", &self.expect).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::jwks::tests::jwk;
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    const MINE: &[u8] = include_bytes!("../../tests/keys/p256.pub.pem");
    const ANOTHER: &[u8] = include_bytes!("../../tests/keys/p256.other.pub.pem");

    fn at(seconds: i64) -> Time {
        Time::from_unix_seconds(seconds).unwrap()
    }

    fn token() -> String {
        token_with(None)
    }

    fn token_with(id: Option<&str>) -> String {
        let key = EncodingKey::from_ec_pem(include_bytes!("../../tests/keys/p256.pem")).unwrap();
        let claims = json!({"sub": "u", "role": "driver", "exp": 2_000});
        let header = Header { kid: id.map(Into::into), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims, &key).unwrap()
    }

    #[test]
    fn a_known_token_is_answered_without_its_key_until_it_expires() {
        let mut verifier = Verifier::new(Keys::from_pem(MINE).unwrap(), Expect::default());
        let token = token();
        let first = verifier.verify_at(&token, at(1_000));
        assert_eq!(first.as_ref().unwrap().expires_at, at(2_000));

        // From here on, only the cache can know the token.
        verifier.keys = Keys::from_pem(ANOTHER).unwrap();
        assert_eq!(verifier.verify_at(&token, at(1_000)), first);
        assert_eq!(verifier.verify_at(&token, at(2_029)), first);
        assert_eq!(verifier.verify_at(&token, at(2_030)), Err(TokenError::BadSignature));

        verifier.keys = Keys::from_pem(MINE).unwrap();
        assert_eq!(verifier.verify_at(&token, at(2_030)), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_a_shared_secret_is_remembered_as_well_and_no_forgery_of_it_is() {
        let (secret, another) = ([7; 32], [8; 32]);
        let sign = |secret: &[u8]| {
            let claims = json!({"sub": "u", "role": "driver", "exp": 2_000});
            encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).unwrap()
        };
        let mut verifier = Verifier::new(Keys::from_secret(&secret).unwrap(), Expect::default());
        assert!(verifier.verify_at(&sign(&secret), at(1_000)).is_ok());
        assert_eq!(verifier.verify_at(&sign(&another), at(1_000)), Err(TokenError::BadSignature));

        // From here on, only the cache can know the first.
        verifier.keys = Keys::from_secret(&another).unwrap();
        assert!(verifier.verify_at(&sign(&secret), at(1_000)).is_ok());
        assert_eq!(verifier.verify_at(&sign(&secret), at(2_030)), Err(TokenError::BadSignature));
    }

    #[test]
    fn a_token_of_a_key_that_is_published_no_longer_counts_no_longer() {
        let published = |keys: &[serde_json::Value]| Keys::from_jwks(json!({"keys": keys}).to_string().as_bytes());
        let (mine, another) = (jwk(MINE, json!({"kid": "mine"})), jwk(ANOTHER, json!({"kid": "another"})));
        let verifier = Verifier::new(Keys::default(), Expect::default()).with_published();
        let token = token_with(Some("mine"));
        // Before the set was read, any key may be in it.
        assert_eq!(verifier.verify_at(&token, at(1_000)), Err(TokenError::UnknownKey));
        verifier.publish(published(&[mine.clone(), another.clone()]).unwrap());
        assert!(verifier.verify_at(&token, at(1_000)).is_ok());
        // The key that is named, not one that might do.
        assert_eq!(verifier.verify_at(&token_with(Some("another")), at(1_000)), Err(TokenError::BadSignature));
        assert_eq!(verifier.verify_at(&token_with(Some("new")), at(1_000)), Err(TokenError::UnknownKey));
        assert!(verifier.verify_at(&token_with(None), at(1_000)).is_ok());
        verifier.publish(published(&[another]).unwrap());
        assert_eq!(verifier.verify_at(&token, at(1_000)), Err(TokenError::UnknownKey));
        assert_eq!(verifier.verify_at(&token_with(None), at(1_000)), Err(TokenError::BadSignature));
    }

    #[test]
    fn no_key_of_a_set_serves_another_algorithm() {
        let set = json!({"keys": [jwk(MINE, json!({"kid": "mine"}))]}).to_string();
        let verifier = Verifier::new(Keys::default(), Expect::default()).with_published();
        verifier.publish(Keys::from_jwks(set.as_bytes()).unwrap());
        let claims = json!({"sub": "u", "role": "driver", "exp": 2_000});
        for secret in [MINE, set.as_bytes()] {
            let header = Header { kid: Some("mine".into()), ..Header::new(Algorithm::HS256) };
            let forged = encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
            assert_eq!(verifier.verify_at(&forged, at(1_000)), Err(TokenError::UnsupportedAlgorithm));
        }
        let rsa = EncodingKey::from_rsa_pem(include_bytes!("../../tests/keys/rsa.pem")).unwrap();
        let header = Header { kid: Some("mine".into()), ..Header::new(Algorithm::RS256) };
        let other = encode(&header, &claims, &rsa).unwrap();
        assert_eq!(verifier.verify_at(&other, at(1_000)), Err(TokenError::UnsupportedAlgorithm));
    }

    #[test]
    fn a_refused_token_is_not_remembered() {
        let mut verifier = Verifier::new(Keys::from_pem(ANOTHER).unwrap(), Expect::default());
        let token = token();
        assert_eq!(verifier.verify_at(&token, at(1_000)), Err(TokenError::BadSignature));
        verifier.keys = Keys::from_pem(MINE).unwrap();
        assert_eq!(verifier.verify_at(&token, at(3_000)), Err(TokenError::Expired));
        assert!(verifier.verify_at(&token, at(1_000)).is_ok());
    }

    #[test]
    fn another_signature_under_known_claims_is_not_known() {
        let verifier = Verifier::new(Keys::from_pem(MINE).unwrap(), Expect::default());
        let token = token();
        verifier.verify_at(&token, at(1_000)).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
        assert!(verifier.verify_at(&forged, at(1_000)).is_err());
    }
}
