//! Whatever comes in from outside: nothing panics, nothing passes that should not, and what was written is read again.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use ridewire::auth::{Expect, Keys, Signer, Tickets, Verifier};
use ridewire::domain::{ClientMessageId, Content, EventType, Filter, Metadata, RideId, Role, Topic, UserId};
use ridewire::realtime::Places;
use ridewire::store::hints::{self, Hints, Origin};

use crate::support::{Database, SECRET, Server};

/// Texts of any kind, and such as are nearly right.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[A-Za-z0-9_.-]{0,70}", "[a-z:*, ]{0,40}", "[A-Za-z0-9+/=_.-]{0,400}", "[0-9]{0,25}"]
}

proptest! {
    #![proptest_config(Config { cases: 2_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_cursor_is_ours_or_refused(text in text(), user in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}") {
        let user = UserId::parse(&user).unwrap();
        if let Ok(places) = Places::parse(&text, &user) {
            // What is taken is a position, and says the same when it is given back.
            prop_assert_eq!(Places::parse(&places.encode(), &user).map(|again| again.encode()), Ok(places.encode()));
        }
        let beginning = Places::beginning(&user).encode();
        prop_assert!(Places::parse(&beginning, &user).is_ok());
        let mut changed = beginning.into_bytes();
        if let (Some(byte), Some(other)) = (changed.first_mut(), text.bytes().next()) {
            *byte = other;
        }
        let _ = Places::parse(&String::from_utf8_lossy(&changed), &user);
    }

    #[test]
    fn a_filter_passes_what_it_names_and_nothing_else(items in prop::collection::vec("[a-z:]{0,12}\\*?", 0..6)) {
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
    fn a_hint_is_ours_or_ignored(text in text(), heads in prop::collection::btree_map("[a-z_0-9]{1,64}", 0..i64::MAX, 0..300)) {
        let _ = hints::decode(&text);
        for member in ["heads", "values", "revoked"] {
            let _ = hints::decode(&format!(r#"{{"v":1,"{member}":{text}}}"#));
        }
        let heads = heads.iter().map(|(ride, seq)| (Topic::ride(&RideId::parse(ride).unwrap()), *seq));
        let told = Hints { heads: heads.collect(), ..Hints::default() };
        let mut heard = Hints::default();
        for payload in hints::encode(&told, &Origin::new()) {
            prop_assert!(payload.len() < 8_000);
            heard.heads.extend(hints::decode(&payload).unwrap().heads);
        }
        prop_assert_eq!(heard, told);
    }

    #[test]
    fn no_changed_token_counts(place in any::<prop::sample::Index>(), byte in any::<u8>(), text in text()) {
        let verifier = Verifier::new(Keys::from_secret(SECRET.as_bytes()).unwrap(), Expect::default());
        let tickets = Tickets::new(b"another secret of the tests, and of nobody else");
        let user = UserId::parse("rider_1").unwrap();
        let token = Signer::new(SECRET.as_bytes()).unwrap().sign(&user, Role::Rider, Duration::from_secs(60)).unwrap();
        prop_assert!(verifier.verify(&token).is_ok());
        prop_assert!(verifier.verify(&text).is_err() && tickets.verify(&text).is_err());
        let mut changed = token.clone().into_bytes();
        let place = place.index(changed.len());
        changed[place] = byte;
        if let Ok(changed) = String::from_utf8(changed).map_err(|_| ()) {
            // The last character of a part has bits that say nothing; those alone may differ.
            prop_assert!(changed == token || verifier.verify(&changed).is_err(), "{}", changed);
        }
    }

    #[test]
    fn texts_are_taken_whole_or_refused(text in text()) {
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

/// JSON of any shape, and bodies that are nearly right.
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
        // Cut off anywhere.
        text.chars().take(cut.index(text.chars().count() + 1)).collect()
    }), 1 => any::<String>()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_is_our_fault_or_half_taken() {
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
    let mut refused = 0;
    for number in 0..1_500 {
        let body = body().new_tree(&mut runner).unwrap().current();
        let (method, path, user) = &requests[number % requests.len()];
        // An empty body cancels the ride, which is another test's business.
        if path.ends_with("cancel") && body.trim().is_empty() || body.trim() == "{}" {
            continue;
        }
        let answer = user.send_bytes(method.clone(), path, body.clone()).await;
        let status = answer.status.as_u16();
        assert!((200..500).contains(&status), "{method} {path} {body}: {status} {}", answer.text());
        if status == 400 {
            answer.problem(400, "invalid_request");
            refused += 1;
        }
    }
    assert!(refused > 1_000, "{refused}");
    // Of all these only what was answered 2xx has done anything; nothing of it says something on the ride.
    let history = rider.history("ride_1", "").await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    assert!(database.head("ride_1").await >= before);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
