//! Signatures of [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks) 1.0, by which the platform
//! knows that a request is ours.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

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
pub(crate) struct Secret(Hmac<Sha256>);

impl Secret {
    /// Parses `whsec_…`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let key = STANDARD.decode(text.trim().strip_prefix(PREFIX).ok_or(InvalidSecret)?).map_err(|_| InvalidSecret)?;
        if key.len() < LEAST_BYTES {
            return Err(InvalidSecret);
        }
        Hmac::new_from_slice(&key).map(Self).map_err(|_| InvalidSecret)
    }

    /// The signature of a body that is sent with this id, at this time in Unix seconds: `v1,…`.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
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
    fn a_secret_is_prefixed_base64_and_not_too_short() {
        for wrong in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_not base64 at all, is it"]
        {
            assert!(Secret::parse(wrong).is_err(), "{wrong}");
        }
    }
}
