//! Why a token was refused.

/// Why a token was refused, in words for its bearer. None of them repeats any of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token needs to be; nothing of it was looked at.
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// Not three parts of base64url with JSON objects in the first two; the last is empty where nothing was signed.
    #[error("the token is not a JWT in the compact form")]
    Malformed,
    /// Signed in a way that no key here verifies; `none` among them.
    #[error("the token's algorithm is not one that this service accepts")]
    UnsupportedAlgorithm,
    /// A `crit` header: extensions that must be understood (RFC 7515, section 4.1.11). None are.
    #[error("the token's header has `crit`, and this service knows no extensions")]
    CriticalHeader,
    /// Signed with another key, or changed after it was signed.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Signed with a key that the issuer has not published, as far as is known here.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// The user's logins up to this one were revoked.
    #[error("the token was revoked")]
    Revoked,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet: its `nbf` or `iat` lies in the future")]
    NotYetValid,
    /// `iss` is missing or another than the configured one.
    #[error("the token's `iss` is not the issuer that this service trusts")]
    WrongIssuer,
    /// `aud` is missing or does not name this service.
    #[error("the token's `aud` does not name this service")]
    WrongAudience,
    /// A claim that is needed is missing, or one that is there makes no sense.
    #[error("the token's claims are wrong: {0}")]
    BadClaims(&'static str),
}

impl TokenError {
    /// The stable name of the reason, for programs: it tells the client what to do (docs/errors.md).
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

    /// One reason for each code.
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
