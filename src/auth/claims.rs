//! What a token claims, and what of it is believed once its signature is good.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde_json::Value;

use super::TokenError;
use crate::domain::{Caller, Role, Time, UserId};

/// What a token must say besides being signed.
#[derive(Debug, Clone)]
pub struct Expect {
    /// The `iss` that every token must have; `None` accepts any and none.
    pub issuer: Option<String>,
    /// What `aud` must be or contain; `None` accepts any and none.
    pub audience: Option<String>,
    /// How far the issuer's clock may be from ours, either way; 30 s by default.
    pub leeway: Duration,
}

impl Default for Expect {
    fn default() -> Self {
        Self { issuer: None, audience: None, leeway: Duration::from_secs(30) }
    }
}

impl Expect {
    /// Whether a token with this `exp` is still accepted.
    pub(super) fn is_current(&self, expires_at: Time, now: Time) -> bool {
        now < expires_at.plus(self.leeway)
    }
}

/// The claims that matter (RFC 7519, section 4.1, and `role`), each still of any type, so that a wrong one can
/// be named. An absent one is null. A claim that is there twice is refused: two readers could differ about it.
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
    /// The refusal of an object that is not these claims.
    pub(super) const WRONG: TokenError = TokenError::BadClaims("a claim is there twice");

    /// Who is asking, if all of it is as expected at `now`.
    pub(super) fn into_caller(self, expect: &Expect, now: Time) -> Result<Caller, TokenError> {
        let expires_at = time(&self.exp).ok_or(TokenError::BadClaims(
            "`exp` must be there, and a number of seconds since 1970, year 9999 at most",
        ))?;
        if !expect.is_current(expires_at, now) {
            return Err(TokenError::Expired);
        }
        let not_before = optional_time(&self.nbf, "`nbf` must be a number of seconds since 1970")?;
        let issued_at = optional_time(&self.iat, "`iat` must be a number of seconds since 1970")?;
        let latest = now.plus(expect.leeway);
        if not_before.is_some_and(|at| at > latest) || issued_at.is_some_and(|at| at > latest) {
            return Err(TokenError::NotYetValid);
        }
        if expect.issuer.as_deref().is_some_and(|issuer| self.iss != issuer) {
            return Err(TokenError::WrongIssuer);
        }
        if expect.audience.as_deref().is_some_and(|audience| !names(&self.aud, audience)) {
            return Err(TokenError::WrongAudience);
        }
        let user = self.sub.as_str().and_then(|sub| UserId::parse(sub).ok());
        let user = user.ok_or(TokenError::BadClaims("`sub` must be 1 to 64 characters of A-Z a-z 0-9 _ - ."))?;
        let role = self.role.as_str().and_then(role);
        let role = role.ok_or(TokenError::BadClaims("`role` must be one of rider, driver, support, service"))?;
        Ok(Caller { user, role, issued_at, key: None, expires_at })
    }
}

/// Whether `aud`, a string or an array of them, names us.
fn names(aud: &Value, audience: &str) -> bool {
    match aud {
        Value::Array(all) => all.iter().any(|one| one == audience),
        one => one == audience,
    }
}

fn role(text: &str) -> Option<Role> {
    let deserializer: serde::de::value::StrDeserializer<'_, ValueError> = text.into_deserializer();
    Role::deserialize(deserializer).ok()
}

fn optional_time(claim: &Value, wrong: &'static str) -> Result<Option<Time>, TokenError> {
    if claim.is_null() { Ok(None) } else { time(claim).map(Some).ok_or(TokenError::BadClaims(wrong)) }
}

/// A `NumericDate` (RFC 7519, section 2): seconds since 1970, fractions allowed. `None` for what is no number
/// or no moment of the calendar.
fn time(claim: &Value) -> Option<Time> {
    let Value::Number(number) = claim else { return None };
    if let Some(seconds) = number.as_i64() {
        return Time::from_unix_seconds(seconds);
    }
    // The cast saturates, and both ends of `i64` lie outside of the calendar.
    let millis = (number.as_f64()? * 1_000.0).floor() as i64;
    Timestamp::from_millisecond(millis).ok().map(Time::from)
}
