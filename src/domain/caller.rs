//! Who is asking.

use serde::{Deserialize, Serialize};

use super::{Time, UserId};

/// What a token says its bearer is. On a ride it is the ride that says who is its rider and its driver; the
/// token's role decides what no ride decides: who may create rides, accept them, and follow all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Books rides.
    Rider,
    /// Drives them.
    Driver,
    /// Reads and writes in every ride.
    Support,
    /// The platform around: creates rides, reads every ride, may send as `system`.
    Service,
}

impl Role {
    /// Whether this role sees every ride, and who of the drivers takes rides: support and service.
    pub fn is_staff(self) -> bool {
        matches!(self, Self::Support | Self::Service)
    }

    /// The role as tokens spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rider => "rider",
            Self::Driver => "driver",
            Self::Support => "support",
            Self::Service => "service",
        }
    }
}

/// Names a public key by a hash of what it is, whatever its issuer calls it.
pub type KeyPrint = u64;

/// An authenticated user, as their token describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `sub`.
    pub user: UserId,
    /// `role`.
    pub role: Role,
    /// `iat`, where the token has one.
    pub issued_at: Option<Time>,
    /// The key of the issuer's set that the token is signed with: what this caller has opened ends when it is withdrawn.
    pub key: Option<KeyPrint>,
    /// `exp`: what this caller has opened ends here.
    pub expires_at: Time,
}
