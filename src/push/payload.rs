//! What a push says, and how it is encrypted for its browser.
//!
//! It has no content of a message: a deletion or an erasure could not take it back from the browser's notification.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use web_push_native::Auth;
use web_push_native::p256::PublicKey;

use crate::domain::MessageId;

/// The bytes of every plaintext, so that its length says nothing of what is in it.
const BYTES: usize = 256;

/// The bytes of a topic, which has 32 characters then (RFC 8030, section 5.4).
const TOPIC_BYTES: usize = 24;

/// What a push says: JSON.
pub(super) fn plaintext(ride: &str, message: MessageId, unread: i64) -> Vec<u8> {
    // No escaping: the characters of ids are all plain.
    let text =
        format!(r#"{{"type":"message:undelivered","rideId":"{ride}","messageId":"{message}","unreadCount":{unread}}}"#);
    // Spaces after it are JSON as well.
    format!("{text:<BYTES$}").into_bytes()
}

/// Encrypts a push for its browser (RFC 8291); `None` where its keys cannot be used.
pub(super) fn encrypt(plaintext: Vec<u8>, p256dh: &[u8], auth: &[u8]) -> Option<Vec<u8>> {
    let key = PublicKey::from_sec1_bytes(p256dh).ok()?;
    let auth = <[u8; super::AUTH_BYTES]>::try_from(auth).ok()?;
    web_push_native::encrypt(plaintext, &key, &Auth::from(auth)).ok()
}

/// The `Topic` of a ride's pushes, by which a push service replaces one that waits by the next. It is a keyed hash with the secret that
/// only the browser has besides: a push service learns neither the ride, nor that two users have one in common.
pub(super) fn topic(auth: &[u8], ride: &str) -> String {
    // A key of HMAC may have any length, so this always is one.
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
    fn the_example_of_rfc_8291_is_what_it_says() {
        let body = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml\
            mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT\
            pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(open(decode(body)).unwrap(), b"When I grow up, I want to be a watermelon");
        let public = SecretKey::from_slice(&decode(PRIVATE)).unwrap().public_key().to_sec1_bytes();
        assert_eq!(*public, *decode(PUBLIC));
    }

    #[test]
    fn a_push_is_read_by_its_browser_alone_and_always_as_long() {
        let message = MessageId(Uuid::now_v7());
        let long = plaintext(&"x".repeat(64), message, i64::MAX);
        let plain = plaintext("ride_1", message, 3);
        assert_eq!((plain.len(), long.len()), (BYTES, BYTES));
        let said: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(
            said,
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
    fn a_topic_is_of_one_ride_and_one_subscription() {
        let of = |auth: u8, ride: &str| topic(&[auth; 16], ride);
        assert_eq!(of(1, "ride_1"), of(1, "ride_1"));
        assert_ne!(of(1, "ride_1"), of(1, "ride_2"));
        assert_ne!(of(1, "ride_1"), of(2, "ride_1"));
        assert_eq!(of(1, "ride_1").len(), 32);
    }
}
