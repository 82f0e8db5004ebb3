//! From a bearer token to the caller it stands for.
//!
//! A token is a signed JWT (RFC 7519) in the compact form. What holds here:
//!
//! - A key verifies exactly one algorithm, and the key decides which (RFC 8725, section 3.1): the token's header
//!   only picks among the keys there are. No public key can serve as an HMAC secret, and `none` has no key.
//! - Claims are looked at once the signature is good, and a [`Caller`](crate::domain::Caller) comes out of all
//!   of them together or not at all.
//! - No error, log line or `Debug` output holds a token or a key.
//!
//! There is no I/O here: whoever reads the configuration, or the issuer's set of keys, brings them as text.

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

pub use claims::Expect;
pub use error::TokenError;
pub use jwks::JwksError;
pub use keys::{Key, KeyError, Keys};
pub use signer::{SignError, Signer};
pub use tickets::{Ticket, Tickets};
pub use verifier::Verifier;
