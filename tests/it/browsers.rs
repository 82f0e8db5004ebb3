//! What browsers are told: which sites may use the interface, and what an answer is not.

use reqwest::Method;

use crate::support::{Database, Server, ridewire};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_the_sites_that_are_named_may_use_it_and_no_others() {
    let database = Database::create().await;
    let origins = "https://app.example.com, http://localhost:3000";
    let server = Server::with(&database, &[("RIDEWIRE_CORS_ORIGINS", origins)]).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let preflight = async |origin: &str| {
        let request = reqwest::Client::new()
            .request(Method::OPTIONS, format!("{}/api/v1/messages", server.base))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,idempotency-key");
        request.send().await.unwrap()
    };
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let answer = preflight(origin).await;
        assert_eq!(answer.status(), 204, "{origin}");
        let headers = answer.headers();
        assert_eq!(headers["access-control-allow-origin"], origin);
        assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let request = rider.request(Method::GET, "messages/rides/ride_1").header("origin", origin);
        let answer = rider.ask(request).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert!(answer.header("access-control-expose-headers").contains("etag"));
        // A script is to see why it is refused.
        let request = rider.clone().with_token("").request(Method::GET, "rides").header("origin", origin);
        assert_eq!(rider.ask(request).await.expect(401).header("access-control-allow-origin"), origin);
    }
    for origin in ["https://evil.example", "https://app.example.com.evil.example", "null"] {
        assert!(!preflight(origin).await.headers().contains_key("access-control-allow-origin"), "{origin}");
    }
    // A stream as well.
    let stream = rider.request(Method::GET, "events").header("origin", "http://localhost:3000").send().await.unwrap();
    assert_eq!(stream.headers()["access-control-allow-origin"], "http://localhost:3000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_list_no_site_may_and_a_wrong_one_is_said() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let request = reqwest::Client::new().get(format!("{}/healthz", server.base)).header("origin", "https://a.example");
    assert!(!request.send().await.unwrap().headers().contains_key("access-control-allow-origin"));

    let mut wrong = ridewire();
    wrong.env("DATABASE_URL", &database.url).env("RIDEWIRE_JWT_SECRET", "x".repeat(32));
    let output = wrong.env("RIDEWIRE_CORS_ORIGINS", "https://a.example/app").output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("RIDEWIRE_CORS_ORIGINS") && said.contains("must be an origin"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_to_be_guessed_at_framed_or_told_of() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    for path in [
        "api/v1/rides/ride_1",
        "api/v1/rides/ride_9",
        "api/v1/events",
        "nothing",
        "metrics",
        "openapi.yaml",
        "openapi.json",
    ] {
        let request = reqwest::Client::new().get(format!("{}/{path}", server.base)).bearer_auth(&rider.token);
        let answer = request.send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
        assert_eq!(header("referrer-policy").as_deref(), Some("no-referrer"), "{path}");
        assert!(header("content-security-policy").unwrap().contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(header("server"), None, "{path}");
    }
}
