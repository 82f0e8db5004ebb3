//! Stream tickets: tokens for clients that cannot set a header, such as an `EventSource`.
//!
//! A ticket represents a login, only for streams and polls, and optionally only for one ride. It is signed with a
//! separate key, so a ticket is never accepted as a token and a token never as a ticket. A ticket is part of a URL,
//! which proxies may log. So it grants only read access, and it expires with the login's token.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto, encode};
use serde::{Deserialize, Serialize};

use super::jws::Jws;
use super::{SignError, TokenError};
use crate::domain::{Caller, KeyFingerprint, RideId, Role, Time, UserId};

/// The tolerated difference between the clocks of replicas.
const LEEWAY: Duration = Duration::from_secs(5);

/// Issues and verifies tickets.
pub struct Tickets {
    sign: EncodingKey,
    verify: DecodingKey,
}

/// The content of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The caller that the ticket was issued to.
    pub caller: Caller,
    /// The ride that it is restricted to; `None` for all of the caller's rides.
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
    key: Option<KeyFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ride: Option<String>,
}

impl Tickets {
    /// Creates tickets that are signed with `secret`, the same on all replicas.
    pub fn new(secret: &[u8]) -> Self {
        Self { sign: EncodingKey::from_secret(secret), verify: DecodingKey::from_secret(secret) }
    }

    /// Issues a ticket for the caller's streams, or for those of one ride.
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

    /// Verifies a ticket and returns its content.
    pub fn verify(&self, ticket: &str) -> Result<Ticket, TokenError> {
        let jws = Jws::split(ticket)?;
        let (algorithm, _) = jws.signed_with()?;
        if algorithm != "HS256" {
            return Err(TokenError::UnsupportedAlgorithm);
        }
        match crypto::verify(jws.signature, jws.signed.as_bytes(), &self.verify, Algorithm::HS256) {
            Ok(true) => {}
            _ => return Err(TokenError::BadSignature),
        }
        let Claims { sub, role, iat, exp, key, ride } = jws.claims(TokenError::Malformed)?;
        let expires_at = Time::from_unix_seconds(exp).ok_or(TokenError::BadClaims("exp"))?;
        if Time::now() >= expires_at.plus(LEEWAY) {
            return Err(TokenError::Expired);
        }
        let ride = ride.map(|ride| RideId::parse(&ride)).transpose().map_err(|_| TokenError::BadClaims("ride"))?;
        let caller = Caller {
            user: UserId::parse(&sub).map_err(|_| TokenError::BadClaims("sub"))?,
            role,
            issued_at: iat.and_then(Time::from_unix_seconds),
            key,
            expires_at,
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
    use crate::auth::{ClaimValidation, Keys, Signer, Verifier};

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
    fn a_ticket_represents_its_login_and_expires_with_it() {
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
    fn a_ticket_is_rejected_as_a_token_and_a_token_as_a_ticket() {
        let (tickets, login) = (Tickets::new(SECRET), b"fedcba9876543210fedcba9876543210");
        let verifier = Verifier::new(Keys::from_secret(login).unwrap(), ClaimValidation::default());
        let ticket = tickets.issue(&caller(60), None).unwrap();
        assert_eq!(verifier.verify(&ticket), Err(TokenError::BadSignature));
        let token = Signer::new(login).unwrap();
        let token = token.sign(&caller(60).user, Role::Rider, Duration::from_secs(60)).unwrap();
        assert_eq!(tickets.verify(&token), Err(TokenError::BadSignature));
    }
}
