//! The content of a push, and its encryption for the browser.
//!
//! A push contains no message content, because a deletion or an erasure could not remove it from the browser's notification.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use web_push_native::Auth;
use web_push_native::p256::PublicKey;

use crate::domain::MessageId;

/// The size of every plaintext in bytes. A fixed size discloses nothing about the content.
const PLAINTEXT_BYTES: usize = 256;

/// The size of a topic in bytes; 32 characters in base64url (RFC 8030, section 5.4).
const TOPIC_BYTES: usize = 24;

/// Returns the content of a push: JSON, padded with spaces.
pub(super) fn plaintext(ride: &str, message: MessageId, unread: i64) -> Vec<u8> {
    // No escaping needed: ids have no characters that JSON escapes.
    let text =
        format!(r#"{{"type":"message:undelivered","rideId":"{ride}","messageId":"{message}","unreadCount":{unread}}}"#);
    // JSON allows trailing spaces.
    format!("{text:<PLAINTEXT_BYTES$}").into_bytes()
}

/// Encrypts a push for its browser (RFC 8291). Returns `None` if the subscription's keys are invalid.
pub(super) fn encrypt(plaintext: Vec<u8>, p256dh: &[u8], auth: &[u8]) -> Option<Vec<u8>> {
    let key = PublicKey::from_sec1_bytes(p256dh).ok()?;
    let auth = <[u8; super::AUTH_BYTES]>::try_from(auth).ok()?;
    web_push_native::encrypt(plaintext, &key, &Auth::from(auth)).ok()
}

/// Returns the `Topic` of a ride's pushes. A push service replaces a pending push by a newer one with the same topic.
///
/// The topic is a keyed hash with the subscription's secret, which only the server and the browser have. So a push service
/// learns neither the ride's id, nor that two users share a ride.
pub(super) fn topic(auth: &[u8], ride: &str) -> String {
    // Cannot fail: HMAC accepts keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(auth) else { return String::new() };
    mac.update(b"topic:");
    mac.update(ride.as_bytes());
    let digest: Vec<u8> = mac.finalize().into_bytes().into_iter().take(TOPIC_BYTES).collect();
    URL_SAFE_NO_PAD.encode(digest)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use web_push_native::decrypt;
    use web_push_native::p256::SecretKey;

    use super::*;

    fn decode(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    // The user agent of RFC 8291, section 5.
    const PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    const PUBLIC: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn open(body: Vec<u8>) -> Option<Vec<u8>> {
        let auth = <[u8; 16]>::try_from(decode(AUTH)).unwrap();
        decrypt(body, &SecretKey::from_slice(&decode(PRIVATE)).unwrap(), &Auth::from(auth)).ok()
    }

    #[test]
    fn decrypts_the_example_of_rfc_8291() {
        let body = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml\
            mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT\
            pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(open(decode(body)).unwrap(), b"When I grow up, I want to be a watermelon");
        let public = SecretKey::from_slice(&decode(PRIVATE)).unwrap().public_key().to_sec1_bytes();
        assert_eq!(*public, *decode(PUBLIC));
    }

    #[test]
    fn only_its_browser_decrypts_a_push_and_its_size_is_fixed() {
        let message = MessageId(Uuid::now_v7());
        let long = plaintext(&"x".repeat(64), message, i64::MAX);
        let plain = plaintext("ride_1", message, 3);
        assert_eq!((plain.len(), long.len()), (PLAINTEXT_BYTES, PLAINTEXT_BYTES));
        let decoded: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(
            decoded,
            serde_json::json!({ "type": "message:undelivered", "rideId": "ride_1", "messageId": message, "unreadCount": 3 })
        );
        let (one, two) = (
            encrypt(plain.clone(), &decode(PUBLIC), &decode(AUTH)).unwrap(),
            encrypt(plain.clone(), &decode(PUBLIC), &decode(AUTH)).unwrap(),
        );
        assert_ne!(one, two, "a key and a salt of its own");
        assert_eq!((open(one.clone()), open(two)), (Some(plain.clone()), Some(plain)));
        let mut forged = one;
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(open(forged), None);
        assert_eq!(encrypt(Vec::new(), &decode(PUBLIC)[1..], &decode(AUTH)), None);
        assert_eq!(encrypt(Vec::new(), &decode(PUBLIC), &[0; 15]), None);
    }

    #[test]
    fn a_topic_depends_on_ride_and_subscription() {
        let of = |auth: u8, ride: &str| topic(&[auth; 16], ride);
        assert_eq!(of(1, "ride_1"), of(1, "ride_1"));
        assert_ne!(of(1, "ride_1"), of(1, "ride_2"));
        assert_ne!(of(1, "ride_1"), of(2, "ride_1"));
        assert_eq!(of(1, "ride_1").len(), 32);
    }
}
