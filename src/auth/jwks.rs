//! Parsing of a JSON Web Key Set (RFC 7517, section 5).

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::keys::{Key, KeyError, Keys, algorithm_of};
use crate::domain::KeyFingerprint;

/// The maximum number of keys. No issuer uses so many. A token without a `kid` is verified with each of them in turn.
const MAX_KEYS: usize = 100;

/// Why a key set cannot be used. The messages are for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is not a key set.
    #[error("it is not a JSON Web Key Set: an object with an array `keys`")]
    NotASet,
    /// It has too many keys.
    #[error("the key set has {0} keys, but at most {MAX_KEYS} are accepted")]
    TooMany(usize),
    /// None of its keys can verify tokens.
    #[error("none of its keys can be used: {0}")]
    NoKey(String),
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

impl Keys {
    /// Parses the keys of a set that can verify tokens. The kind of a key determines its algorithm. Other keys are
    /// ignored, as RFC 7517 requires: encryption keys, other kinds and algorithms, and symmetric keys, which are not
    /// secret once published.
    pub fn from_jwks(text: &[u8]) -> Result<Self, JwksError> {
        let JwkSet { keys } = serde_json::from_slice(text).map_err(|_| JwksError::NotASet)?;
        if keys.len() > MAX_KEYS {
            return Err(JwksError::TooMany(keys.len()));
        }
        let mut usable = Vec::new();
        let mut reasons = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            match usable_key(key) {
                Ok(key) => usable.push(key),
                Err(reason) => reasons.push(format!("{}. {reason}", index + 1)),
            }
        }
        if usable.is_empty() {
            let reasons = if reasons.is_empty() { "there are none".to_owned() } else { reasons.join("; ") };
            return Err(JwksError::NoKey(reasons));
        }
        Ok(Self::from_keys(usable))
    }
}

/// Returns the fingerprint of a key's parameters, so that another key with the same `kid` is distinguished.
fn fingerprint(key: &AlgorithmParameters) -> Result<KeyFingerprint, String> {
    let text = serde_json::to_vec(key).map_err(|error| error.to_string())?;
    let digest = Sha256::digest(text);
    Ok(digest.iter().take(8).fold(0, |bits, byte| bits << 8 | KeyFingerprint::from(*byte)))
}

fn usable_key(key: Value) -> Result<Key, String> {
    let key: Jwk = serde_json::from_value(key).map_err(|_| KeyError::Unsupported.to_string())?;
    if matches!(key.algorithm, AlgorithmParameters::OctetKey(_)) {
        return Err("a symmetric key, which is not secret once it is published".to_owned());
    }
    if key.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return Err("it is not for signatures (`use`)".to_owned());
    }
    if key.common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return Err("it is not for verifying (`key_ops`)".to_owned());
    }
    let decoding = DecodingKey::from_jwk(&key).map_err(|_| KeyError::Unsupported.to_string())?;
    let algorithm = algorithm_of(&decoding).map_err(|error| error.to_string())?;
    let declared = key.common.key_algorithm.map(|named| named.to_string());
    if declared.is_some_and(|named| named != format!("{algorithm:?}")) {
        return Err(format!("its `alg` is not {algorithm:?}, the one that its kind is used for here"));
    }
    let fingerprint = fingerprint(&key.algorithm)?;
    Ok(Key { algorithm, key: decoding, id: key.common.key_id, fingerprint: Some(fingerprint) })
}

#[cfg(test)]
pub(super) mod tests {
    use jsonwebtoken::Algorithm;
    use serde_json::json;

    use super::*;

    const RSA: &[u8] = include_bytes!("../../tests/keys/rsa.pub.pem");
    const RSA_SHORT: &[u8] = include_bytes!("../../tests/keys/rsa1024.pub.pem");
    const P256: &[u8] = include_bytes!("../../tests/keys/p256.pub.pem");
    const P384: &[u8] = include_bytes!("../../tests/keys/p384.pub.pem");
    const ED25519: &[u8] = include_bytes!("../../tests/keys/ed25519.pub.pem");

    /// Returns a public key as a JWK, with further members.
    pub(crate) fn jwk(pem: &[u8], members: Value) -> Value {
        let key = DecodingKey::from_ed_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_rsa_pem(pem))
            .unwrap();
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&key, None).unwrap()).unwrap();
        jwk.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        jwk
    }

    fn set(keys: &[Value]) -> Result<Vec<(Option<String>, Algorithm)>, JwksError> {
        let keys = Keys::from_jwks(json!({ "keys": keys }).to_string().as_bytes())?;
        Ok(keys.iter().map(|key| (key.id.clone(), key.algorithm)).collect())
    }

    #[test]
    fn the_kind_of_a_key_determines_its_algorithm() {
        let keys = [
            jwk(RSA, json!({"kid": "r", "alg": "RS256", "use": "sig"})),
            jwk(P256, json!({"kid": "e", "key_ops": ["verify"]})),
            jwk(ED25519, json!({"alg": "EdDSA"})),
        ];
        let expected = [
            (Some("r".to_owned()), Algorithm::RS256),
            (Some("e".to_owned()), Algorithm::ES256),
            (None, Algorithm::EdDSA),
        ];
        assert_eq!(set(&keys).unwrap(), expected);
    }

    #[test]
    fn unsuitable_keys_are_ignored() {
        let good = jwk(P256, json!({"kid": "good"}));
        let others = [
            jwk(RSA, json!({"use": "enc"})),
            jwk(RSA, json!({"key_ops": ["encrypt"]})),
            jwk(RSA, json!({"alg": "RS512"})),
            jwk(RSA, json!({"alg": "PS256"})),
            jwk(RSA_SHORT, json!({})),
            jwk(P384, json!({})),
            json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}),
            json!({"kty": "future"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}),
            json!({}),
            json!("key"),
        ];
        for other in others {
            assert_eq!(
                set(&[other.clone(), good.clone()]).unwrap(),
                [(Some("good".into()), Algorithm::ES256)],
                "{other}"
            );
            assert!(matches!(set(std::slice::from_ref(&other)), Err(JwksError::NoKey(_))), "{other}");
        }
    }

    #[test]
    fn an_invalid_or_too_large_set_is_rejected() {
        for text in ["", "[]", "{}", "null", r#"{"keys": {}}"#, "<html>"] {
            assert_eq!(Keys::from_jwks(text.as_bytes()).err(), Some(JwksError::NotASet), "{text}");
        }
        assert!(matches!(set(&[]), Err(JwksError::NoKey(_))));
        assert_eq!(set(&vec![jwk(ED25519, json!({})); 101]), Err(JwksError::TooMany(101)));
    }
}
