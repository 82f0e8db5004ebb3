//! Response headers for browsers: CORS and security headers.

use reqwest::Method;

use crate::support::{Database, Server, ridewire};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_configured_origins_may_use_the_api() {
    let database = Database::create().await;
    let origins = "https://app.example.com, http://localhost:3000";
    let server = Server::start_with(&database, &[("RIDEWIRE_CORS_ORIGINS", origins)]).await;
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
        let response = preflight(origin).await;
        assert_eq!(response.status(), 204, "{origin}");
        let headers = response.headers();
        assert_eq!(headers["access-control-allow-origin"], origin);
        assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let request = rider.request(Method::GET, "messages/rides/ride_1").header("origin", origin);
        let response = rider.execute(request).await.expect(200);
        assert_eq!(response.header("access-control-allow-origin"), origin);
        assert!(response.header("access-control-expose-headers").contains("etag"));
        // A script can read the error of a rejected request.
        let request = rider.clone().with_token("").request(Method::GET, "rides").header("origin", origin);
        assert_eq!(rider.execute(request).await.expect(401).header("access-control-allow-origin"), origin);
    }
    for origin in ["https://evil.example", "https://app.example.com.evil.example", "null"] {
        assert!(!preflight(origin).await.headers().contains_key("access-control-allow-origin"), "{origin}");
    }
    // Streams have the header too.
    let stream = rider.request(Method::GET, "events").header("origin", "http://localhost:3000").send().await.unwrap();
    assert_eq!(stream.headers()["access-control-allow-origin"], "http://localhost:3000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_configured_origins_there_is_no_cors_and_an_invalid_origin_is_reported() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let request = reqwest::Client::new().get(format!("{}/healthz", server.base)).header("origin", "https://a.example");
    assert!(!request.send().await.unwrap().headers().contains_key("access-control-allow-origin"));

    let mut wrong = ridewire();
    wrong.env("DATABASE_URL", &database.url).env("RIDEWIRE_JWT_SECRET", "x".repeat(32));
    let output = wrong.env("RIDEWIRE_CORS_ORIGINS", "https://a.example/app").output().await.unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("RIDEWIRE_CORS_ORIGINS") && stderr.contains("must be an origin"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_response_has_security_headers() {
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
        let response = request.send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
        assert_eq!(header("referrer-policy").as_deref(), Some("no-referrer"), "{path}");
        assert!(header("content-security-policy").unwrap().contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(header("server"), None, "{path}");
    }
}
