//! VAPID (RFC 8292): identifies the sender of a push to push services, by a token signed with the key that browsers subscribe to.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;
use web_push_native::p256::pkcs8::EncodePrivateKey;

use crate::domain::Time;

/// The lifetime of a token: half of the 24 hours that RFC 8292 allows.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// The size of a private key in bytes.
const KEY_BYTES: usize = 32;

/// An invalid VAPID setting.
#[derive(Debug, thiserror::Error)]
pub enum VapidError {
    /// The key is invalid.
    #[error(
        "RIDEWIRE_VAPID_KEY must be a private key of P-256 in base64url (32 bytes), as `npx web-push generate-vapid-keys` \
         prints it"
    )]
    Key,
    /// The subject is invalid.
    #[error("RIDEWIRE_VAPID_SUBJECT must begin with mailto: or https://, such as mailto:operations@example.com")]
    Subject,
}

/// Signs tokens for push services.
pub(super) struct Vapid {
    key: EncodingKey,
    public_key: String,
    subject: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
}

/// Validates the settings.
pub(super) fn check(key: Option<&str>, subject: Option<&str>) -> Result<(), VapidError> {
    key.map(private_key).transpose()?;
    let is_uri = |subject: &str| {
        let rest = subject.strip_prefix("mailto:").or_else(|| subject.strip_prefix("https://"));
        rest.is_some_and(|rest| !rest.is_empty()) && subject.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if subject.is_none_or(is_uri) { Ok(()) } else { Err(VapidError::Subject) }
}

fn private_key(text: &str) -> Result<SecretKey, VapidError> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).map_err(|_| VapidError::Key)?;
    if bytes.len() != KEY_BYTES {
        return Err(VapidError::Key);
    }
    SecretKey::from_slice(&bytes).map_err(|_| VapidError::Key)
}

impl Vapid {
    /// Parses the private key of the settings.
    pub(super) fn parse(key: &str, subject: Option<String>) -> Result<Self, VapidError> {
        Self::new(&private_key(key)?, subject)
    }

    /// Derives the private key from a secret that all replicas share.
    pub(super) fn from_seed(seed: &[u8], subject: Option<String>) -> Result<Self, VapidError> {
        // About one hash in 2^32 is not a valid P-256 key; then the next one is tried.
        let key =
            (0..=u8::MAX).find_map(|n| SecretKey::from_slice(Sha256::digest([seed, &[n]].concat()).as_slice()).ok());
        Self::new(&key.ok_or(VapidError::Key)?, subject)
    }

    fn new(key: &SecretKey, subject: Option<String>) -> Result<Self, VapidError> {
        let der = key.to_pkcs8_der().map_err(|_| VapidError::Key)?;
        let point = key.public_key().to_encoded_point(false);
        Ok(Self {
            key: EncodingKey::from_ec_der(der.as_bytes()),
            public_key: URL_SAFE_NO_PAD.encode(point.as_bytes()),
            subject,
        })
    }

    /// The public key: an uncompressed point in base64url.
    pub(super) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Returns the `Authorization` header for the push service with this origin.
    pub(super) fn authorization(&self, origin: &str) -> Result<String, jsonwebtoken::errors::Error> {
        let exp = Time::now().plus(TOKEN_LIFETIME).as_unix_seconds();
        let claims = Claims { aud: origin, exp, sub: self.subject.as_deref() };
        let token = encode(&Header::new(Algorithm::ES256), &claims, &self.key)?;
        Ok(format!("vapid t={token}, k={}", self.public_key))
    }
}

impl fmt::Debug for Vapid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vapid").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_and_a_subject_a_uri() {
        // The application server of RFC 8291, section 5.
        let key = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
        let public = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
        assert_eq!(Vapid::parse(key, None).unwrap().public_key(), public);
        assert!(!format!("{:?}", Vapid::parse(key, None).unwrap()).contains(key));
        let zero = "A".repeat(43);
        for wrong in ["", "x", "not base64!", &key[1..], zero.as_str(), public] {
            assert!(matches!(check(Some(wrong), None), Err(VapidError::Key)), "{wrong}");
        }
        for good in ["mailto:a@b.example", "https://example.com/contact"] {
            assert!(check(Some(key), Some(good)).is_ok(), "{good}");
        }
        for wrong in ["", "mailto:", "a@b.example", "http://example.com", "mailto:a b"] {
            assert!(matches!(check(None, Some(wrong)), Err(VapidError::Subject)), "{wrong}");
        }
    }

    #[test]
    fn a_seed_always_derives_the_same_key() {
        let of = |seed: &[u8]| Vapid::from_seed(seed, None).unwrap().public_key().to_owned();
        assert_eq!(of(b"one"), of(b"one"));
        assert_ne!(of(b"one"), of(b"two"));
    }
}
