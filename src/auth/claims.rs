//! The claims of a token and their validation.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde_json::Value;

use super::TokenError;
use crate::domain::{Caller, Role, Time, UserId};

/// The requirements on a token's claims.
#[derive(Debug, Clone)]
pub struct ClaimValidation {
    /// The required `iss`; `None` accepts any or none.
    pub issuer: Option<String>,
    /// The value that `aud` must be or contain; `None` accepts any or none.
    pub audience: Option<String>,
    /// The tolerated difference between the issuer's clock and ours, in both directions; 30 s by default.
    pub leeway: Duration,
}

impl Default for ClaimValidation {
    fn default() -> Self {
        Self { issuer: None, audience: None, leeway: Duration::from_secs(30) }
    }
}

impl ClaimValidation {
    /// Returns whether a token with this `exp` is still accepted.
    pub(super) fn is_current(&self, expires_at: Time, now: Time) -> bool {
        now < expires_at.plus(self.leeway)
    }
}

/// The relevant claims (RFC 7519, section 4.1, and `role`), each with any JSON type, so that the error can name an
/// invalid one. An absent claim is null. A claim that occurs twice is rejected, because two parsers may use different
/// values.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    sub: Value,
    role: Value,
    exp: Value,
    nbf: Value,
    iat: Value,
    iss: Value,
    aud: Value,
}

impl Claims {
    /// The error for an object that cannot be parsed into claims.
    pub(super) const UNPARSABLE: TokenError = TokenError::BadClaims("a claim occurs twice");

    /// Validates the claims at `now` and converts them into a caller.
    pub(super) fn into_caller(self, validation: &ClaimValidation, now: Time) -> Result<Caller, TokenError> {
        let expires_at = time(&self.exp)
            .ok_or(TokenError::BadClaims("`exp` is required, as a number of seconds since 1970 up to the year 9999"))?;
        if !validation.is_current(expires_at, now) {
            return Err(TokenError::Expired);
        }
        let not_before = optional_time(&self.nbf, "`nbf` must be a number of seconds since 1970")?;
        let issued_at = optional_time(&self.iat, "`iat` must be a number of seconds since 1970")?;
        let latest = now.plus(validation.leeway);
        if not_before.is_some_and(|at| at > latest) || issued_at.is_some_and(|at| at > latest) {
            return Err(TokenError::NotYetValid);
        }
        if validation.issuer.as_deref().is_some_and(|issuer| self.iss != issuer) {
            return Err(TokenError::WrongIssuer);
        }
        if validation.audience.as_deref().is_some_and(|audience| !contains(&self.aud, audience)) {
            return Err(TokenError::WrongAudience);
        }
        let user = self.sub.as_str().and_then(|sub| UserId::parse(sub).ok());
        let user = user.ok_or(TokenError::BadClaims("`sub` must be 1 to 64 characters of A-Z a-z 0-9 _ - ."))?;
        let role = self.role.as_str().and_then(role);
        let role = role.ok_or(TokenError::BadClaims("`role` must be one of rider, driver, support, service"))?;
        Ok(Caller { user, role, issued_at, key: None, expires_at })
    }
}

/// Returns whether `aud`, a string or an array of strings, contains our audience.
fn contains(aud: &Value, audience: &str) -> bool {
    match aud {
        Value::Array(values) => values.iter().any(|value| value == audience),
        value => value == audience,
    }
}

fn role(text: &str) -> Option<Role> {
    let deserializer: serde::de::value::StrDeserializer<'_, ValueError> = text.into_deserializer();
    Role::deserialize(deserializer).ok()
}

fn optional_time(claim: &Value, wrong: &'static str) -> Result<Option<Time>, TokenError> {
    if claim.is_null() { Ok(None) } else { time(claim).map(Some).ok_or(TokenError::BadClaims(wrong)) }
}

/// Parses a `NumericDate` (RFC 7519, section 2): seconds since 1970, with an optional fraction. `None` if it is not a
/// number or is out of the calendar's range.
fn time(claim: &Value) -> Option<Time> {
    let Value::Number(number) = claim else { return None };
    if let Some(seconds) = number.as_i64() {
        return Time::from_unix_seconds(seconds);
    }
    // The cast saturates, and both limits of `i64` are out of the calendar's range.
    let millis = (number.as_f64()? * 1_000.0).floor() as i64;
    Timestamp::from_millisecond(millis).ok().map(Time::from)
}
