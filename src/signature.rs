//! Signatures of [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks) 1.0, by which the platform
//! knows that a request is ours.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The header with the id of what is sent: the same at each attempt.
pub(crate) const ID: &str = "webhook-id";
/// The header with the time of the attempt, in Unix seconds.
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signature.
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// What a secret begins with, before its bytes in base64.
const PREFIX: &str = "whsec_";

/// The fewest bytes of a secret. The standard recommends 24 to 64.
const LEAST_BYTES: usize = 16;

/// Why a text is not a secret.
#[derive(Debug, thiserror::Error)]
#[error("must be `whsec_` and then at least {LEAST_BYTES} bytes in base64, as in Standard Webhooks")]
pub(crate) struct InvalidSecret;

/// A secret that two sides share.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// A new one. Each of the two UUIDs has 122 random bits.
    pub(crate) fn new() -> Self {
        Self([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())
    }

    /// Parses `whsec_…`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let key = STANDARD.decode(text.trim().strip_prefix(PREFIX).ok_or(InvalidSecret)?).map_err(|_| InvalidSecret)?;
        if key.len() < LEAST_BYTES { Err(InvalidSecret) } else { Ok(Self(key)) }
    }

    /// Its bytes, as they are stored.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as its other side gets it: `whsec_…`.
    pub(crate) fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The signature of a body that is sent with this id, at this time in Unix seconds: `v1,…`.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        signature(&self.0, id, timestamp, body)
    }
}

/// The signatures by several secrets, such as a new one and the one that it replaces.
pub(crate) fn signatures(secrets: &[Vec<u8>], id: &str, timestamp: i64, body: &[u8]) -> String {
    secrets.iter().map(|secret| signature(secret, id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

fn signature(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    // A key of HMAC may have any length, so this always is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standards_own_example() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_new_secret_is_random_and_as_long_as_the_standard_recommends() {
        let text = Secret::new().text();
        assert!((24..=64).contains(&Secret::parse(&text).unwrap().bytes().len()));
        assert_ne!(text, Secret::new().text());
    }

    #[test]
    fn each_of_several_secrets_signs() {
        let secrets = [Secret::new().bytes().to_owned(), Secret::new().bytes().to_owned()];
        let signed = signatures(&secrets, "a", 1, b"{}");
        let (first, second) = signed.split_once(' ').unwrap();
        assert!(first.starts_with("v1,") && second.starts_with("v1,") && first != second);
    }

    #[test]
    fn a_secret_is_prefixed_base64_and_not_too_short() {
        for wrong in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_not base64 at all, is it"]
        {
            assert!(Secret::parse(wrong).is_err(), "{wrong}");
        }
    }
}
