//! Parsing of the compact form of a JWS (RFC 7515, section 7.1). Nothing is verified here.
//!
//! Tokens and tickets are both parsed by this module, and `jsonwebtoken` verifies their signatures alone. Its `decode` returns no
//! reason for a wrong claim. It also accepts a token with a `crit` header, and a claim that is present twice.

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
    /// The signed text: header, dot, payload.
    pub(super) signed: &'a str,
}

/// The relevant header parameters. A key in the header (`jwk`, `jku`, `x5c`) is ignored.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_present")]
    crit: bool,
}

impl<'a> Jws<'a> {
    /// Splits a token into exactly three parts. Only the signature may be empty (RFC 7515, section 7.1); it is then
    /// invalid.
    pub(super) fn split(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if header.is_empty() || payload.is_empty() || payload.contains('.') || !signature.bytes().all(is_base64url) {
            return Err(TokenError::Malformed);
        }
        Ok(Self { header, payload, signature, signed })
    }

    /// Returns the algorithm and the optional key id of the header.
    pub(super) fn signed_with(&self) -> Result<(String, Option<String>), TokenError> {
        let header: Header = object(self.header, TokenError::Malformed)?;
        if header.crit { Err(TokenError::CriticalHeader) } else { Ok((header.alg, header.kid)) }
    }

    /// Parses the payload's claims. Returns `error` if it is an object that is not a valid `T`.
    pub(super) fn claims<T: DeserializeOwned>(&self, error: TokenError) -> Result<T, TokenError> {
        object(self.payload, error)
    }
}

/// Parses one part as a JSON object.
fn object<T: DeserializeOwned>(part: &str, error: TokenError) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::Malformed)?;
    // Serde would also parse a struct from an array.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(TokenError::Malformed);
    }
    serde_json::from_str(text).map_err(|e| if e.is_data() { error } else { TokenError::Malformed })
}

/// Returns whether a member exists, whatever its value: a `crit` of the wrong type must not bypass the check.
fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}
