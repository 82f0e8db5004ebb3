//! The console and the reference: off unless asked for, whole where it is on, and silent about tokens wherever it is not a demo's own.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Answer, Database, SECRET, Server, eventually, ridewire};

const DEMO: (&str, &str) = ("RIDEWIRE_DEMO", "true");

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    let url = format!("{}{path}", server.base);
    let request = reqwest::Client::new().get(&url);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(url, request.send().await.unwrap()).await
}

/// The paths that a file names: what it imports, links or fetches.
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
async fn it_is_not_there_unless_it_is_asked_for() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    for path in ["/", "/console/style.css", "/console/session", "/client/index.js", "/docs", "/docs/", "/docs/page.css"]
    {
        get(&server, path, &[]).await.problem(404, "not_found");
    }
    let without = Server::with(&database, &[DEMO, ("RIDEWIRE_CONSOLE", "off")]).await;
    get(&without, "/", &[]).await.problem(404, "not_found");
    get(&without, "/docs", &[]).await.problem(404, "not_found");
    get(&without, "/console/session", &[]).await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_that_is_named_is_served_as_what_it_is() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    let mut waiting = vec!["/".to_owned(), "/docs".to_owned()];
    let mut found = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if !found.insert(path.clone()) {
            continue;
        }
        let answer = get(&server, &path, &[]).await.expect(200);
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
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert_eq!(answer.header("cache-control"), "no-cache", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        let policy = answer.header("content-security-policy").to_owned();
        for rule in ["default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http:"), "{policy}");
        let text = answer.text();
        // Nothing from elsewhere, and nothing that the policy would stop.
        let elsewhere = text.replace("http://www.w3.org/", "").replace("http://127.0.0.1:8081", "");
        assert!(!elsewhere.contains("http://") && !text.contains(" style=") && !text.contains("onclick=\""), "{path}");
        waiting.extend(named(&path, &text));
    }
    // What is in the directories is used, and what is used is there.
    let mut there = BTreeSet::from(["/", "/docs", "/openapi.json"].map(str::to_owned));
    for (directory, at) in [
        ("web", "/console"),
        ("web/js", "/console/js"),
        ("web/reference", "/docs"),
        ("web/reference/js", "/docs/js"),
        ("clients/js/src", "/client"),
    ] {
        there.extend(files_below(directory, at));
    }
    assert_eq!(found, there);
    get(&server, "/console/other.js", &[]).await.problem(404, "not_found");
    get(&server, "/console/../secret", &[]).await.problem(404, "not_found");
    get(&server, "/docs/index.html", &[]).await.problem(404, "not_found");
    assert_eq!(get(&server, "/docs/", &[]).await.expect(200).text(), get(&server, "/docs", &[]).await.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_known_is_not_sent_again() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    let first = get(&server, "/console/style.css", &[]).await.expect(200);
    let etag = first.header("etag").to_owned();
    let again = get(&server, "/console/style.css", &[("if-none-match", &etag)]).await.expect(304);
    assert_eq!((again.header("etag"), again.text().as_str()), (etag.as_str(), ""));
    get(&server, "/console/phone.css", &[("if-none-match", &etag)]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_a_demos_own_page_is_given_tokens() {
    let database = Database::create().await;
    let plain = Server::with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    nothing_for_it(get(&plain, "/console/session", &[]).await);
    // Not even a demo gives them to who is not on this machine.
    let open = Server::with(&database, &[DEMO, ("RIDEWIRE_LISTEN", "0.0.0.0:0")]).await;
    let address = open.base.replace("0.0.0.0", "127.0.0.1");
    let answer = reqwest::get(format!("{address}/console/session")).await.unwrap();
    assert_eq!(answer.status(), 204);

    let demo = Server::with(&database, &[DEMO, ("RIDEWIRE_CORS_ORIGINS", "*")]).await;
    let given = session(&demo).await;
    assert_eq!(given["ride"].as_str().unwrap().split('_').next(), Some("demo"));
    for role in ["rider", "driver", "support", "service"] {
        demo.rider("x").with_token(given["tokens"][role].as_str().unwrap()).get("rides").await.expect(200);
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
        // A name of the attacker's that leads to this machine.
        [("host", "rebound.example"), ("sec-fetch-site", "same-origin")],
    ] {
        nothing_for_it(get(&demo, "/console/session", &foreign).await);
    }
    let headers: HeaderMap = reqwest::get(format!("{own}/console/session")).await.unwrap().headers().clone();
    assert_eq!(headers["cache-control"], "no-store");
}

/// What a demo's page is given. It may be quicker than the first ride, and waits for it.
async fn session(server: &Server) -> Value {
    get(server, "/console/session", &[]).await.expect(200).json()
}

/// No token, and no refusal either: a browser would show that as an error of the page.
fn nothing_for_it(answer: Answer) {
    let answer = answer.expect(204);
    assert_eq!((answer.text().as_str(), answer.header("cache-control")), ("", "no-store"));
}

/// What the demo's receiver has received: the answer for its own page.
async fn deliveries(server: &Server) -> Value {
    get(server, "/console/deliveries", &[]).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_delivers_the_feed_to_its_own_receiver() {
    let database = Database::create().await;
    let demo = Server::with(&database, &[DEMO]).await;
    session(&demo).await;
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

    // What nobody has signed is rejected, and not shown.
    let forged = reqwest::Client::new().post(format!("{}/console/receiver", demo.base));
    let forged = forged.header("webhook-id", "evt_1").header("webhook-timestamp", "1769121900");
    let forged = forged.header("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let answer = forged.body(r#"{"type":"message.new","data":{}}"#).send().await.unwrap();
    Answer::of("a forged delivery".to_owned(), answer).await.problem(400, "invalid_request");
    let view = deliveries(&demo).await;
    assert_eq!(view["rejected"], 1);
    assert!(view["deliveries"].as_array().unwrap().iter().all(|delivery| delivery["id"] != "evt_1"));

    // Other pages see nothing, as with tokens.
    nothing_for_it(get(&demo, "/console/deliveries", &[("sec-fetch-site", "cross-site")]).await);
    // After a restart there is one webhook again, with another secret.
    demo.kill().await;
    let again = Server::with(&database, &[DEMO]).await;
    session(&again).await;
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
async fn only_a_demos_webhooks_may_lead_to_the_server_itself_and_only_to_its_own_port() {
    let database = Database::create().await;
    let plain = Server::with(&database, &[("RIDEWIRE_CONSOLE", "on")]).await;
    let own = |server: &Server| json!({ "url": format!("{}/console/receiver", server.base) });
    plain.service().post("webhooks", own(&plain)).await.problem(400, "invalid_request");
    let posted =
        reqwest::Client::new().post(format!("{}/console/receiver", plain.base)).body("{}").send().await.unwrap();
    assert_eq!(posted.status(), 404);
    nothing_for_it(get(&plain, "/console/deliveries", &[]).await);

    let demo = Server::with(&database, &[DEMO]).await;
    demo.service().post("webhooks", own(&plain)).await.problem(400, "invalid_request");
    demo.service().post("webhooks", json!({ "url": "http://127.0.0.1/" })).await.problem(400, "invalid_request");
    demo.service().post("webhooks", own(&demo)).await.expect(201);
    // A demo that others can reach has no receiver, nor one without the console or the feed.
    for setting in [("RIDEWIRE_LISTEN", "0.0.0.0:0"), ("RIDEWIRE_CONSOLE", "off")] {
        let without = Server::with(&database, &[DEMO, setting]).await;
        let url = format!("{}/console/receiver", without.base.replace("0.0.0.0", "127.0.0.1"));
        let posted = reqwest::Client::new().post(url).body("{}").send().await.unwrap();
        assert_eq!(posted.status(), 404, "{setting:?}");
    }
    let without = Server::with(&database, &[DEMO, ("RIDEWIRE_FEED", "off")]).await;
    nothing_for_it(get(&without, "/console/deliveries", &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demos_ride_is_driven_while_somebody_looks() {
    let database = Database::create().await;
    let server = Server::with(&database, &[DEMO]).await;
    let given = session(&server).await;
    let ride = given["ride"].as_str().unwrap();
    let rider = server.rider("lena").with_token(given["tokens"]["rider"].as_str().unwrap());
    // Nobody looks: nothing happens.
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
async fn a_ride_that_a_stop_has_cut_off_is_cancelled_at_the_next_start() {
    let database = Database::create().await;
    let first = Server::with(&database, &[DEMO]).await;
    let cut_off = session(&first).await["ride"].as_str().unwrap().to_owned();
    first.kill().await;
    let second = Server::with(&database, &[DEMO]).await;
    let given = session(&second).await;
    assert_ne!(given["ride"], *cut_off);
    let rider = second.rider("lena").with_token(given["tokens"]["rider"].as_str().unwrap());
    assert_eq!(rider.get(&format!("rides/{cut_off}")).await.expect(200).json()["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_address_for_operators_it_is_there_and_not_at_the_public_one() {
    let database = Database::create().await;
    // A port that was free a moment ago: the server does not say where its second address is.
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let settings = [("RIDEWIRE_CONSOLE", "on"), ("RIDEWIRE_ADMIN_LISTEN", admin.as_str())];
    let server = Server::with(&database, &settings).await;
    for path in ["/", "/docs"] {
        get(&server, path, &[]).await.problem(404, "not_found");
        let page = reqwest::get(format!("http://{admin}{path}")).await.unwrap();
        assert_eq!(page.status(), 200);
    }
    // And the interface beside it, for its scripts.
    let asked = reqwest::get(format!("http://{admin}/api/v1/rides")).await.unwrap();
    assert_eq!(asked.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_setting_is_said() {
    let mut wrong = ridewire();
    wrong.env("RIDEWIRE_JWT_SECRET", SECRET).env("RIDEWIRE_CONSOLE", "perhaps");
    let output = wrong.output().await.unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--console"), "{output:?}");
}
