//! The error code of each 401: for a token in the header, for a ticket in the URL, and for the creation of a ticket.

use serde_json::{Value, json};

use crate::jwks::{EC, set};
use crate::support::{Database, Response, SECRET, Server, User, raw_token};

fn now() -> i64 {
    ridewire::domain::Time::now().as_unix_seconds()
}

const ISSUER: &str = "https://rides.example";
const AUDIENCE: &str = "ridewire";

/// Returns the claims of a valid token, with changes.
fn claims(changes: Value) -> Value {
    let now = now();
    let mut claims = json!({
        "sub": "rider_1", "role": "rider", "iat": now - 60, "exp": now + 600, "iss": ISSUER, "aud": AUDIENCE,
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

fn token(changes: Value) -> String {
    raw_token(&json!({ "alg": "HS256" }), &claims(changes), Some(SECRET))
}

/// Starts a server with an issuer, an audience, and a JWKS file.
async fn server(database: &Database, keys: &tempfile::TempDir) -> Server {
    let file = keys.path().join("jwks.json");
    std::fs::write(&file, set(&[EC])).unwrap();
    let settings = [
        ("RIDEWIRE_JWT_ISSUER", ISSUER),
        ("RIDEWIRE_JWT_AUDIENCE", AUDIENCE),
        ("RIDEWIRE_JWKS", file.to_str().unwrap()),
        ("RIDEWIRE_JWKS_PERIOD", "100ms"),
    ];
    let server = Server::start_with(database, &settings).await;
    let service = token(json!({ "sub": "platform", "role": "service" }));
    let service = server.service().with_token(service);
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(201);
    server
}

/// Checks for a 401 with this code, in the body and in `WWW-Authenticate`.
#[track_caller]
fn rejected(response: Response, code: &str) {
    let expected = match code {
        "token_missing" => format!(r#"Bearer error_description="{code}""#),
        _ => format!(r#"Bearer error="invalid_token", error_description="{code}""#),
    };
    assert_eq!(response.header("www-authenticate"), expected, "{}", response.request);
    response.problem(401, code);
}

async fn ticket(user: &User) -> String {
    user.post("stream-tickets", json!({})).await.expect(201).json()["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reason_to_reject_a_token_has_its_code() {
    let database = Database::create().await;
    let keys = tempfile::tempdir().unwrap();
    let server = server(&database, &keys).await;
    let with = |token: String| server.rider("rider_1").with_token(token);
    with(token(json!({}))).get("rides/ride_1").await.expect(200);

    let unsigned = |name: &str| raw_token(&json!({ "alg": name }), &claims(json!({})), None);
    let revoked = token(json!({ "sub": "rider_2" }));
    let service = with(token(json!({ "sub": "platform", "role": "service" })));
    service.post_empty("users/rider_2/revoke").await.expect(200);
    let good = token(json!({}));
    let cases = [
        (String::new(), "token_missing"),
        ("nonsense".to_owned(), "token_malformed"),
        ("x".repeat(9_000), "token_malformed"),
        (token(json!({ "exp": null })), "token_malformed"),
        (token(json!({ "role": "admin" })), "token_malformed"),
        (token(json!({ "exp": now() - 600 })), "token_expired"),
        (token(json!({ "nbf": now() + 600 })), "token_not_yet_valid"),
        (token(json!({ "iat": now() + 600 })), "token_not_yet_valid"),
        (revoked, "token_revoked"),
        (raw_token(&json!({ "alg": "HS256" }), &claims(json!({})), Some(&"x".repeat(40))), "signature_invalid"),
        (raw_token(&json!({ "alg": "HS384" }), &claims(json!({})), Some(SECRET)), "signature_invalid"),
        (unsigned("none"), "signature_invalid"),
        (unsigned("HS256"), "signature_invalid"),
        (format!("{good}x"), "signature_invalid"),
        (EC.token("of-nobody", "rider_1", "rider"), "key_unknown"),
        (token(json!({ "iss": "https://another.example" })), "issuer_invalid"),
        (token(json!({ "iss": null })), "issuer_invalid"),
        (token(json!({ "aud": "another" })), "audience_invalid"),
        (token(json!({ "aud": ["another"] })), "audience_invalid"),
    ];
    for (token, code) in cases {
        let user = with(token);
        rejected(user.get("rides/ride_1").await, code);
        rejected(user.post("messages", json!({ "rideId": "ride_1", "content": "Hello" })).await, code);
        for path in ["events", "poll", "messages/rides/ride_1/events", "messages/rides/ride_1/poll?after=0"] {
            rejected(user.get(path).await, code);
        }
        // A ticket cannot be created with a ticket.
        rejected(user.post("stream-tickets", json!({})).await, code);
    }
    // Another scheme counts as no token. A token that is not text is malformed.
    let bare = with(String::new());
    let request = |value: &[u8]| bare.request(reqwest::Method::GET, "rides").header("authorization", value);
    rejected(bare.execute(request(b"Basic YTpi")).await, "token_missing");
    rejected(bare.execute(request(b"Bearer")).await, "token_missing");
    rejected(bare.execute(request(b"Bearer caf\xe9")).await, "token_malformed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reason_to_reject_a_ticket_has_its_code() {
    let database = Database::create().await;
    let keys = tempfile::tempdir().unwrap();
    let server = server(&database, &keys).await;
    let bare = server.rider("rider_1").with_token("");
    let with = |token: String| server.rider("rider_1").with_token(token);
    let follow = async |ticket: &str, code: &str| {
        for path in ["events", "poll", "messages/rides/ride_1/events", "messages/rides/ride_1/poll"] {
            rejected(bare.get(&format!("{path}?ticket={ticket}")).await, code);
        }
        // In the header it is rejected as a ticket, too.
        rejected(with(ticket.to_owned()).get("messages/rides/ride_1/poll").await, code);
    };
    rejected(bare.get("messages/rides/ride_1/events").await, "token_missing");
    follow("nonsense", "token_malformed").await;

    let good = ticket(&with(token(json!({})))).await;
    bare.get(&format!("messages/rides/ride_1/poll?ticket={good}")).await.expect(200);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let (_, other) = token(json!({})).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    follow(&format!("{signed}.{other}"), "signature_invalid").await;
    // A token is not accepted in the URL.
    let path = format!("messages/rides/ride_1/poll?ticket={}", token(json!({})));
    rejected(bare.get(&path).await, "signature_invalid");
    // Within the leeway, a token still creates a ticket, but the ticket opens nothing that would end immediately.
    follow(&ticket(&with(token(json!({ "exp": now() - 2 })))).await, "token_expired").await;
    let service = with(token(json!({ "sub": "platform", "role": "service" })));
    service.post_empty("users/rider_1/revoke").await.expect(200);
    follow(&good, "token_revoked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_type_of_a_problem_is_the_url_of_its_page() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let page = async |url: &Value| {
        let response = reqwest::get(url.as_str().unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8", "{url}");
        assert_eq!(response.status(), 200, "{url}");
        response.text().await.unwrap()
    };
    let problem = rider.get("rides/ride_9").await.problem(404, "ride_not_found");
    assert!(page(&problem["type"]).await.contains("<h1>ride_not_found</h1>"), "{problem}");
    let problem = rider.clone().with_token("").get("rides").await.problem(401, "token_missing");
    assert!(page(&problem["type"]).await.contains("<code>Authorization: Bearer</code>"), "{problem}");
    let problem = rider.get("nothing").await.problem(404, "not_found");
    assert_eq!(problem["type"], format!("{}/docs/errors/not_found", server.base));
    let request = rider.request(reqwest::Method::GET, "nothing");
    let request = request.header("host", "chat.example.com").header("x-forwarded-proto", "https");
    let problem = rider.execute(request).await.problem(404, "not_found");
    assert_eq!(problem["type"], "https://chat.example.com/docs/errors/not_found");

    let all = reqwest::get(format!("{}/docs/errors", server.base)).await.unwrap().text().await.unwrap();
    assert!(all.contains("/docs/errors/token_expired"), "{all}");
    let unknown = reqwest::get(format!("{}/docs/errors/unknown", server.base)).await.unwrap();
    assert_eq!(unknown.status(), 404);
    // With the console, whose reference is below the same path, and on the admin listener.
    let settings = [("RIDEWIRE_PUBLIC_URL", "https://rides.example/chat/"), ("RIDEWIRE_CONSOLE", "on")];
    let server = Server::start_with(&database, &settings).await;
    let problem = rider.on(&server).get("rides/ride_9").await.problem(404, "ride_not_found");
    assert_eq!(problem["type"], "https://rides.example/chat/docs/errors/ride_not_found");
    page(&json!(format!("{}/docs/errors/forbidden", server.base))).await;
}
