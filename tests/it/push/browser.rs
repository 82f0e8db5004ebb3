//! A Web Push receiver that implements the RFCs independently: with ring, where the server uses other crates.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use web_push_native::p256::ecdh::diffie_hellman;
use web_push_native::p256::{PublicKey, SecretKey};

use crate::support::{Received, Receiver, User};

/// A browser with a subscription at a receiver.
pub(super) struct Browser {
    /// The path of the endpoint.
    pub(super) path: String,
    /// The URL of the endpoint.
    pub(super) endpoint: String,
    origin: String,
    key: SecretKey,
    auth: Vec<u8>,
}

/// The length of the derived key.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF (RFC 5869).
fn hkdf(salt: &[u8], key: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let mut derived = vec![0; length];
    let prk = Salt::new(HKDF_SHA256, salt).extract(key);
    prk.expand(&[info], Bytes(length)).unwrap().fill(&mut derived).unwrap();
    derived
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

impl Browser {
    /// A browser whose endpoint has this path.
    pub(super) fn new(receiver: &Receiver, path: &str) -> Self {
        let random = || [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat();
        Self {
            path: path.to_owned(),
            endpoint: format!("{}{path}", receiver.base),
            origin: receiver.base.clone(),
            key: SecretKey::from_slice(&random()).unwrap(),
            auth: random()[..16].to_vec(),
        }
    }

    /// A browser that is registered for a user.
    pub(super) async fn registered(receiver: &Receiver, path: &str, user: &User) -> Self {
        let browser = Self::new(receiver, path);
        browser.register(user).await;
        browser
    }

    /// Returns `PushSubscription.toJSON()`.
    pub(super) fn subscription(&self) -> Value {
        let keys = json!({
            "p256dh": URL_SAFE_NO_PAD.encode(self.key.public_key().to_sec1_bytes()),
            "auth": URL_SAFE_NO_PAD.encode(&self.auth),
        });
        json!({ "endpoint": self.endpoint, "expirationTime": null, "keys": keys })
    }

    /// Registers the subscription for a user.
    pub(super) async fn register(&self, user: &User) {
        user.put("push-subscriptions", self.subscription()).await.expect(204);
    }

    /// Decrypts a push (RFC 8291, section 3; RFC 8188, section 2).
    pub(super) fn read(&self, push: &Received) -> Value {
        assert_eq!(push.header("content-encoding"), "aes128gcm");
        let (salt, rest) = push.bytes.split_at(16);
        let (size, rest) = rest.split_at(4);
        let (length, rest) = rest.split_at(1);
        let (sender, record) = rest.split_at(length[0].into());
        assert!(u32::from_be_bytes(size.try_into().unwrap()) as usize >= record.len(), "one record");
        let secret =
            diffie_hellman(self.key.to_nonzero_scalar(), PublicKey::from_sec1_bytes(sender).unwrap().as_affine());
        let own = self.key.public_key().to_sec1_bytes();
        let info = [b"WebPush: info\0", &own[..], sender].concat();
        let key = hkdf(&self.auth, secret.raw_secret_bytes(), &info, 32);
        let content_key = hkdf(salt, &key, b"Content-Encoding: aes128gcm\0", 16);
        let nonce = hkdf(salt, &key, b"Content-Encoding: nonce\0", 12);
        let mut record = record.to_vec();
        let opening = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &content_key).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        let plain =
            opening.open_in_place(nonce, Aad::empty(), &mut record).expect("the push is encrypted for this browser");
        let end = plain.iter().rposition(|byte| *byte != 0).unwrap();
        assert_eq!(plain[end], 2, "the last record");
        serde_json::from_slice(&plain[..end]).unwrap()
    }

    /// Verifies the sender of a push (RFC 8292) and returns the claims.
    pub(super) fn verify(&self, push: &Received, public_key: &str) -> Value {
        let credentials = push.header("authorization").strip_prefix("vapid t=").unwrap();
        let (token, key) = credentials.split_once(", k=").unwrap();
        assert_eq!(key, public_key);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        assert_eq!(header, json!({ "typ": "JWT", "alg": "ES256" }));
        let verifying = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode(key));
        verifying.verify(signed.as_bytes(), &decode(signature)).expect("the signature is valid");
        let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
        assert_eq!(claims["aud"], self.origin);
        let left = claims["exp"].as_i64().unwrap() - ridewire::domain::Time::now().as_unix_seconds();
        assert!((0..=86_400).contains(&left), "{left}");
        claims
    }
}
