//! Signatures of [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks) 1.0. They authenticate the
//! server's requests to the platform.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The header with the id of the message, the same for each attempt.
pub(crate) const ID: &str = "webhook-id";
/// The header with the time of the attempt, in Unix seconds.
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signature.
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// The prefix of a secret, before its bytes in base64.
const PREFIX: &str = "whsec_";

/// The minimum length of a secret. The standard recommends 24 to 64 bytes.
const MIN_BYTES: usize = 16;

/// The tolerated difference between the time of an attempt and the receiver's clock.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Why a text is not a secret.
#[derive(Debug, thiserror::Error)]
#[error("must be `whsec_` and then at least {MIN_BYTES} bytes in base64, as in Standard Webhooks")]
pub(crate) struct InvalidSecret;

/// A secret that the sender and the receiver share.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// Generates a secret. Each of the two UUIDs has 122 random bits.
    pub(crate) fn new() -> Self {
        Self([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())
    }

    /// Parses `whsec_…`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let key = STANDARD.decode(text.trim().strip_prefix(PREFIX).ok_or(InvalidSecret)?).map_err(|_| InvalidSecret)?;
        if key.len() < MIN_BYTES { Err(InvalidSecret) } else { Ok(Self(key)) }
    }

    /// Returns the bytes, as they are stored.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the secret as the receiver gets it: `whsec_…`.
    pub(crate) fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// Returns whether a body is signed with this secret. One of the `signatures` (separated by spaces) must match the
    /// body. The time of the attempt must be close to `now` (Unix seconds), which prevents replays.
    pub(crate) fn verifies(&self, id: &str, timestamp: &str, signatures: &str, body: &[u8], now: i64) -> bool {
        let Ok(at) = timestamp.parse::<i64>() else { return false };
        if at.abs_diff(now) > TOLERANCE.as_secs() {
            return false;
        }
        let signed = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
        signed.filter_map(|signature| STANDARD.decode(signature).ok()).any(|signature| {
            // The comparison takes constant time.
            mac(&self.0, id, at, body).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
        })
    }

    /// Returns the signature `v1,…` of a body with this id and time (Unix seconds).
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        signature(&self.0, id, timestamp, body)
    }
}

/// Returns signatures with several secrets, such as a new one and the previous one.
pub(crate) fn signatures(secrets: &[Vec<u8>], id: &str, timestamp: i64, body: &[u8]) -> String {
    secrets.iter().map(|secret| signature(secret, id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

fn signature(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let Some(mac) = mac(secret, id, timestamp, body) else { return String::new() };
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn mac(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC accepts keys of any length, so this never fails.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Some(mac)
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
    fn a_signature_matches_the_example_of_the_standard() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_new_secret_is_random_and_has_the_recommended_length() {
        let text = Secret::new().text();
        assert!((24..=64).contains(&Secret::parse(&text).unwrap().bytes().len()));
        assert_ne!(text, Secret::new().text());
    }

    #[test]
    fn only_signed_content_is_accepted_and_only_within_the_tolerance() {
        let (secret, now) = (Secret::new(), 1_769_121_900);
        let signed = |at: i64| secret.sign("evt_1", at, b"{}");
        let verifies = |id: &str, at: i64, signatures: &str, body: &[u8]| {
            secret.verifies(id, &at.to_string(), signatures, body, now)
        };
        assert!(verifies("evt_1", now, &signed(now), b"{}"));
        assert!(verifies("evt_1", now, &format!("v1,AAAA v2,x {}", signed(now)), b"{}"));
        assert!(!verifies("evt_2", now, &signed(now), b"{}"));
        assert!(!verifies("evt_1", now + 1, &signed(now), b"{}"));
        assert!(!verifies("evt_1", now, &signed(now), b"{ }"));
        assert!(!verifies("evt_1", now, &Secret::new().sign("evt_1", now, b"{}"), b"{}"));
        assert!(!verifies("evt_1", now - 301, &signed(now - 301), b"{}"));
        for wrong in ["", "v1,", "v1,not base64", "AAAA"] {
            assert!(!verifies("evt_1", now, wrong, b"{}"), "{wrong}");
        }
        assert!(!secret.verifies("evt_1", "soon", &signed(now), b"{}", now));
    }

    #[test]
    fn each_of_several_secrets_adds_a_signature() {
        let secrets = [Secret::new().bytes().to_owned(), Secret::new().bytes().to_owned()];
        let signed = signatures(&secrets, "a", 1, b"{}");
        let (first, second) = signed.split_once(' ').unwrap();
        assert!(first.starts_with("v1,") && second.starts_with("v1,") && first != second);
    }

    #[test]
    fn a_secret_must_be_prefixed_base64_of_the_minimum_length() {
        for wrong in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_not base64 at all, is it"]
        {
            assert!(Secret::parse(wrong).is_err(), "{wrong}");
        }
    }
}
