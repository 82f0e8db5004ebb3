//! Property tests of external input: no panic, no invalid value is accepted, and encoded values decode to themselves.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use ridewire::auth::{ClaimValidation, Keys, Signer, Tickets, Verifier};
use ridewire::domain::{ClientMessageId, Content, EventType, Filter, Metadata, RideId, Role, Topic, UserId};
use ridewire::realtime::MergedCursor;
use ridewire::store::hints::{self, Hints, Origin};

use crate::support::{Database, SECRET, Server};

/// Any text, and text that is nearly valid.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[A-Za-z0-9_.-]{0,70}", "[a-z:*, ]{0,40}", "[A-Za-z0-9+/=_.-]{0,400}", "[0-9]{0,25}"]
}

proptest! {
    #![proptest_config(Config { cases: 2_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_cursor_is_valid_or_rejected(text in text(), user in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}") {
        let user = UserId::parse(&user).unwrap();
        if let Ok(cursor) = MergedCursor::parse(&text, &user) {
            // An accepted cursor is encoded to an equivalent cursor.
            prop_assert_eq!(MergedCursor::parse(&cursor.encode(), &user).map(|again| again.encode()), Ok(cursor.encode()));
        }
        let beginning = MergedCursor::beginning(&user).encode();
        prop_assert!(MergedCursor::parse(&beginning, &user).is_ok());
        let mut changed = beginning.into_bytes();
        if let (Some(byte), Some(other)) = (changed.first_mut(), text.bytes().next()) {
            *byte = other;
        }
        let _ = MergedCursor::parse(&String::from_utf8_lossy(&changed), &user);
    }

    #[test]
    fn a_filter_passes_exactly_its_types(items in prop::collection::vec("[a-z:]{0,12}\\*?", 0..6)) {
        let filter = Filter::parse(&items.join(","));
        for kind in ["message:new", "message:read", "ride:status", "typing:indicator", "notice"] {
            let wanted = items.iter().any(|item| match item.strip_suffix('*') {
                Some(prefix) => kind.starts_with(prefix),
                None => kind == item,
            });
            prop_assert_eq!(filter.passes(EventType::parse(kind).unwrap()), wanted, "{} in {:?}", kind, items);
        }
    }

    #[test]
    fn a_hint_is_valid_or_ignored(text in text(), heads in prop::collection::btree_map("[a-z_0-9]{1,64}", 0..i64::MAX, 0..300)) {
        let _ = hints::decode(&text);
        for member in ["heads", "values", "revoked"] {
            let _ = hints::decode(&format!(r#"{{"v":1,"{member}":{text}}}"#));
        }
        let heads = heads.iter().map(|(ride, seq)| (Topic::ride(&RideId::parse(ride).unwrap()), *seq));
        let sent = Hints { heads: heads.collect(), ..Hints::default() };
        let mut received = Hints::default();
        for payload in hints::encode(&sent, &Origin::new()) {
            prop_assert!(payload.len() < 8_000);
            received.heads.extend(hints::decode(&payload).unwrap().heads);
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn a_changed_token_is_rejected(index in any::<prop::sample::Index>(), byte in any::<u8>(), text in text()) {
        let verifier = Verifier::new(Keys::from_secret(SECRET.as_bytes()).unwrap(), ClaimValidation::default());
        let tickets = Tickets::new(b"another secret that only the tests use");
        let user = UserId::parse("rider_1").unwrap();
        let token = Signer::new(SECRET.as_bytes()).unwrap().sign(&user, Role::Rider, Duration::from_secs(60)).unwrap();
        prop_assert!(verifier.verify(&token).is_ok());
        prop_assert!(verifier.verify(&text).is_err() && tickets.verify(&text).is_err());
        let mut changed = token.clone().into_bytes();
        let index = index.index(changed.len());
        changed[index] = byte;
        if let Ok(changed) = String::from_utf8(changed).map_err(|_| ()) {
            // The last character of a base64url part has unused bits; a change of these bits is accepted.
            prop_assert!(changed == token || verifier.verify(&changed).is_err(), "{}", changed);
        }
    }

    #[test]
    fn texts_are_accepted_unchanged_or_rejected(text in text()) {
        if let Ok(content) = Content::parse(text.clone()) {
            prop_assert_eq!(content.as_str(), &text);
            prop_assert!(!text.trim().is_empty() && text.trim().chars().count() <= 4_000 && !text.contains('\0'));
            prop_assert!(text.len() <= Content::MAX_BYTES);
        }
        if let Ok(name) = ClientMessageId::parse(text.clone()) {
            prop_assert_eq!(name.as_str(), &text);
        }
        let is_id = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
            && !matches!(text.as_str(), "." | "..");
        prop_assert_eq!(RideId::parse(&text).is_ok(), is_id);
        if let Ok(object) = serde_json::from_str(&format!("{{{text:?}: {text:?}}}")) {
            let _ = Metadata::parse(object);
        }
    }
}

/// JSON of any shape, and bodies that are nearly valid.
fn body() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        Just(r#""\ud800""#.to_owned()),
        Just(r#""\u0000""#.to_owned()),
    ];
    let value = leaf.prop_recursive(6, 40, 6, |inner| {
        let name = prop_oneof![
            "rideId",
            "content",
            "metadata",
            "clientMessageId",
            "riderId",
            "driverId",
            "status",
            "[a-z]{0,6}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec((name, inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    prop_oneof![4 => value.clone(), 1 => (value, any::<prop::sample::Index>()).prop_map(|(text, cut)| {
        // Truncated at any character.
        text.chars().take(cut.index(text.chars().count() + 1)).collect()
    }), 1 => any::<String>()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_causes_a_server_error_or_a_partial_change() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let (message, before) = (format!("messages/{}", sent["id"].as_str().unwrap()), database.head("ride_1").await);
    let requests = [
        (Method::POST, "messages", rider.clone()),
        (Method::PATCH, message.as_str(), rider.clone()),
        (Method::POST, "rides/ride_1/cancel", rider.clone()),
        (Method::POST, "messages/rides/ride_1/typing", rider.clone()),
        (Method::POST, "stream-tickets", rider.clone()),
        (Method::PUT, "rides/ride_9", server.service()),
        (Method::POST, "broadcasts", server.service()),
        (Method::POST, "rides/ride_1/location", server.driver("driver_1")),
        (Method::PUT, "drivers/me/availability", server.driver("driver_1")),
    ];
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut rejected = 0;
    for number in 0..1_500 {
        let body = body().new_tree(&mut runner).unwrap().current();
        let (method, path, user) = &requests[number % requests.len()];
        // An empty body would cancel the ride. Other tests cover that.
        if path.ends_with("cancel") && body.trim().is_empty() || body.trim() == "{}" {
            continue;
        }
        let response = user.send_bytes(method.clone(), path, body.clone()).await;
        let status = response.status.as_u16();
        assert!((200..500).contains(&status), "{method} {path} {body}: {status} {}", response.text());
        if status == 400 {
            response.problem(400, "invalid_request");
            rejected += 1;
        }
    }
    assert!(rejected > 1_000, "{rejected}");
    // No request has added a message to the ride.
    let history = rider.history("ride_1", "").await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    assert!(database.head("ride_1").await >= before);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
