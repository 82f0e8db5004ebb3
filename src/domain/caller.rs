//! The caller of a request, and its role.

use serde::{Deserialize, Serialize};

use super::{Time, UserId};

/// The `role` of a token. The ride, not the token, determines a ride's rider and driver. The token's role determines the
/// permissions that do not depend on a ride: to create rides, to accept them, and to read all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Books rides.
    Rider,
    /// Accepts and drives rides.
    Driver,
    /// Reads and writes in every ride.
    Support,
    /// The surrounding platform: creates rides, reads every ride, may send as `system`.
    Service,
}

impl Role {
    /// Returns whether this role may read every ride and list the available drivers: support and service.
    pub fn is_staff(self) -> bool {
        matches!(self, Self::Support | Self::Service)
    }

    /// Returns the value of the `role` claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rider => "rider",
            Self::Driver => "driver",
            Self::Support => "support",
            Self::Service => "service",
        }
    }
}

/// A hash of a public key. It identifies the key independently of the issuer's `kid`.
pub type KeyFingerprint = u64;

/// An authenticated user, as described by their token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `sub`.
    pub user: UserId,
    /// `role`.
    pub role: Role,
    /// `iat`, where the token has it.
    pub issued_at: Option<Time>,
    /// The key of the issuer's key set that signed the token. When the issuer withdraws the key, the caller's streams end.
    pub key: Option<KeyFingerprint>,
    /// `exp`: the caller's streams end at this time.
    pub expires_at: Time,
}

impl Caller {
    /// Returns the caller with the rights of a participant only, for the merged stream. Support and service may read every ride. Their
    /// merged stream has only the rides in which they participate, and each only as long as they participate.
    #[must_use]
    pub fn as_participant(&self) -> Self {
        // A role that gives no access to rides by itself.
        Self { role: Role::Rider, ..self.clone() }
    }
}
