//! A token, verified.

use std::fmt;

use jsonwebtoken::Algorithm;

use super::cache::Cache;
use super::claims::Claims;
use super::jws::Jws;
use super::{Expect, Keys, TokenError};
use crate::domain::{Caller, Time};

/// Longer than any token with our claims; a header of this size is what HTTP servers take at most.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Verifies tokens. Put it into an `Arc` to share it: what it remembers is then shared, too.
pub struct Verifier {
    keys: Keys,
    expect: Expect,
    cache: Cache,
}

impl Verifier {
    /// Accepts tokens signed with one of `keys` that say what `expect` asks for.
    pub fn new(keys: Keys, expect: Expect) -> Self {
        Self { keys, expect, cache: Cache::new() }
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
        let jws = Jws::split(token)?;
        let algorithm = self.keys.algorithm(&jws.algorithm()?)?;
        // An HMAC is a few short hashes: not worth the cache's lock and memory.
        if algorithm == Algorithm::HS256 {
            return self.check(&jws, algorithm, now);
        }
        let digest = Cache::digest(token);
        // An expired entry is refused by the full check, which knows how to say so.
        let known = self.cache.get(&digest).filter(|caller| self.expect.is_current(caller.expires_at, now));
        if let Some(caller) = known {
            return Ok(caller);
        }
        let caller = self.check(&jws, algorithm, now)?;
        self.cache.put(digest, caller.clone());
        Ok(caller)
    }

    fn check(&self, jws: &Jws<'_>, algorithm: Algorithm, now: Time) -> Result<Caller, TokenError> {
        self.keys.verify(algorithm, jws.signed, jws.signature)?;
        let claims: Claims = jws.claims(Claims::WRONG)?;
        claims.into_caller(&self.expect, now)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys).field("expect", &self.expect).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    const MINE: &[u8] = include_bytes!("../../tests/keys/p256.pub.pem");
    const ANOTHER: &[u8] = include_bytes!("../../tests/keys/p256.other.pub.pem");

    fn at(seconds: i64) -> Time {
        Time::from_unix_seconds(seconds).unwrap()
    }

    fn token() -> String {
        let key = EncodingKey::from_ec_pem(include_bytes!("../../tests/keys/p256.pem")).unwrap();
        let claims = json!({"sub": "u", "role": "driver", "exp": 2_000});
        encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
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
