//! The keys that verify tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use super::TokenError;
use crate::domain::KeyFingerprint;

/// The length of the hash, which RFC 7518, section 3.2, requires for HS256.
const MIN_SECRET_BYTES: usize = 32;
/// RFC 7518, section 3.3, requires this for RS256.
const MIN_RSA_BITS: usize = 2048;

/// Why a key cannot be used. The messages are for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret is short enough to be guessed.
    #[error("the secret has {0} bytes, and HS256 needs at least {MIN_SECRET_BYTES}: `openssl rand -hex 32` makes one")]
    ShortSecret(usize),
    /// The secret is a PEM text. A public key is not secret, so anyone could sign tokens with it.
    #[error("the secret is a PEM text; configure a public key as the public key, not as the secret")]
    PemAsSecret,
    /// Not PEM, or PEM without a readable key.
    #[error("the public key is not PEM text; give one with `-----BEGIN PUBLIC KEY-----`")]
    NotPem,
    /// The text has several PEM blocks, of which all but one would be ignored silently.
    #[error("the PEM text holds more than one block; give one public key, or several as a JWKS")]
    SeveralBlocks,
    /// A private key, which the server must not have.
    #[error("this is a private key; the public one is expected (`openssl pkey -pubout` makes it)")]
    PrivateKey,
    /// The RSA key is too short.
    #[error("the RSA key has {0} bits, and RS256 needs at least {MIN_RSA_BITS}")]
    ShortRsa(usize),
    /// The EC key is on another curve.
    #[error("the EC key is not on the curve P-256, the one of ES256")]
    NotP256,
    /// A key of any other kind.
    #[error("the key is none of RSA (2048 to 4096 bits), EC on P-256 (uncompressed) and Ed25519")]
    Unsupported,
}

/// The keys that verify tokens, each for one algorithm: a secret for HS256; public keys for RS256, ES256 and `EdDSA`.
/// During a key rotation there may be several of a kind.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

/// A key that verifies tokens.
#[derive(Debug, Clone)]
pub struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// The `kid` that the issuer assigned. A key without one verifies tokens with any `kid`.
    pub(super) id: Option<String>,
    /// The fingerprint, if it is from a JWKS, from which it may be withdrawn.
    pub(super) fingerprint: Option<KeyFingerprint>,
}

impl Keys {
    /// Creates a key for HS256 from a secret of at least 32 bytes.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self(vec![Key {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
            id: None,
            fingerprint: None,
        }]))
    }

    /// Parses one public key in PEM: `PUBLIC KEY` of any kind, or `RSA PUBLIC KEY`. Its kind determines the algorithm.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::NotPem)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        let mut labels = text.split("-----BEGIN ").skip(1).filter_map(|block| block.split_once("-----")).map(|b| b.0);
        let label = labels.next().ok_or(KeyError::NotPem)?;
        if labels.next().is_some() {
            return Err(KeyError::SeveralBlocks);
        }
        let key = match label {
            "RSA PUBLIC KEY" => DecodingKey::from_rsa_pem(pem),
            "PUBLIC KEY" => DecodingKey::from_ed_pem(pem)
                .or_else(|_| DecodingKey::from_ec_pem(pem))
                .or_else(|_| DecodingKey::from_rsa_pem(pem)),
            _ => return Err(KeyError::NotPem),
        };
        let key = key.map_err(|_| KeyError::Unsupported)?;
        let algorithm = algorithm_of(&key)?;
        Ok(Self(vec![Key { algorithm, key, id: None, fingerprint: None }]))
    }

    /// Returns the union with `other`: a token signed with any of the keys is valid.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Creates the keys of a JWKS.
    pub(super) fn from_keys(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// Iterates over the keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// Returns the algorithms as text for people.
    pub fn algorithms(&self) -> String {
        let mut names: Vec<_> = self.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        names.sort();
        names.dedup();
        names.join(", ")
    }

    /// Returns whether a key has this `kid`.
    pub(super) fn has(&self, id: &str) -> bool {
        self.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Returns whether a key has this fingerprint.
    pub(super) fn has_key(&self, fingerprint: KeyFingerprint) -> bool {
        self.iter().any(|key| key.fingerprint == Some(fingerprint))
    }

    /// Returns the keys for `algorithm` that may have signed a token with the `kid` `id`.
    pub(super) fn of(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.iter().filter(move |key| {
            let is_named = |named: &str| key.id.as_deref().is_none_or(|id| id == named);
            key.algorithm == algorithm && id.is_none_or(is_named)
        })
    }
}

impl Key {
    /// Returns whether `signature` (base64url) is a signature of `signed` by this key.
    pub(super) fn has_signed(&self, signed: &str, signature: &str) -> Result<bool, TokenError> {
        // The key was validated when it was loaded. Only the signature's last character can fail here: its unused bits
        // must be 0.
        crypto::verify(signature, signed.as_bytes(), &self.key, self.algorithm).map_err(|_| TokenError::BadSignature)
    }
}

/// Validates a secret for signing and verifying.
pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    const PEM: &[u8] = b"-----BEGIN ";
    if secret.windows(PEM.len()).any(|window| window == PEM) {
        return Err(KeyError::PemAsSecret);
    }
    if secret.len() < MIN_SECRET_BYTES { Err(KeyError::ShortSecret(secret.len())) } else { Ok(()) }
}

/// Validates a public key and returns its algorithm.
pub(super) fn algorithm_of(key: &DecodingKey) -> Result<Algorithm, KeyError> {
    let jwk = Jwk::from_decoding_key(key, None).map_err(|_| KeyError::Unsupported)?;
    let algorithm = match jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => match bits(&rsa.n) {
            bits if bits < MIN_RSA_BITS => return Err(KeyError::ShortRsa(bits)),
            _ => Algorithm::RS256,
        },
        AlgorithmParameters::EllipticCurve(ec) if ec.curve != EllipticCurve::P256 => return Err(KeyError::NotP256),
        AlgorithmParameters::EllipticCurve(_) => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
        _ => return Err(KeyError::Unsupported),
    };
    // Until here, only the length of a point identifies its curve. Using the key shows whether the point is on the
    // curve.
    match crypto::verify("", b"", key, algorithm) {
        Ok(_) => Ok(algorithm),
        Err(_) if algorithm == Algorithm::ES256 => Err(KeyError::NotP256),
        Err(_) => Err(KeyError::Unsupported),
    }
}

/// Returns the number of bits of a big-endian number in base64url.
fn bits(number: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(number).unwrap_or_default();
    let mut significant = bytes.iter().skip_while(|byte| **byte == 0);
    let Some(first) = significant.next() else { return 0 };
    let rest = significant.count();
    rest * 8 + (u8::BITS - first.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn algorithm(pem: &[u8]) -> Result<Algorithm, KeyError> {
        Keys::from_pem(pem).map(|keys| keys.0[0].algorithm)
    }

    macro_rules! pem {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/keys/", $name, ".pem")).as_slice()
        };
    }

    #[test]
    fn the_key_determines_the_algorithm() {
        assert_eq!(algorithm(pem!("rsa.pub")), Ok(Algorithm::RS256));
        assert_eq!(algorithm(pem!("rsa.pkcs1.pub")), Ok(Algorithm::RS256));
        assert_eq!(algorithm(pem!("p256.pub")), Ok(Algorithm::ES256));
        assert_eq!(algorithm(pem!("ed25519.pub")), Ok(Algorithm::EdDSA));
        let crlf = String::from_utf8_lossy(pem!("p256.pub")).replace('\n', "\r\n");
        assert_eq!(algorithm(crlf.as_bytes()), Ok(Algorithm::ES256));
    }

    #[test]
    fn any_other_key_is_rejected_with_the_reason() {
        for private in [pem!("rsa"), pem!("p256"), pem!("ed25519")] {
            assert_eq!(algorithm(private), Err(KeyError::PrivateKey));
        }
        assert_eq!(algorithm(pem!("rsa1024.pub")), Err(KeyError::ShortRsa(1024)));
        assert_eq!(algorithm(pem!("rsa5120.pub")), Err(KeyError::Unsupported));
        assert_eq!(algorithm(pem!("p384.pub")), Err(KeyError::NotP256));
        assert_eq!(algorithm(pem!("secp256k1.pub")), Err(KeyError::NotP256));
        assert_eq!(algorithm(pem!("ed448.pub")), Err(KeyError::Unsupported));
        let two = [pem!("p256.pub"), pem!("rsa.pub")].concat();
        assert_eq!(algorithm(&two), Err(KeyError::SeveralBlocks));
        assert_eq!(algorithm(b""), Err(KeyError::NotPem));
        assert_eq!(algorithm(b"\xff\xfe"), Err(KeyError::NotPem));
        assert_eq!(algorithm(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Err(KeyError::NotPem));
        assert_eq!(algorithm(b"-----BEGIN PUBLIC KEY-----\n"), Err(KeyError::Unsupported));
    }

    #[test]
    fn a_corrupt_key_is_rejected_without_a_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        for pem in [pem!("rsa.pub"), pem!("p256.pub"), pem!("ed25519.pub")] {
            for _ in 0..2_000 {
                let mut damaged = pem.to_vec();
                // Mostly in the first bytes of the DER, which describe its structure.
                let at = 27 + random.usize(..36);
                damaged[at] = random.alphanumeric() as u8;
                let _ = Keys::from_pem(&damaged);
                damaged.truncate(random.usize(..damaged.len()));
                let _ = Keys::from_pem(&damaged);
            }
        }
    }

    #[test]
    fn a_short_secret_or_a_public_key_is_rejected_as_a_secret() {
        assert_eq!(Keys::from_secret(&[7; 31]).err(), Some(KeyError::ShortSecret(31)));
        assert!(Keys::from_secret(&[7; 32]).is_ok());
        assert_eq!(Keys::from_secret(pem!("rsa.pub")).err(), Some(KeyError::PemAsSecret));
    }

    #[test]
    fn a_key_is_not_in_its_debug_output() {
        let keys = Keys::from_secret(b"correct horse battery staple, and so on").unwrap();
        let debug = format!("{keys:?}");
        assert!(debug.contains("redacted") && !debug.contains("99, 111, 114"), "{debug}");
    }
}
