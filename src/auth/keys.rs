//! The keys that tokens are verified with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use super::TokenError;
use crate::domain::KeyPrint;

/// As long as the hash: what RFC 7518, section 3.2, asks of HS256.
const MIN_SECRET_BYTES: usize = 32;
/// What RFC 7518, section 3.3, asks of RS256.
const MIN_RSA_BITS: usize = 2048;

/// Why a key cannot be used, in words for whoever configures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that could be guessed.
    #[error("the secret has {0} bytes, and HS256 needs at least {MIN_SECRET_BYTES}: `openssl rand -hex 32` makes one")]
    ShortSecret(usize),
    /// A PEM text given as the secret: everybody may know a public key, so everybody could sign with it.
    #[error("the secret is a PEM text; configure a public key as the public key, not as the secret")]
    PemAsSecret,
    /// Not PEM, or PEM of nothing that can be read.
    #[error("the public key is not PEM text; give one with `-----BEGIN PUBLIC KEY-----`")]
    NotPem,
    /// Several blocks in one text. One of them would be ignored in silence.
    #[error("the PEM text holds more than one block; give one public key, or several as a JWKS")]
    SeveralBlocks,
    /// A private key, which has no business here.
    #[error("this is a private key; the public one is expected (`openssl pkey -pubout` makes it)")]
    PrivateKey,
    /// An RSA key that is too short.
    #[error("the RSA key has {0} bits, and RS256 needs at least {MIN_RSA_BITS}")]
    ShortRsa(usize),
    /// An EC key on another curve.
    #[error("the EC key is not on the curve P-256, the one of ES256")]
    NotP256,
    /// A key of any other kind.
    #[error("the key is none of RSA (2048 to 4096 bits), EC on P-256 (uncompressed) and Ed25519")]
    Unsupported,
}

/// Keys that tokens may be signed with, each for one algorithm: a secret for HS256; public keys for RS256,
/// ES256 and `EdDSA`. Several of a kind may be there, as while keys are replaced.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

/// One of them.
#[derive(Debug, Clone)]
pub struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// The `kid` that its issuer gave it; one without verifies tokens of any.
    pub(super) id: Option<String>,
    /// Names it, where it is one of a set, from which it may be withdrawn.
    pub(super) print: Option<KeyPrint>,
}

impl Keys {
    /// A secret of at least 32 bytes, for HS256.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self(vec![Key {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
            id: None,
            print: None,
        }]))
    }

    /// One public key in PEM: `PUBLIC KEY` of any kind, or `RSA PUBLIC KEY`. What it is decides the algorithm.
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
        let algorithm = judge(&key)?;
        Ok(Self(vec![Key { algorithm, key, id: None, print: None }]))
    }

    /// These keys and `other`s: a token signed with any of them is good.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Those of a set.
    pub(super) fn of_set(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// The algorithms that they are for, for people.
    pub fn algorithms(&self) -> String {
        let mut names: Vec<_> = self.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        names.sort();
        names.dedup();
        names.join(", ")
    }

    /// Whether one of them is called so.
    pub(super) fn has(&self, id: &str) -> bool {
        self.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Whether this very key is among them.
    pub(super) fn has_key(&self, print: KeyPrint) -> bool {
        self.iter().any(|key| key.print == Some(print))
    }

    /// Those for `algorithm` that may have signed a token that names `id`.
    pub(super) fn of(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.iter().filter(move |key| {
            let is_named = |named: &str| key.id.as_deref().is_none_or(|id| id == named);
            key.algorithm == algorithm && id.is_none_or(is_named)
        })
    }
}

impl Key {
    /// Whether `signature`, as base64url, is over `signed` by this key.
    pub(super) fn has_signed(&self, signed: &str, signature: &str) -> Result<bool, TokenError> {
        // The key was judged when it was taken in: what can fail here is the signature's last character, of which some bits
        // are unused and must be 0.
        crypto::verify(signature, signed.as_bytes(), &self.key, self.algorithm).map_err(|_| TokenError::BadSignature)
    }
}

/// Whether `secret` may sign and verify.
pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    const PEM: &[u8] = b"-----BEGIN ";
    if secret.windows(PEM.len()).any(|window| window == PEM) {
        return Err(KeyError::PemAsSecret);
    }
    if secret.len() < MIN_SECRET_BYTES { Err(KeyError::ShortSecret(secret.len())) } else { Ok(()) }
}

/// The one algorithm of a public key.
pub(super) fn judge(key: &DecodingKey) -> Result<Algorithm, KeyError> {
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
    // So far a curve was told by the length of its points. Using the key shows whether the point is on it.
    match crypto::verify("", b"", key, algorithm) {
        Ok(_) => Ok(algorithm),
        Err(_) if algorithm == Algorithm::ES256 => Err(KeyError::NotP256),
        Err(_) => Err(KeyError::Unsupported),
    }
}

/// How many bits a number in big-endian base64url has.
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
    fn the_key_decides_the_algorithm() {
        assert_eq!(algorithm(pem!("rsa.pub")), Ok(Algorithm::RS256));
        assert_eq!(algorithm(pem!("rsa.pkcs1.pub")), Ok(Algorithm::RS256));
        assert_eq!(algorithm(pem!("p256.pub")), Ok(Algorithm::ES256));
        assert_eq!(algorithm(pem!("ed25519.pub")), Ok(Algorithm::EdDSA));
        let crlf = String::from_utf8_lossy(pem!("p256.pub")).replace('\n', "\r\n");
        assert_eq!(algorithm(crlf.as_bytes()), Ok(Algorithm::ES256));
    }

    #[test]
    fn any_other_key_is_refused_and_the_reason_said() {
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
    fn a_damaged_key_is_refused_without_a_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        for pem in [pem!("rsa.pub"), pem!("p256.pub"), pem!("ed25519.pub")] {
            for _ in 0..2_000 {
                let mut damaged = pem.to_vec();
                // Mostly in the first bytes of the DER, where its structure is.
                let at = 27 + random.usize(..36);
                damaged[at] = random.alphanumeric() as u8;
                let _ = Keys::from_pem(&damaged);
                damaged.truncate(random.usize(..damaged.len()));
                let _ = Keys::from_pem(&damaged);
            }
        }
    }

    #[test]
    fn a_secret_is_long_enough_and_no_public_key() {
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
