//! The console and the API reference: off by default, complete when on, and only a demo's own page gets tokens.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Database, Response, SECRET, Server, eventually, ridewire};

const DEMO: (&str, &str) = ("RIDEWIRE_DEMO", "true");

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    let url = format!("{}{path}", server.base);
    let request = reqwest::Client::new().get(&url);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Response::of(url, request.send().await.unwrap()).await
}

/// Returns the paths that a file imports, links or fetches.
fn named(at: &str, text: &str) -> Vec<String> {
    let directory = at.rsplit_once('/').unwrap().0;
    let quoted = text.split(['\'', '"']);
    let is_file = |path: &str| [".js", ".css", ".svg", ".json"].iter().any(|end| path.ends_with(end));
    let absolute = |path: &str| match path.strip_prefix("./") {
        Some(beside) => format!("{directory}/{beside}"),
        None => path.to_owned(),
    };
    quoted
        .filter(|path| is_file(path) && path.starts_with(['/', '.']) && !path.starts_with("../"))
        .map(absolute)
        .collect()
}

fn files_below(directory: &str, served: &str) -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let names = files.map(|entry| entry.file_name().into_string().unwrap());
    let is_served = |name: &String| !name.starts_with('.') && !name.starts_with("package") && name != "index.html";
    names.filter(is_served).map(|name| format!("{served}/{name}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_is_off_by_default() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    for path in ["/", "/console/style.css", "/console/session", "/client/index.js", "/docs", "/docs/", "/docs/page.css"]
    {
        get(&server, path, &[]).await.problem(404, "not_found");
    }
    let without = Server::start_with(&database, &[DEMO, ("RIDEWIRE_CONSOLE", "off")]).await;
    get(&without, "/", &[]).await.problem(404, "not_found");
    get(&without, "/docs", &[]).await.problem(404, "not_found");
    get(&without, "/console/session", &[]).await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_referenced_file_is_served_with_its_type() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    let mut waiting = vec!["/".to_owned(), "/docs".to_owned()];
    let mut found = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if !found.insert(path.clone()) {
            continue;
        }
        let response = get(&server, &path, &[]).await.expect(200);
        if path == "/openapi.json" {
            continue;
        }
        let kind = match path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            Some((_, "json")) => "application/json",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(response.header("content-type"), kind, "{path}");
        assert_eq!(response.header("cache-control"), "no-cache", "{path}");
        assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
        let policy = response.header("content-security-policy").to_owned();
        for rule in ["default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http:"), "{policy}");
        let text = response.text();
        // No file of another origin, and nothing that the content security policy blocks.
        let elsewhere = text.replace("http://www.w3.org/", "").replace("http://127.0.0.1:8081", "");
        assert!(!elsewhere.contains("http://") && !text.contains(" style=") && !text.contains("onclick=\""), "{path}");
        waiting.extend(named(&path, &text));
    }
    // Each file in the directories is used, and each used file exists.
    let mut expected = BTreeSet::from(["/", "/docs", "/openapi.json"].map(str::to_owned));
    for (directory, at) in [
        ("web", "/console"),
        ("web/js", "/console/js"),
        ("web/reference", "/docs"),
        ("web/reference/js", "/docs/js"),
        ("clients/js/src", "/client"),
    ] {
        expected.extend(files_below(directory, at));
    }
    assert_eq!(found, expected);
    get(&server, "/console/other.js", &[]).await.problem(404, "not_found");
    get(&server, "/console/../secret", &[]).await.problem(404, "not_found");
    get(&server, "/docs/index.html", &[]).await.problem(404, "not_found");
    assert_eq!(get(&server, "/docs/", &[]).await.expect(200).text(), get(&server, "/docs", &[]).await.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_file_gets_304() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    let first = get(&server, "/console/style.css", &[]).await.expect(200);
    let etag = first.header("etag").to_owned();
    let again = get(&server, "/console/style.css", &[("if-none-match", &etag)]).await.expect(304);
    assert_eq!((again.header("etag"), again.text().as_str()), (etag.as_str(), ""));
    get(&server, "/console/phone.css", &[("if-none-match", &etag)]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_demos_own_page_gets_tokens() {
    let database = Database::create().await;
    let plain = Server::start_with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    assert_no_content(get(&plain, "/console/session", &[]).await);
    // A demo that other machines can reach does not serve them.
    let open = Server::start_with(&database, &[DEMO, ("RIDEWIRE_LISTEN", "0.0.0.0:0")]).await;
    let address = open.base.replace("0.0.0.0", "127.0.0.1");
    let response = reqwest::get(format!("{address}/console/session")).await.unwrap();
    assert_eq!(response.status(), 204);

    let demo = Server::start_with(&database, &[DEMO, ("RIDEWIRE_CORS_ORIGINS", "*")]).await;
    let session = demo_session(&demo).await;
    assert_eq!(session["ride"].as_str().unwrap().split('_').next(), Some("demo"));
    for role in ["rider", "driver", "support", "service"] {
        demo.rider("x").with_token(session["tokens"][role].as_str().unwrap()).get("rides").await.expect(200);
    }
    let own = demo.base.as_str();
    get(&demo, "/console/session", &[("sec-fetch-site", "same-origin"), ("origin", own)]).await.expect(200);
    for foreign in [
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        [("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:1")],
        [("sec-fetch-site", "none"), ("x", "opened as a page")],
        [("origin", "https://evil.example"), ("x", "an old browser")],
        // A sandboxed frame, or a page from a file.
        [("origin", "null"), ("x", "an old browser")],
        // An attacker's host name that resolves to this machine (DNS rebinding).
        [("host", "rebound.example"), ("sec-fetch-site", "same-origin")],
    ] {
        assert_no_content(get(&demo, "/console/session", &foreign).await);
    }
    let headers: HeaderMap = reqwest::get(format!("{own}/console/session")).await.unwrap().headers().clone();
    assert_eq!(headers["cache-control"], "no-store");
}

/// Gets the session of a demo's page. The response waits until the first ride exists.
async fn demo_session(server: &Server) -> Value {
    get(server, "/console/session", &[]).await.expect(200).json()
}

/// Asserts an empty 204: a browser would show an error status as an error of the page.
fn assert_no_content(response: Response) {
    let response = response.expect(204);
    assert_eq!((response.text().as_str(), response.header("cache-control")), ("", "no-store"));
}

/// Returns the deliveries that the demo's receiver has got.
async fn deliveries(server: &Server) -> Value {
    get(server, "/console/deliveries", &[]).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_delivers_the_feed_to_its_own_receiver() {
    let database = Database::create().await;
    let demo = Server::start_with(&database, &[DEMO]).await;
    demo_session(&demo).await;
    let service = demo.service();
    eventually("the receiver's webhook", async || deliveries(&demo).await["webhook"].as_str().map(str::to_owned)).await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(201);
    demo.rider("rider_1").send("ride_1", "Hello").await;
    let delivered = eventually("the delivery", async || {
        let view = deliveries(&demo).await;
        let all = view["deliveries"].as_array().unwrap().clone();
        all.into_iter().find(|delivery| delivery["body"]["type"] == "message.new")
    })
    .await;
    assert_eq!(delivered["body"]["data"]["data"]["content"], "Hello");
    assert_eq!(delivered["isRepeated"], false);
    let view = deliveries(&demo).await;
    assert_eq!(view["url"], format!("{}/console/receiver", demo.base));
    assert_eq!(view["rejected"], 0);

    // A delivery with an invalid signature is rejected and not shown.
    let forged = reqwest::Client::new().post(format!("{}/console/receiver", demo.base));
    let forged = forged.header("webhook-id", "evt_1").header("webhook-timestamp", "1769121900");
    let forged = forged.header("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let response = forged.body(r#"{"type":"message.new","data":{}}"#).send().await.unwrap();
    Response::of("a forged delivery".to_owned(), response).await.problem(400, "invalid_request");
    let view = deliveries(&demo).await;
    assert_eq!(view["rejected"], 1);
    assert!(view["deliveries"].as_array().unwrap().iter().all(|delivery| delivery["id"] != "evt_1"));

    // Pages of other sites get no deliveries.
    assert_no_content(get(&demo, "/console/deliveries", &[("sec-fetch-site", "cross-site")]).await);
    // After a restart there is one webhook again, with another secret.
    demo.kill().await;
    let again = Server::start_with(&database, &[DEMO]).await;
    demo_session(&again).await;
    let url = format!("{}/console/receiver", again.base);
    eventually("one webhook of this run", async || {
        let listed = again.service().get("webhooks").await.expect(200).json();
        let urls: Vec<_> =
            listed["webhooks"].as_array().unwrap().iter().map(|webhook| webhook["url"].clone()).collect();
        (urls == [json!(url)]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_demo_accepts_webhooks_to_its_own_receiver() {
    let database = Database::create().await;
    let plain = Server::start_with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    let own = |server: &Server| json!({ "url": format!("{}/console/receiver", server.base) });
    plain.service().post("webhooks", own(&plain)).await.problem(400, "invalid_request");
    let posted =
        reqwest::Client::new().post(format!("{}/console/receiver", plain.base)).body("{}").send().await.unwrap();
    assert_eq!(posted.status(), 404);
    assert_no_content(get(&plain, "/console/deliveries", &[]).await);

    let demo = Server::start_with(&database, &[DEMO]).await;
    demo.service().post("webhooks", own(&plain)).await.problem(400, "invalid_request");
    demo.service().post("webhooks", json!({ "url": "http://127.0.0.1/" })).await.problem(400, "invalid_request");
    demo.service().post("webhooks", own(&demo)).await.expect(201);
    // A demo that other machines can reach has no receiver, nor has a demo without the console or the feed.
    for setting in [("RIDEWIRE_LISTEN", "0.0.0.0:0"), ("RIDEWIRE_CONSOLE", "off")] {
        let without = Server::start_with(&database, &[DEMO, setting]).await;
        let url = format!("{}/console/receiver", without.base.replace("0.0.0.0", "127.0.0.1"));
        let posted = reqwest::Client::new().post(url).body("{}").send().await.unwrap();
        assert_eq!(posted.status(), 404, "{setting:?}");
    }
    let without = Server::start_with(&database, &[DEMO, ("RIDEWIRE_FEED", "off")]).await;
    assert_no_content(get(&without, "/console/deliveries", &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_ride_proceeds_while_it_is_viewed() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[DEMO]).await;
    let session = demo_session(&server).await;
    let ride = session["ride"].as_str().unwrap();
    let rider = server.rider("lena").with_token(session["tokens"]["rider"].as_str().unwrap());
    // Without a viewer the ride does not proceed.
    let resting = rider.get(&format!("rides/{ride}")).await.expect(200).json();
    assert_eq!(resting["status"], "requested");
    let mut stream = rider.stream(ride, "after=0").await;
    assert_eq!(stream.find("ride:accept").await.data["ride"]["driverId"], "amir");
    let first = stream.find("ride:location").await.data;
    let second = stream.find("ride:location").await.data;
    assert_ne!([&first["lat"], &first["lng"]], [&second["lat"], &second["lng"]]);
    assert_eq!(stream.find("typing:indicator").await.data, json!({ "rideId": ride, "userId": "amir", "typing": true }));
    assert_eq!(stream.find("message:new").await.data["senderId"], "amir");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_demo_ride_is_cancelled_at_the_next_start() {
    let database = Database::create().await;
    let first = Server::start_with(&database, &[DEMO]).await;
    let cut_off = demo_session(&first).await["ride"].as_str().unwrap().to_owned();
    first.kill().await;
    let second = Server::start_with(&database, &[DEMO]).await;
    let session = demo_session(&second).await;
    assert_ne!(session["ride"], *cut_off);
    let rider = second.rider("lena").with_token(session["tokens"]["rider"].as_str().unwrap());
    assert_eq!(rider.get(&format!("rides/{cut_off}")).await.expect(200).json()["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_moves_to_the_admin_listener() {
    let database = Database::create().await;
    // A port that is free now: the server does not print its admin address.
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let settings = [("RIDEWIRE_CONSOLE", "on"), ("RIDEWIRE_ADMIN_LISTEN", admin.as_str())];
    let server = Server::start_with(&database, &settings).await;
    for path in ["/", "/docs"] {
        get(&server, path, &[]).await.problem(404, "not_found");
        let page = reqwest::get(format!("http://{admin}{path}")).await.unwrap();
        assert_eq!(page.status(), 200);
    }
    // The admin address also serves the API, for the console's scripts.
    let api = reqwest::get(format!("http://{admin}/api/v1/rides")).await.unwrap();
    assert_eq!(api.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_console_setting_is_reported() {
    let mut wrong = ridewire();
    wrong.env("RIDEWIRE_JWT_SECRET", SECRET).env("RIDEWIRE_CONSOLE", "perhaps");
    let output = wrong.output().await.unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--console"), "{output:?}");
}
