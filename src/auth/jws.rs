//! The compact form of a JWS (RFC 7515, section 7.1), taken apart. Nothing here is verified yet.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::TokenError;

/// The parts of a token, as they were sent.
pub(super) struct Jws<'a> {
    header: &'a str,
    payload: &'a str,
    /// Base64url text.
    pub(super) signature: &'a str,
    /// What the signature is over: header, dot, payload.
    pub(super) signed: &'a str,
}

/// What of the header matters. A key that the header brings along (`jwk`, `jku`, `x5c`) is never looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

impl<'a> Jws<'a> {
    /// Exactly three parts. The signature alone may be empty (RFC 7515, section 7.1), and is then wrong.
    pub(super) fn split(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if header.is_empty() || payload.is_empty() || payload.contains('.') || !signature.bytes().all(is_base64url) {
            return Err(TokenError::Malformed);
        }
        Ok(Self { header, payload, signature, signed })
    }

    /// The algorithm that the header names, and the key where it names one.
    pub(super) fn signed_with(&self) -> Result<(String, Option<String>), TokenError> {
        let header: Header = object(self.header, TokenError::Malformed)?;
        if header.crit { Err(TokenError::CriticalHeader) } else { Ok((header.alg, header.kid)) }
    }

    /// The payload's claims; `wrong` when it is an object but not one of `T`.
    pub(super) fn claims<T: DeserializeOwned>(&self, wrong: TokenError) -> Result<T, TokenError> {
        object(self.payload, wrong)
    }
}

/// One part, as a JSON object.
fn object<T: DeserializeOwned>(part: &str, wrong: TokenError) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::Malformed)?;
    // Serde would fill a struct from an array as well.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(TokenError::Malformed);
    }
    serde_json::from_str(text).map_err(|e| if e.is_data() { wrong } else { TokenError::Malformed })
}

/// Whether a member is there at all, whatever it says: a `crit` of the wrong type is no way around it.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}
