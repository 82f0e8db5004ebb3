//! Who is asking, and what their token must be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Database, SECRET, Server, User, raw_token};

/// Every kind of request.
pub(super) const REQUESTS: &[(&str, &str)] = &[
    ("POST", "messages"),
    ("GET", "events"),
    ("GET", "poll"),
    ("POST", "broadcasts"),
    ("PUT", "drivers/me/availability"),
    ("GET", "drivers/available"),
    ("GET", "messages/rides/ride_1"),
    ("GET", "messages/rides/ride_1/unread-count"),
    ("GET", "messages/unread-count"),
    ("GET", "messages/0198c0de-0000-7000-8000-000000000000"),
    ("PATCH", "messages/0198c0de-0000-7000-8000-000000000000"),
    ("DELETE", "messages/0198c0de-0000-7000-8000-000000000000"),
    ("POST", "messages/0198c0de-0000-7000-8000-000000000000/read"),
    ("POST", "messages/0198c0de-0000-7000-8000-000000000000/delivered"),
    ("PUT", "messages/0198c0de-0000-7000-8000-000000000000/reactions/%F0%9F%91%8D"),
    ("DELETE", "messages/0198c0de-0000-7000-8000-000000000000/reactions/%F0%9F%91%8D"),
    ("POST", "messages/rides/ride_1/typing"),
    ("GET", "messages/rides/ride_1/presence"),
    ("GET", "messages/rides/ride_1/events"),
    ("GET", "messages/rides/ride_1/poll"),
    ("POST", "stream-tickets"),
    ("PUT", "push-subscriptions"),
    ("DELETE", "push-subscriptions"),
    ("GET", "push-key"),
    ("DELETE", "users/rider_1"),
    ("POST", "users/rider_1/revoke"),
    ("POST", "rides/ride_1/location"),
    ("GET", "rides/ride_1/location"),
    ("PUT", "rides/ride_1"),
    ("GET", "rides/ride_1"),
    ("GET", "rides"),
    ("POST", "rides/ride_1/accept"),
    ("POST", "rides/ride_1/cancel"),
    ("POST", "rides/ride_1/reopen"),
    ("POST", "rides/ride_1/status"),
    ("GET", "webhooks"),
    ("POST", "webhooks"),
    ("GET", "webhooks/wh_1"),
    ("PATCH", "webhooks/wh_1"),
    ("DELETE", "webhooks/wh_1"),
    ("POST", "webhooks/wh_1/secret"),
    ("POST", "webhooks/wh_1/test"),
    ("POST", "webhooks/wh_1/replay"),
    ("GET", "webhooks/wh_1/deliveries"),
    ("GET", "messages/0198c0de-0000-7000-8000-000000000000/trace"),
    ("GET", "audit"),
];

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn refused(answer: Answer) {
    let challenge = answer.header("www-authenticate").to_owned();
    let code = challenge.split('"').rev().nth(1).unwrap_or_default();
    assert!(challenge.starts_with("Bearer "), "{}: {challenge:?}", answer.asked);
    answer.problem(401, code);
}

async fn ask(user: &User, method: &str, path: &str) -> Answer {
    user.send_bytes(Method::from_bytes(method.as_bytes()).unwrap(), path, "{}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_without_a_token_that_counts() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let before = database.contents().await;
    let claims = json!({ "sub": "rider_1", "role": "rider", "exp": now() + 600 });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    let signed = |claims: &Value| raw_token(&header, claims, Some(SECRET));
    // This one would do.
    rider.clone().with_token(signed(&claims)).get("rides/ride_1").await.expect(200);

    let good = rider.token.clone();
    let (body, signature) = good.rsplit_once('.').unwrap();
    let mut without_exp = claims.clone();
    without_exp.as_object_mut().unwrap().remove("exp");
    let mut without_role = claims.clone();
    without_role.as_object_mut().unwrap().remove("role");
    let tokens = [
        String::new(),
        "nonsense".into(),
        "a.b.c".into(),
        format!("{body}."),
        format!("{body}.{}", signature.chars().rev().collect::<String>()),
        format!("{good}x"),
        raw_token(&header, &claims, Some("another secret, just as long as the first")),
        raw_token(&json!({ "alg": "none" }), &claims, None),
        raw_token(&json!({ "alg": "None", "typ": "JWT" }), &claims, None),
        raw_token(&json!({ "alg": "HS384" }), &claims, Some(SECRET)),
        raw_token(&json!({ "alg": "RS256" }), &claims, Some(SECRET)),
        signed(&with("exp", json!(now() - 600))),
        signed(&with("exp", json!("tomorrow"))),
        signed(&with("sub", json!(""))),
        signed(&with("sub", json!("a b"))),
        signed(&with("sub", json!(5))),
        signed(&with("role", json!("admin"))),
        signed(&with("role", json!("Service"))),
        signed(&with("nbf", json!(now() + 600))),
        signed(&without_exp),
        signed(&without_role),
    ];
    for token in tokens {
        let stranger = rider.clone().with_token(token);
        refused(stranger.get("rides/ride_1").await);
        refused(stranger.send_named("ride_1", "Hello", "m-1").await);
        refused(stranger.get("messages/rides/ride_1/events").await);
    }
    for (method, path) in REQUESTS {
        refused(ask(&rider.clone().with_token(""), method, path).await);
        refused(ask(&rider.clone().with_token("nonsense"), method, path).await);
    }
    let other_scheme = rider.clone().with_token("").request(Method::GET, "rides/ride_1");
    refused(rider.ask(other_scheme.header("authorization", format!("Basic {good}"))).await);
    assert_eq!(database.contents().await, before);
    assert!(!server.log().contains(&good), "no token is logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheme_has_no_case_and_an_unauthenticated_path_needs_no_token() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = rider.clone().with_token("").request(Method::GET, "rides/ride_1");
        rider.ask(request.header("authorization", format!("{scheme} {}", rider.token))).await.expect(200);
    }
    for path in ["healthz", "readyz", "openapi.yaml", "openapi.json"] {
        assert_eq!(reqwest::get(format!("{}/{path}", server.base)).await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuer_and_audience_are_checked_where_they_are_configured() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_JWT_ISSUER", "https://rides.example"), ("RIDEWIRE_JWT_AUDIENCE", "ridewire")];
    let server = Server::with(&database, &settings).await;
    let token = |claims: Value| {
        let mut all = json!({ "sub": "rider_1", "role": "rider", "exp": now() + 600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        raw_token(&json!({ "alg": "HS256" }), &all, Some(SECRET))
    };
    let rider = server.rider("rider_1");
    refused(rider.get("rides").await);
    let right = json!({ "iss": "https://rides.example", "aud": ["other", "ridewire"] });
    rider.clone().with_token(token(right)).get("rides").await.expect(200);
    for wrong in [
        json!({ "iss": "https://rides.example" }),
        json!({ "aud": "ridewire" }),
        json!({ "iss": "https://rides.example", "aud": "other" }),
        json!({ "iss": "https://other.example", "aud": "ridewire" }),
    ] {
        refused(rider.clone().with_token(token(wrong)).get("rides").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ride_says_who_drives_it_and_not_the_token() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    server.open_ride("ride_1").await;
    // A driver elsewhere who booked this one.
    let booked = server.driver("rider_1");
    assert_eq!(booked.send("ride_1", "Hello").await["senderRole"], "rider");
    booked.set_status("ride_1", "arrived").await.problem(403, "forbidden");
    let drives = server.rider("driver_1").for_another(Duration::from_secs(60));
    assert_eq!(drives.send("ride_1", "Hello").await["senderRole"], "driver");
    drives.set_status("ride_1", "arrived").await.expect(200);
}
