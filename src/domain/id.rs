//! Identifiers. The platform chooses the ids of rides and users; the server generates the ids of messages.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

/// The error for an invalid ride or user id. Its text is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters of A-Z a-z 0-9 _ - . and neither `.` nor `..`")]
pub struct InvalidId;

fn parse(text: &str) -> std::result::Result<Arc<str>, InvalidId> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    // A client removes `.` and `..` from a path before it sends it (RFC 3986, section 5.2.4).
    let is_dots = matches!(text, "." | "..");
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !is_dots {
        Ok(text.into())
    } else {
        Err(InvalidId)
    }
}

macro_rules! platform_id {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses 1 to 64 characters of `A-Z a-z 0-9 _ - .`, but neither `.` nor `..`.
            pub fn parse(text: &str) -> std::result::Result<Self, InvalidId> {
                parse(text).map(Self)
            }

            /// Returns the identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Equality and hash are those of the text, so a map with these keys can be searched by text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

platform_id! {
    /// The id of a ride, chosen by the platform.
    RideId
}

platform_id! {
    /// The id of a user, chosen by the issuer of the tokens (`sub`).
    UserId
}

/// The id of a message: a `UUIDv7`, which sorts by its creation time.
///
/// In a deployment with several shards, the last [`Self::SHARD_BITS`] bits are the number of the message's shard. UUIDv7 has random
/// bits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// Generates an id from this machine's clock and random numbers.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The number of bits that name the shard.
    pub const SHARD_BITS: u32 = 10;

    const SHARD_MASK: u128 = (1 << Self::SHARD_BITS) - 1;

    /// Generates an id that names a shard. Only the last [`Self::SHARD_BITS`] bits of `shard` are used.
    pub(super) fn new_with_shard_bits(shard: u16) -> Self {
        let random = Uuid::now_v7().as_u128() & !Self::SHARD_MASK;
        Self(Uuid::from_u128(random | u128::from(shard) & Self::SHARD_MASK))
    }

    /// Returns the bits that name the shard. They are random in the ids of a deployment with one shard.
    pub(super) fn shard_bits(self) -> u16 {
        u16::try_from(self.0.as_u128() & Self::SHARD_MASK).unwrap_or_default()
    }

    /// Parses the hyphenated form of RFC 9562.
    pub fn parse(text: &str) -> Option<Self> {
        // `Uuid` would also accept braces and URNs, but each message has one URL.
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(Self)
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_64_allowed_characters() {
        for good in ["ride_123", "a", "A.b-c_9", "...", &"x".repeat(64)] {
            assert_eq!(RideId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a b", "a/b", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(RideId::parse(bad), Err(InvalidId), "{bad:?}");
        }
    }

    #[test]
    fn a_message_id_has_one_spelling() {
        let id = MessageId::new();
        assert_eq!(MessageId::parse(&id.to_string()), Some(id));
        assert_eq!(MessageId::parse(&format!("{{{id}}}")), None);
        assert_eq!(MessageId::parse(&id.0.simple().to_string()), None);
        assert_eq!(MessageId::parse("nonsense"), None);
    }
}
