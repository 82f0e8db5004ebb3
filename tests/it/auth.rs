//! Authentication: which tokens are accepted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Database, Response, SECRET, Server, User, raw_token};

/// A request of every operation.
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

fn assert_unauthorized(response: Response) {
    let challenge = response.header("www-authenticate").to_owned();
    let code = challenge.split('"').rev().nth(1).unwrap_or_default();
    assert!(challenge.starts_with("Bearer "), "{}: {challenge:?}", response.request);
    response.problem(401, code);
}

async fn send(user: &User, method: &str, path: &str) -> Response {
    user.send_bytes(Method::from_bytes(method.as_bytes()).unwrap(), path, "{}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_valid_token_are_rejected() {
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
    // A control: this token is accepted.
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
        raw_token(&header, &claims, Some("another secret with the same length as the first")),
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
        let user = rider.clone().with_token(token);
        assert_unauthorized(user.get("rides/ride_1").await);
        assert_unauthorized(user.send_with_id("ride_1", "Hello", "m-1").await);
        assert_unauthorized(user.get("messages/rides/ride_1/events").await);
    }
    for (method, path) in REQUESTS {
        assert_unauthorized(send(&rider.clone().with_token(""), method, path).await);
        assert_unauthorized(send(&rider.clone().with_token("nonsense"), method, path).await);
    }
    let other_scheme = rider.clone().with_token("").request(Method::GET, "rides/ride_1");
    assert_unauthorized(rider.execute(other_scheme.header("authorization", format!("Basic {good}"))).await);
    assert_eq!(database.contents().await, before);
    assert!(!server.log().contains(&good), "no token is logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_auth_scheme_is_case_insensitive_and_public_paths_need_no_token() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = rider.clone().with_token("").request(Method::GET, "rides/ride_1");
        rider.execute(request.header("authorization", format!("{scheme} {}", rider.token))).await.expect(200);
    }
    for path in ["healthz", "readyz", "openapi.yaml", "openapi.json"] {
        assert_eq!(reqwest::get(format!("{}/{path}", server.base)).await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuer_and_audience_are_checked_if_configured() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_JWT_ISSUER", "https://rides.example"), ("RIDEWIRE_JWT_AUDIENCE", "ridewire")];
    let server = Server::start_with(&database, &settings).await;
    let token = |claims: Value| {
        let mut all = json!({ "sub": "rider_1", "role": "rider", "exp": now() + 600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        raw_token(&json!({ "alg": "HS256" }), &all, Some(SECRET))
    };
    let rider = server.rider("rider_1");
    assert_unauthorized(rider.get("rides").await);
    let right = json!({ "iss": "https://rides.example", "aud": ["other", "ridewire"] });
    rider.clone().with_token(token(right)).get("rides").await.expect(200);
    for wrong in [
        json!({ "iss": "https://rides.example" }),
        json!({ "aud": "ridewire" }),
        json!({ "iss": "https://rides.example", "aud": "other" }),
        json!({ "iss": "https://other.example", "aud": "ridewire" }),
    ] {
        assert_unauthorized(rider.clone().with_token(token(wrong)).get("rides").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ride_and_not_the_token_determines_the_role() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    server.open_ride("ride_1").await;
    // A user with the role driver is the rider of this ride.
    let rider = server.driver("rider_1");
    assert_eq!(rider.send("ride_1", "Hello").await["senderRole"], "rider");
    rider.set_status("ride_1", "arrived").await.problem(403, "forbidden");
    let driver = server.rider("driver_1").with_token_ttl(Duration::from_secs(60));
    assert_eq!(driver.send("ride_1", "Hello").await["senderRole"], "driver");
    driver.set_status("ride_1", "arrived").await.expect(200);
}
