//! Tokens for development and tests.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use super::keys::check_secret;
use super::{ClaimValidation, KeyError};
use crate::domain::{Role, Time, UserId};

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

/// Signs development and test tokens (HS256). In production the platform's identity provider does this.
#[derive(Debug, Clone)]
pub struct Signer {
    key: EncodingKey,
    issuer: Option<String>,
    audience: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a UserId,
    role: Role,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

impl Signer {
    /// Creates a signer. `secret` must be valid for [`Keys::from_secret`](super::Keys::from_secret).
    pub fn new(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self { key: EncodingKey::from_secret(secret), issuer: None, audience: None })
    }

    /// Adds the `iss` and `aud` that `validation` requires to the tokens.
    pub fn with(mut self, validation: &ClaimValidation) -> Self {
        self.issuer.clone_from(&validation.issuer);
        self.audience.clone_from(&validation.audience);
        self
    }

    /// Returns a token for `user` that expires after `ttl`, in whole seconds.
    pub fn sign(&self, user: &UserId, role: Role, ttl: Duration) -> Result<String, SignError> {
        let now = Time::now();
        let claims = Claims {
            sub: user,
            role,
            iat: now.as_unix_seconds(),
            exp: now.plus(ttl).as_unix_seconds(),
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
        };
        Ok(encode(&Header::default(), &claims, &self.key)?)
    }
}
