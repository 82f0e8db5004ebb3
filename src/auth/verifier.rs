//! Verification of tokens.

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
use super::{ClaimValidation, Keys, TokenError};
use crate::domain::{Caller, KeyFingerprint, Time};

/// Longer than any token with our claims. HTTP servers typically limit headers to this size.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Verifies tokens. Share it in an `Arc`; the cache is then shared too.
pub struct Verifier {
    /// The keys of the settings.
    keys: Keys,
    /// The keys of the issuer's JWKS, if one is configured; empty until it was loaded.
    jwks: Option<watch::Sender<Arc<Keys>>>,
    validation: ClaimValidation,
    cache: Cache,
    /// The maximum by which the `iat` of an accepted token was ahead of the local clock, in milliseconds.
    max_clock_skew: AtomicU64,
}

impl Verifier {
    /// Creates a verifier for tokens that one of `keys` has signed and whose claims pass `validation`.
    pub fn new(keys: Keys, validation: ClaimValidation) -> Self {
        Self { keys, jwks: None, validation, cache: Cache::new(), max_clock_skew: AtomicU64::new(0) }
    }

    /// Also accepts tokens signed with the keys of a JWKS, which [`Verifier::update_jwks`] sets.
    pub fn with_jwks(self) -> Self {
        Self { jwks: Some(watch::Sender::default()), ..self }
    }

    /// Replaces the keys of the issuer's JWKS. Tokens of a removed key are rejected from now on, including cached ones.
    pub fn update_jwks(&self, keys: Keys) {
        if let Some(jwks) = &self.jwks {
            // The keys are replaced before the cache is cleared, so a token that is verified with an old key meanwhile
            // is not cached.
            let keys = Arc::new(keys);
            jwks.send_modify(|jwks| *jwks = Arc::clone(&keys));
            self.cache.clear();
            // Notify again, for waiters that woke up before the cache was empty.
            jwks.send_modify(|_| {});
        }
    }

    /// Returns whether the key that signed a caller's token is still in the JWKS. True for keys of the settings.
    pub fn has_key_of(&self, caller: &Caller) -> bool {
        let jwks = self.jwks.as_ref();
        caller.key.is_none_or(|key| jwks.is_some_and(|jwks| jwks.borrow().has_key(key)))
    }

    /// Returns a watch of the JWKS, where there is one.
    pub fn key_changes(&self) -> Option<watch::Receiver<Arc<Keys>>> {
        self.jwks.as_ref().map(watch::Sender::subscribe)
    }

    /// Returns the observed maximum by which the issuer's clock is ahead of the local one. Of two tokens with the same
    /// `iat`, one may have been issued this much earlier.
    pub fn clock_skew(&self) -> Duration {
        Duration::from_millis(self.max_clock_skew.load(Ordering::Relaxed))
    }

    /// Returns whether any token can be verified. Without a key in the settings, this is false until the JWKS was
    /// loaded.
    pub fn has_keys(&self) -> bool {
        let is_any = |keys: &Keys| keys.iter().next().is_some();
        let jwks = self.jwks.as_ref();
        is_any(&self.keys) || jwks.is_some_and(|keys| is_any(&keys.borrow()))
    }

    /// Verifies a compact JWS and returns its caller.
    ///
    /// `expires_at` is the token's `exp` as it is. Within the leeway, a token is accepted a little longer.
    pub fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        self.verify_at(token, Time::now())
    }

    /// [`Verifier::verify`] with a given time, for tests.
    pub(super) fn verify_at(&self, token: &str, now: Time) -> Result<Caller, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let digest = Cache::digest(token);
        // An expired entry is passed to the full check, which returns the precise error.
        let cached = self.cache.get(&digest).filter(|caller| self.validation.is_current(caller.expires_at, now));
        if let Some(caller) = cached {
            return Ok(caller);
        }
        let epoch = self.cache.epoch();
        let caller = self.check(token, now)?;
        self.cache.put(epoch, digest, caller.clone());
        Ok(caller)
    }

    fn check(&self, token: &str, now: Time) -> Result<Caller, TokenError> {
        let jws = Jws::split(token)?;
        let (algorithm, key) = jws.signed_with()?;
        let algorithm = Algorithm::from_str(&algorithm).map_err(|_| TokenError::UnsupportedAlgorithm)?;
        let key = self.check_signature(&jws, algorithm, key.as_deref())?;
        let claims: Claims = jws.claims(Claims::UNPARSABLE)?;
        let caller = Caller { key, ..claims.into_caller(&self.validation, now)? };
        if let Some(issued_at) = caller.issued_at {
            let ahead = u64::try_from(issued_at.since(now).as_millis()).unwrap_or(0);
            self.max_clock_skew.fetch_max(ahead, Ordering::Relaxed);
        }
        Ok(caller)
    }

    /// Returns the fingerprint of the key that signed the token, if it is from the JWKS. Of the JWKS, only a key with
    /// the token's `kid` is considered.
    fn check_signature(
        &self,
        jws: &Jws<'_>,
        algorithm: Algorithm,
        key: Option<&str>,
    ) -> Result<Option<KeyFingerprint>, TokenError> {
        let jwks = self.jwks.as_ref().map(|keys| keys.borrow().clone());
        let from_jwks = jwks.iter().flat_map(|keys| keys.of(algorithm, key));
        let mut is_any = false;
        for candidate in self.keys.of(algorithm, None).chain(from_jwks) {
            is_any = true;
            if candidate.has_signed(jws.signed, jws.signature)? {
                return Ok(candidate.fingerprint);
            }
        }
        // The key may be new in the JWKS. That is impossible for an algorithm that a JWKS key cannot have.
        let is_jwks_algorithm = matches!(algorithm, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA);
        let may_be_new = jwks.is_some_and(|keys| match key {
            Some(id) => !keys.has(id),
            None => keys.iter().next().is_none(),
        });
        match is_any {
            _ if may_be_new && is_jwks_algorithm => Err(TokenError::UnknownKey),
            true => Err(TokenError::BadSignature),
            false => Err(TokenError::UnsupportedAlgorithm),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys)
            .field("validation", &self.validation)
            .finish_non_exhaustive()
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
    fn a_cached_token_is_accepted_without_its_key_until_it_expires() {
        let mut verifier = Verifier::new(Keys::from_pem(MINE).unwrap(), ClaimValidation::default());
        let token = token();
        let first = verifier.verify_at(&token, at(1_000));
        assert_eq!(first.as_ref().unwrap().expires_at, at(2_000));

        // From here on, the token can only come from the cache.
        verifier.keys = Keys::from_pem(ANOTHER).unwrap();
        assert_eq!(verifier.verify_at(&token, at(1_000)), first);
        assert_eq!(verifier.verify_at(&token, at(2_029)), first);
        assert_eq!(verifier.verify_at(&token, at(2_030)), Err(TokenError::BadSignature));

        verifier.keys = Keys::from_pem(MINE).unwrap();
        assert_eq!(verifier.verify_at(&token, at(2_030)), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_a_shared_secret_is_cached_and_a_forged_one_is_not() {
        let (secret, another) = ([7; 32], [8; 32]);
        let sign = |secret: &[u8]| {
            let claims = json!({"sub": "u", "role": "driver", "exp": 2_000});
            encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).unwrap()
        };
        let mut verifier = Verifier::new(Keys::from_secret(&secret).unwrap(), ClaimValidation::default());
        assert!(verifier.verify_at(&sign(&secret), at(1_000)).is_ok());
        assert_eq!(verifier.verify_at(&sign(&another), at(1_000)), Err(TokenError::BadSignature));

        // From here on, the first token can only come from the cache.
        verifier.keys = Keys::from_secret(&another).unwrap();
        assert!(verifier.verify_at(&sign(&secret), at(1_000)).is_ok());
        assert_eq!(verifier.verify_at(&sign(&secret), at(2_030)), Err(TokenError::BadSignature));
    }

    #[test]
    fn a_token_of_a_withdrawn_key_is_rejected() {
        let jwks = |keys: &[serde_json::Value]| Keys::from_jwks(json!({"keys": keys}).to_string().as_bytes());
        let (mine, another) = (jwk(MINE, json!({"kid": "mine"})), jwk(ANOTHER, json!({"kid": "another"})));
        let verifier = Verifier::new(Keys::default(), ClaimValidation::default()).with_jwks();
        let token = token_with(Some("mine"));
        // Before the JWKS was loaded, any key may be in it.
        assert_eq!(verifier.verify_at(&token, at(1_000)), Err(TokenError::UnknownKey));
        verifier.update_jwks(jwks(&[mine.clone(), another.clone()]).unwrap());
        assert!(verifier.verify_at(&token, at(1_000)).is_ok());
        // Only the key with the token's `kid` is used.
        assert_eq!(verifier.verify_at(&token_with(Some("another")), at(1_000)), Err(TokenError::BadSignature));
        assert_eq!(verifier.verify_at(&token_with(Some("new")), at(1_000)), Err(TokenError::UnknownKey));
        assert!(verifier.verify_at(&token_with(None), at(1_000)).is_ok());
        verifier.update_jwks(jwks(&[another]).unwrap());
        assert_eq!(verifier.verify_at(&token, at(1_000)), Err(TokenError::UnknownKey));
        assert_eq!(verifier.verify_at(&token_with(None), at(1_000)), Err(TokenError::BadSignature));
    }

    #[test]
    fn a_jwks_key_verifies_no_other_algorithm() {
        let set = json!({"keys": [jwk(MINE, json!({"kid": "mine"}))]}).to_string();
        let verifier = Verifier::new(Keys::default(), ClaimValidation::default()).with_jwks();
        verifier.update_jwks(Keys::from_jwks(set.as_bytes()).unwrap());
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
    fn a_rejected_token_is_not_cached() {
        let mut verifier = Verifier::new(Keys::from_pem(ANOTHER).unwrap(), ClaimValidation::default());
        let token = token();
        assert_eq!(verifier.verify_at(&token, at(1_000)), Err(TokenError::BadSignature));
        verifier.keys = Keys::from_pem(MINE).unwrap();
        assert_eq!(verifier.verify_at(&token, at(3_000)), Err(TokenError::Expired));
        assert!(verifier.verify_at(&token, at(1_000)).is_ok());
    }

    #[test]
    fn cached_claims_with_another_signature_are_rejected() {
        let verifier = Verifier::new(Keys::from_pem(MINE).unwrap(), ClaimValidation::default());
        let token = token();
        verifier.verify_at(&token, at(1_000)).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
        assert!(verifier.verify_at(&forged, at(1_000)).is_err());
    }
}
