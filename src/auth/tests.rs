//! Tests of accepted and rejected tokens, through the API that requests use.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::*;
use crate::domain::{Role, Time, UserId};

const SECRET: &[u8] = b"a secret for the tests, of 32 bytes and more";
const RSA: &[u8] = include_bytes!("../../tests/keys/rsa.pem");
const RSA_PUB: &[u8] = include_bytes!("../../tests/keys/rsa.pub.pem");
const P256: &[u8] = include_bytes!("../../tests/keys/p256.pem");
const P256_PUB: &[u8] = include_bytes!("../../tests/keys/p256.pub.pem");
const ED25519: &[u8] = include_bytes!("../../tests/keys/ed25519.pem");
const ED25519_PUB: &[u8] = include_bytes!("../../tests/keys/ed25519.pub.pem");

const NOW: i64 = 1_800_000_000;

static HMAC: LazyLock<EncodingKey> = LazyLock::new(|| EncodingKey::from_secret(SECRET));

fn at(seconds: i64) -> Time {
    Time::from_unix_seconds(seconds).unwrap()
}

fn secret() -> Keys {
    Keys::from_secret(SECRET).unwrap()
}

fn pem(pem: &[u8]) -> Keys {
    Keys::from_pem(pem).unwrap()
}

fn all_keys() -> Keys {
    secret().and(pem(RSA_PUB)).and(pem(P256_PUB)).and(pem(ED25519_PUB))
}

fn verify(keys: Keys, token: &str) -> Result<crate::domain::Caller, TokenError> {
    Verifier::new(keys, ClaimValidation::default()).verify_at(token, at(NOW))
}

fn claims() -> Value {
    json!({"sub": "user_1", "role": "rider", "exp": NOW + 600})
}

/// Returns a validly signed token with any header and payload.
fn sign_raw(header: &str, payload: &[u8], key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn sign(claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let header = json!({"typ": "JWT", "alg": algorithm});
    sign_raw(&header.to_string(), claims.to_string().as_bytes(), key, algorithm)
}

/// Verifies claims that differ from valid ones in `changes`; null removes a claim.
fn with(validation: &ClaimValidation, changes: Value) -> Result<crate::domain::Caller, TokenError> {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    Verifier::new(secret(), validation.clone()).verify_at(&sign(&claims, &HMAC, Algorithm::HS256), at(NOW))
}

fn payload(text: &[u8]) -> Result<crate::domain::Caller, TokenError> {
    verify(secret(), &sign_raw(r#"{"alg":"HS256"}"#, text, &HMAC, Algorithm::HS256))
}

fn is_bad_claims<T: std::fmt::Debug>(outcome: &Result<T, TokenError>, claim: &str) -> bool {
    matches!(outcome, Err(TokenError::BadClaims(detail)) if detail.contains(claim))
}

#[test]
fn each_kind_of_key_verifies_its_own_tokens() {
    let rsa = EncodingKey::from_rsa_pem(RSA).unwrap();
    let p256 = EncodingKey::from_ec_pem(P256).unwrap();
    let ed25519 = EncodingKey::from_ed_pem(ED25519).unwrap();
    let kinds = [
        (secret(), &*HMAC, Algorithm::HS256),
        (pem(RSA_PUB), &rsa, Algorithm::RS256),
        (pem(P256_PUB), &p256, Algorithm::ES256),
        (pem(ED25519_PUB), &ed25519, Algorithm::EdDSA),
    ];
    for (i, (_, key, algorithm)) in kinds.iter().enumerate() {
        let token = sign(&claims(), key, *algorithm);
        let caller = verify(all_keys(), &token).unwrap();
        assert_eq!((caller.user.as_str(), caller.role), ("user_1", Role::Rider));
        assert_eq!((caller.issued_at, caller.expires_at), (None, at(NOW + 600)));
        for (j, (keys, ..)) in kinds.iter().enumerate() {
            let expected = if i == j { Ok(caller.clone()) } else { Err(TokenError::UnsupportedAlgorithm) };
            assert_eq!(verify(keys.clone(), &token), expected, "{algorithm:?}");
        }
    }
}

#[test]
fn either_of_two_keys_of_a_kind_verifies_a_token() {
    let another = Keys::from_secret(&[7; 32]).unwrap();
    let token = sign(&claims(), &HMAC, Algorithm::HS256);
    assert!(verify(another.clone().and(secret()), &token).is_ok());
    assert_eq!(verify(another, &token), Err(TokenError::BadSignature));
}

#[test]
fn a_public_key_is_rejected_as_an_hmac_secret() {
    for public in [RSA_PUB, P256_PUB, ED25519_PUB] {
        let token = sign(&claims(), &EncodingKey::from_secret(public), Algorithm::HS256);
        assert_eq!(verify(pem(public), &token), Err(TokenError::UnsupportedAlgorithm));
        assert_eq!(verify(pem(public).and(secret()), &token), Err(TokenError::BadSignature));
        assert_eq!(Keys::from_secret(public).err(), Some(KeyError::PemAsSecret));
        assert_eq!(Signer::new(public).err(), Some(KeyError::PemAsSecret));
    }
}

#[test]
fn other_algorithms_are_rejected_even_with_the_right_key() {
    let rsa = EncodingKey::from_rsa_pem(RSA).unwrap();
    use Algorithm::*;
    for algorithm in [HS384, HS512] {
        assert_eq!(verify(all_keys(), &sign(&claims(), &HMAC, algorithm)), Err(TokenError::UnsupportedAlgorithm));
    }
    for algorithm in [RS384, RS512, PS256, PS384, PS512] {
        assert_eq!(verify(all_keys(), &sign(&claims(), &rsa, algorithm)), Err(TokenError::UnsupportedAlgorithm));
    }
    for name in ["none", "None", "NONE", "", "hs256", "HS256 ", "ES256K", "RSA1_5"] {
        let header = json!({"alg": name}).to_string();
        let token = sign_raw(&header, claims().to_string().as_bytes(), &HMAC, HS256);
        assert_eq!(verify(all_keys(), &token), Err(TokenError::UnsupportedAlgorithm), "{name:?}");
        // As in RFC 7515, appendix A.5: without any signature.
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(verify(all_keys(), &unsigned), Err(TokenError::UnsupportedAlgorithm));
    }
    let unsigned = sign(&claims(), &HMAC, HS256);
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    assert_eq!(verify(all_keys(), &unsigned), Err(TokenError::BadSignature));
}

#[test]
fn the_header_must_be_an_object_without_crit_and_its_keys_are_ignored() {
    let outcome = |header: &str| {
        verify(all_keys(), &sign_raw(header, claims().to_string().as_bytes(), &HMAC, Algorithm::HS256)).map(|_| ())
    };
    assert_eq!(outcome(r#"{"alg":"HS256","kid":"any","typ":[],"cty":{},"x":1}"#), Ok(()));
    for crit in [r#"["exp"]"#, "[]", "null", "true", r#"["b64"],"b64":false"#] {
        assert_eq!(outcome(&format!(r#"{{"alg":"HS256","crit":{crit}}}"#)), Err(TokenError::CriticalHeader), "{crit}");
    }
    for bad in [
        "",
        "null",
        "7",
        r#""HS256""#,
        r#"["HS256",false]"#,
        "{}",
        r#"{"alg":7}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","kid":7}"#,
    ] {
        assert_eq!(outcome(bad), Err(TokenError::Malformed), "{bad}");
    }
    assert_eq!(outcome(r#"{"alg":"none","alg":"HS256"}"#), Err(TokenError::Malformed));

    let attacker = EncodingKey::from_secret(b"the attacker's own key, with a name that helps");
    let header = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode(attacker.as_bytes())}});
    let token = sign_raw(&header.to_string(), claims().to_string().as_bytes(), &attacker, Algorithm::HS256);
    assert_eq!(verify(all_keys(), &token), Err(TokenError::BadSignature));
}

#[test]
fn exp_is_required_and_the_token_expires_one_leeway_later() {
    let validation = ClaimValidation::default();
    let exp = |value: Value| with(&validation, json!({ "exp": value })).map(|caller| caller.expires_at);
    assert_eq!(exp(json!(NOW - 29)), Ok(at(NOW - 29)));
    assert_eq!(exp(json!(NOW - 30)), Err(TokenError::Expired));
    assert_eq!(exp(json!(0)), Err(TokenError::Expired));
    assert_eq!(exp(json!(-1)), Err(TokenError::Expired));
    for bad in [json!(null), json!("1900000000"), json!(true), json!([NOW + 600]), json!({"exp": 1})] {
        assert!(is_bad_claims(&exp(bad.clone()), "`exp`"), "{bad}");
    }
    let none = ClaimValidation { leeway: Duration::ZERO, ..ClaimValidation::default() };
    assert_eq!(with(&none, json!({"exp": NOW})), Err(TokenError::Expired));
    assert!(with(&none, json!({"exp": NOW + 1})).is_ok());
    let endless = ClaimValidation { leeway: Duration::MAX, ..ClaimValidation::default() };
    assert!(with(&endless, json!({"exp": 1, "nbf": NOW * 2})).is_ok());
}

#[test]
fn a_numeric_date_may_have_a_fraction_or_an_exponent() {
    let exp = |text: &str| {
        let claims = format!(r#"{{"sub":"u","role":"rider","exp":{text}}}"#);
        payload(claims.as_bytes()).map(|caller| caller.expires_at)
    };
    assert_eq!(exp("1.9e9"), Ok(at(1_900_000_000)));
    assert_eq!(exp("1.9E+9"), Ok(at(1_900_000_000)));
    assert_eq!(exp("1900000000.25").unwrap().to_string(), "2030-03-17T17:46:40.250Z");
    assert_eq!(exp("1.5e9"), Err(TokenError::Expired));
    assert_eq!(exp("-0.0"), Err(TokenError::Expired));
    let huge = ["1e300", "-1e300", "1e18", "253402300800", "9223372036854775807", "-9223372036854775808"];
    for text in huge.into_iter().chain(["18446744073709551615", "99999999999999999999999999"]) {
        assert!(is_bad_claims(&exp(text), "`exp`"), "{text}");
    }
    for text in ["1e999", "NaN", "Infinity", "0x7fffffff", "+1900000000", ""] {
        assert_eq!(exp(text), Err(TokenError::Malformed), "{text}");
    }
}

#[test]
fn nbf_and_iat_may_be_in_the_future_by_at_most_the_leeway() {
    let validation = ClaimValidation::default();
    for claim in ["nbf", "iat"] {
        assert!(with(&validation, json!({ claim: NOW + 30 })).is_ok());
        assert!(with(&validation, json!({ claim: NOW as f64 + 29.5 })).is_ok());
        assert_eq!(with(&validation, json!({ claim: NOW + 31 })), Err(TokenError::NotYetValid));
        assert_eq!(with(&validation, json!({ claim: NOW as f64 + 30.5 })), Err(TokenError::NotYetValid));
        for bad in [json!("soon"), json!(i64::MAX), json!(1e300), json!([]), json!(false)] {
            assert!(is_bad_claims(&with(&validation, json!({ claim: bad })), claim), "{claim}: {bad}");
        }
    }
    assert_eq!(with(&validation, json!({"iat": NOW - 5})).unwrap().issued_at, Some(at(NOW - 5)));
}

#[test]
fn iss_and_aud_are_checked_when_configured() {
    let any = ClaimValidation::default();
    assert!(with(&any, json!({"iss": "https://anyone.example", "aud": ["a", "b"]})).is_ok());
    assert!(with(&any, json!({"iss": 7, "aud": {}})).is_ok());

    let validation =
        ClaimValidation { issuer: Some("iss".into()), audience: Some("aud".into()), ..ClaimValidation::default() };
    let outcome = |iss: Value, aud: Value| with(&validation, json!({"iss": iss, "aud": aud})).map(|_| ());
    assert_eq!(outcome(json!("iss"), json!("aud")), Ok(()));
    assert_eq!(outcome(json!("iss"), json!(["other", "aud", 7])), Ok(()));
    for iss in [json!(null), json!("Iss"), json!("iss/"), json!(""), json!(["iss"]), json!(7)] {
        assert_eq!(outcome(iss.clone(), json!("aud")), Err(TokenError::WrongIssuer), "{iss}");
    }
    for aud in [json!(null), json!("Aud"), json!([]), json!(["other"]), json!([["aud"]]), json!({"aud": "aud"})] {
        assert_eq!(outcome(json!("iss"), aud.clone()), Err(TokenError::WrongAudience), "{aud}");
    }
}

#[test]
fn sub_must_be_a_user_id_and_role_one_of_four() {
    let validation = ClaimValidation::default();
    for (name, role) in
        [("rider", Role::Rider), ("driver", Role::Driver), ("support", Role::Support), ("service", Role::Service)]
    {
        assert_eq!(with(&validation, json!({ "role": name })).unwrap().role, role);
    }
    let bad_roles = [json!(null), json!("Rider"), json!("RIDER"), json!(" rider"), json!("admin"), json!("")];
    for role in bad_roles.into_iter().chain([json!(0), json!(["rider"]), json!({"rider": null})]) {
        assert!(is_bad_claims(&with(&validation, json!({ "role": role })), "`role`"), "{role}");
    }
    for sub in [json!(null), json!(""), json!("a b"), json!("é"), json!("x".repeat(65)), json!(7), json!(["u"])] {
        assert!(is_bad_claims(&with(&validation, json!({ "sub": sub })), "`sub`"), "{sub}");
    }
}

#[test]
fn the_payload_must_be_an_object_with_each_claim_once() {
    for bad in ["", "null", "[]", r#"["u","rider",1900000000,null,null,null,null]"#, "{", r#"{"sub":"u",}"#, "{} {}"] {
        assert_eq!(payload(bad.as_bytes()), Err(TokenError::Malformed), "{bad}");
    }
    let twice = br#"{"sub":"u","sub":"v","role":"rider","exp":1900000000}"#;
    assert!(is_bad_claims(&payload(twice), "twice"));
    assert!(payload(br#"{"sub":"u","x":1,"x":2,"role":"rider","exp":1900000000}"#).is_ok());
    assert_eq!(payload(b"{\"sub\":\"\xff\xfe\",\"role\":\"rider\",\"exp\":1900000000}"), Err(TokenError::Malformed));
    assert_eq!(payload(b"{\"x\":\"\xc3\",\"sub\":\"u\",\"role\":\"rider\",\"exp\":19e8}"), Err(TokenError::Malformed));
    let deep = format!(r#"{{"sub":"u","role":"rider","exp":1900000000,"aud":{}"#, "[".repeat(4_000));
    assert_eq!(payload(deep.as_bytes()), Err(TokenError::Malformed));
}

#[test]
fn the_compact_form_is_three_parts_of_unpadded_base64url() {
    let token = sign(&claims(), &HMAC, Algorithm::HS256);
    let parts: Vec<_> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let bad = [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        header.into(),
        format!("{header}.{payload}"),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{token}.{signature}.{signature}"),
        format!("{token}="),
        format!("{header}=.{payload}.{signature}"),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\n"),
        format!("Bearer {token}"),
        format!("{header}.{payload}.{signature}é"),
        format!("{header}.{payload}.+/{signature}"),
    ];
    for token in bad {
        assert_eq!(verify(all_keys(), &token), Err(TokenError::Malformed), "{token:?}");
    }
    // The same bytes in another encoding: the last character has unused bits.
    let (most, _) = token.split_at(token.len() - 1);
    let good = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain(['-', '_']);
    let outcomes: Vec<_> = good.map(|last| verify(all_keys(), &format!("{most}{last}")).map(|_| ())).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(TokenError::BadSignature))));
}

#[test]
fn a_too_long_token_is_rejected_before_anything_else() {
    let padded = |bytes: usize| {
        let mut claims = claims();
        claims["x"] = "x".repeat(bytes).into();
        sign(&claims, &HMAC, Algorithm::HS256)
    };
    assert!(verify(secret(), &padded(5_900)).is_ok());
    assert_eq!(verify(secret(), &padded(6_200)), Err(TokenError::TooLong));
    assert_eq!(verify(secret(), &"x".repeat(8 * 1024)), Err(TokenError::Malformed));
    assert_eq!(verify(secret(), &"x".repeat(8 * 1024 + 1)), Err(TokenError::TooLong));
}

#[test]
fn a_signers_token_is_accepted() {
    let user = UserId::parse("support-1").unwrap();
    let validation =
        ClaimValidation { issuer: Some("iss".into()), audience: Some("aud".into()), ..ClaimValidation::default() };
    let signer = Signer::new(SECRET).unwrap();
    let verifier = Verifier::new(secret(), validation.clone());
    let ttl = Duration::from_secs(3_600);
    assert_eq!(verifier.verify(&signer.sign(&user, Role::Support, ttl).unwrap()), Err(TokenError::WrongIssuer));

    let caller = verifier.verify(&signer.with(&validation).sign(&user, Role::Support, ttl).unwrap()).unwrap();
    assert_eq!((caller.user, caller.role), (user.clone(), Role::Support));
    assert_eq!(caller.expires_at.since(caller.issued_at.unwrap()), ttl);

    let forever = Signer::new(SECRET).unwrap().sign(&user, Role::Rider, Duration::MAX).unwrap();
    assert!(Verifier::new(secret(), ClaimValidation::default()).verify(&forever).is_ok());
    assert_eq!(Signer::new(b"short").err(), Some(KeyError::ShortSecret(5)));
}

#[test]
fn random_input_neither_panics_nor_passes() {
    let mut random = fastrand::Rng::with_seed(9068);
    let verifier = Verifier::new(all_keys(), ClaimValidation::default());
    let token = sign(&claims(), &EncodingKey::from_ed_pem(ED25519).unwrap(), Algorithm::EdDSA);
    verifier.verify_at(&token, at(NOW)).unwrap();

    for _ in 0..5_000 {
        let length = random.usize(..200);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        let text = String::from_utf8_lossy(&bytes);
        assert!(verifier.verify_at(&text, at(NOW)).is_err());
        // Validly signed, so that the claims are parsed.
        let signed = sign_raw(r#"{"alg":"HS256"}"#, &bytes, &HMAC, Algorithm::HS256);
        assert!(verifier.verify_at(&signed, at(NOW)).is_err());
        let header = sign_raw(&text, claims().to_string().as_bytes(), &HMAC, Algorithm::HS256);
        assert!(verifier.verify_at(&header, at(NOW)).is_err());
    }
    for _ in 0..1_000 {
        let mut changed = token.clone().into_bytes();
        let index = random.usize(..changed.len());
        changed[index] = random.u8(1..128);
        let changed = String::from_utf8(changed).unwrap();
        assert!(changed == token || verifier.verify_at(&changed, at(NOW)).is_err(), "{changed}");
    }
    // Claims that are almost valid.
    let good = claims().to_string().into_bytes();
    for _ in 0..5_000 {
        let mut changed = good.clone();
        let index = random.usize(..changed.len());
        changed[index] = random.u8(..);
        let _ = payload(&changed);
    }
}
