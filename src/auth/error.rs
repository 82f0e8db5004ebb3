//! Errors of tokens.

/// Why a token was rejected. The messages are for the client and contain nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any valid token. Its content was not examined.
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// Not three parts of base64url with JSON objects in the first two. The last part may be empty, for an unsigned
    /// token.
    #[error("the token is not a JWT in the compact form")]
    Malformed,
    /// The algorithm is not supported by any configured key; this includes `none`.
    #[error("the token's algorithm is not one that this service accepts")]
    UnsupportedAlgorithm,
    /// It has a `crit` header: extensions that must be understood (RFC 7515, section 4.1.11). None is supported.
    #[error("the token's header has `crit`, and this service supports no extensions")]
    CriticalHeader,
    /// Signed with another key, or modified after it was signed.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Signed with a key that is not in the issuer's JWKS as last loaded.
    #[error("the token is signed with a key that is not in the issuer's JWKS")]
    UnknownKey,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// The user's tokens up to this one were revoked.
    #[error("the token was revoked")]
    Revoked,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet: its `nbf` or `iat` lies in the future")]
    NotYetValid,
    /// `iss` is missing or is not the configured one.
    #[error("the token's `iss` is not the issuer that this service trusts")]
    WrongIssuer,
    /// `aud` is missing or does not name this service.
    #[error("the token's `aud` does not name this service")]
    WrongAudience,
    /// A required claim is missing, or a claim is invalid.
    #[error("the token's claims are wrong: {0}")]
    BadClaims(&'static str),
}

impl TokenError {
    /// Returns the stable code of the error (docs/reference/errors.md).
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong | Self::Malformed | Self::CriticalHeader | Self::BadClaims(_) => "token_malformed",
            Self::UnsupportedAlgorithm | Self::BadSignature => "signature_invalid",
            Self::UnknownKey => "key_unknown",
            Self::Expired => "token_expired",
            Self::Revoked => "token_revoked",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer => "issuer_invalid",
            Self::WrongAudience => "audience_invalid",
        }
    }

    /// One error for each code.
    pub const OF_EACH_CODE: [Self; 8] = [
        Self::Malformed,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::BadSignature,
        Self::UnknownKey,
        Self::WrongIssuer,
        Self::WrongAudience,
    ];
}
