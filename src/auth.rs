//! Authentication: converts a bearer token into a caller.
//!
//! A token is a signed JWT (RFC 7519) in the compact form. Guarantees:
//!
//! - A key verifies exactly one algorithm, which the key determines (RFC 8725, section 3.1). The token's header only
//!   selects among the configured keys. No public key can serve as an HMAC secret, and no key has the algorithm `none`.
//! - Claims are checked after the signature. A [`Caller`](crate::domain::Caller) results only if all of them are valid.
//! - No error, log line or `Debug` output contains a token or a key.
//!
//! This module does no I/O: its callers read the configuration and the issuer's JWKS, and pass them as text.

mod cache;
mod claims;
mod error;
mod jwks;
mod jws;
mod keys;
mod signer;
mod tickets;
mod verifier;

#[cfg(test)]
mod tests;

pub use claims::ClaimValidation;
pub use error::TokenError;
pub use jwks::JwksError;
pub use keys::{Key, KeyError, Keys};
pub use signer::{SignError, Signer};
pub use tickets::{Ticket, Tickets};
pub use verifier::Verifier;
