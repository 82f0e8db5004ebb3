//! Stream tickets: tokens for those who cannot set a header, such as an `EventSource`.
//!
//! A ticket stands for a login, for streams and polls alone, and for one ride where it names one. It is signed
//! with a key of its own, so neither can be taken for the other: a ticket is no token, and a token no ticket. It
//! travels in a URL, which others log; so it can do nothing but read, and ends with the login it was made from.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::jws::Jws;
use super::{SignError, TokenError};
use crate::domain::{Caller, KeyPrint, RideId, Role, Time, UserId};

/// Clocks of replicas may differ by this much.
const LEEWAY: Duration = Duration::from_secs(5);

/// Makes tickets, and takes them.
pub struct Tickets {
    sign: EncodingKey,
    verify: DecodingKey,
    validation: Validation,
}

/// What a ticket stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whose login it was made from.
    pub caller: Caller,
    /// The one ride that it is for; `None` for all of the caller's.
    pub ride: Option<RideId>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyPrint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ride: Option<String>,
}

impl Tickets {
    /// Tickets signed with `secret`, the same on all replicas.
    pub fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_aud = false;
        Self { sign: EncodingKey::from_secret(secret), verify: DecodingKey::from_secret(secret), validation }
    }

    /// A ticket for the caller's streams, or for that of one ride.
    pub fn issue(&self, caller: &Caller, ride: Option<&RideId>) -> Result<String, SignError> {
        let claims = Claims {
            sub: caller.user.to_string(),
            role: caller.role,
            iat: caller.issued_at.map(Time::as_unix_seconds),
            exp: caller.expires_at.as_unix_seconds(),
            key: caller.key,
            ride: ride.map(ToString::to_string),
        };
        Ok(encode(&Header::default(), &claims, &self.sign)?)
    }

    /// What a ticket stands for.
    pub fn verify(&self, ticket: &str) -> Result<Ticket, TokenError> {
        use jsonwebtoken::errors::ErrorKind;
        Jws::split(ticket)?.signed_with()?;
        let claims = decode::<Claims>(ticket, &self.verify, &self.validation);
        let claims = claims.map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::InvalidSignature | ErrorKind::Base64(_) => TokenError::BadSignature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::UnsupportedAlgorithm,
            _ => TokenError::Malformed,
        })?;
        let Claims { sub, role, iat, exp, key, ride } = claims.claims;
        let ride = ride.map(|ride| RideId::parse(&ride)).transpose().map_err(|_| TokenError::BadClaims("ride"))?;
        let caller = Caller {
            user: UserId::parse(&sub).map_err(|_| TokenError::BadClaims("sub"))?,
            role,
            issued_at: iat.and_then(Time::from_unix_seconds),
            key,
            expires_at: Time::from_unix_seconds(exp).ok_or(TokenError::BadClaims("exp"))?,
        };
        Ok(Ticket { caller, ride })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Expect, Keys, Signer, Verifier};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn caller(ends_in: i64) -> Caller {
        let now = Time::now().as_unix_seconds();
        Caller {
            user: UserId::parse("rider_1").unwrap(),
            role: Role::Rider,
            issued_at: Time::from_unix_seconds(now - 100),
            key: Some(u64::MAX),
            expires_at: Time::from_unix_seconds(now + ends_in).unwrap(),
        }
    }

    #[test]
    fn a_ticket_stands_for_its_login_and_ends_with_it() {
        let tickets = Tickets::new(SECRET);
        let ride = RideId::parse("ride_1").unwrap();
        for ride in [None, Some(ride)] {
            let ticket = Ticket { caller: caller(60), ride };
            let text = tickets.issue(&ticket.caller, ticket.ride.as_ref()).unwrap();
            assert_eq!(tickets.verify(&text), Ok(ticket));
        }
        let ended = tickets.issue(&caller(-60), None).unwrap();
        assert_eq!(tickets.verify(&ended), Err(TokenError::Expired));
        assert_eq!(tickets.verify("nonsense"), Err(TokenError::Malformed));
    }

    #[test]
    fn a_ticket_is_no_token_and_a_token_no_ticket() {
        let (tickets, login) = (Tickets::new(SECRET), b"fedcba9876543210fedcba9876543210");
        let verifier = Verifier::new(Keys::from_secret(login).unwrap(), Expect::default());
        let ticket = tickets.issue(&caller(60), None).unwrap();
        assert_eq!(verifier.verify(&ticket), Err(TokenError::BadSignature));
        let token = Signer::new(login).unwrap();
        let token = token.sign(&caller(60).user, Role::Rider, Duration::from_secs(60)).unwrap();
        assert_eq!(tickets.verify(&token), Err(TokenError::BadSignature));
    }
}
