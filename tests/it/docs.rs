//! `docs/events.md` shows every event as it is; `docs/security.md` names tests that there are; `docs/plans.md` has every
//! statement that grows, and `docs/scaling.md` says what its model computes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::moderation::receiver::{Hook, Reply};
use crate::support::{Database, Server, Stream, eventually, within_a_limit};

/// The examples of the document, by the type in the heading above each.
fn examples() -> BTreeMap<String, Value> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md")).unwrap();
    let mut examples = BTreeMap::new();
    for section in text.split("\n### ").skip(1) {
        let (heading, rest) = section.split_once('\n').unwrap();
        let (_, block) = rest.split_once("```json\n").unwrap_or_else(|| panic!("{heading}: no example"));
        let (block, _) = block.split_once("\n```").unwrap();
        let example = serde_json::from_str(block).unwrap_or_else(|error| panic!("{heading}: {error}"));
        examples.insert(heading.trim_matches('`').to_owned(), example);
    }
    examples
}

/// A value without what it says: its members, and the kind of each.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| (name.clone(), shape(member))).collect::<Map<_, _>>())
        }
        // Lists of names may be empty at the moment.
        Value::Array(items) => json!(items.first().filter(|first| first.is_object()).map(shape)),
        Value::Bool(_) => json!("yes or no"),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        other => other.clone(),
    }
}

/// Reads on until a stream has said all of these.
async fn gather(stream: &mut Stream, kinds: &[&str], found: &mut BTreeMap<String, Value>) {
    stream.hears_presence = true;
    let mut missing: Vec<_> = kinds.iter().filter(|kind| !found.contains_key(**kind)).collect();
    while !missing.is_empty() {
        let event = stream.next_event().await;
        missing.retain(|kind| **kind != event.kind);
        found.entry(event.kind).or_insert(event.data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_are_what_is_sent() {
    let database = Database::create().await;
    let hook = Hook::start(|_| Reply::Json(json!({ "action": "flag", "labels": ["phone_number"] }))).await;
    let settings = [("RIDEWIRE_CHAT_GRACE", "1s"), ("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let server = Server::with(&database, &[&settings[..], &hook.settings()].concat()).await;
    let (rider, driver, service) = (server.rider("rider_1"), server.driver("driver_1"), server.service());
    let mut mine = rider.stream_all("", None).await.expect(200);
    let mut dispatch = service.stream_all("types=driver:*", None).await.expect(200);
    dispatch.next_sync().await;
    let mut found = BTreeMap::new();

    driver.put("drivers/me/availability", json!({ "available": true, "lat": 52.52, "lng": 13.405 })).await.expect(200);
    gather(&mut dispatch, &["driver:availability"], &mut found).await;
    service.put_ride("ride_123", "rider_1", None).await.expect(201);
    driver.post_nothing("rides/ride_123/accept").await.expect(200);
    gather(&mut mine, &["ride:assigned", "ride:participants", "ride:accept"], &mut found).await;
    let drivers_stream = driver.stream_all("", None).await.expect(200);
    gather(&mut mine, &["presence:online"], &mut found).await;
    let sent = rider.post("messages", json!({ "rideId": "ride_123", "content": "I am at the main gate" })).await;
    let sent = sent.expect(201).json();
    rider.edit(&sent, "I am at the side gate").await.expect(200);
    driver
        .put(&format!("messages/{}/reactions/%F0%9F%91%8D", sent["id"].as_str().unwrap()), Value::Null)
        .await
        .expect(204);
    driver.mark(&sent, "delivered").await.expect(200);
    driver.mark(&sent, "read").await.expect(200);
    driver.post("messages/rides/ride_123/typing", json!({ "typing": true })).await.expect(202);
    driver.post("rides/ride_123/location", json!({ "lat": 52.52, "lng": 13.405, "heading": 90 })).await.expect(202);
    rider.erase(&sent).await.expect(204);
    driver.set_status("ride_123", "arrived").await.expect(200);
    service.broadcast(&["rider_1"], json!({ "text": "Heavy rain: drivers may be late" })).await.expect(202);
    drop(drivers_stream);
    gather(&mut mine, &["presence:offline"], &mut found).await;
    rider.post("rides/ride_123/cancel", json!({ "reason": "The rider did not show up" })).await.expect(200);
    let rest = [
        "message:new",
        "message:edited",
        "message:reaction",
        "message:delivered",
        "message:read",
        "message:deleted",
        "typing:indicator",
        "presence:offline",
        "ride:location",
        "ride:status",
        "ride:cancel",
        "ride:closed",
        "notice",
    ];
    gather(&mut mine, &rest, &mut found).await;
    let until = ridewire::domain::Time::now().plus(std::time::Duration::from_secs(600)).to_string();
    let reopening = json!({ "until": until, "reason": "The rider lost their umbrella" });
    server.support().post("rides/ride_123/reopen", reopening).await.expect(200);
    // That of the user's own topic, which says from where on.
    while found.get("ride:reopened").is_none_or(|data| data.get("fromSeq").is_none()) {
        found.remove("ride:reopened");
        gather(&mut mine, &["ride:reopened"], &mut found).await;
    }
    let until = ridewire::domain::Time::now().plus(std::time::Duration::from_secs(2)).to_string();
    server.support().post("rides/ride_123/reopen", json!({ "until": until })).await.expect(200);
    let feed = service.request(Method::GET, "feed?after=0&types=message:flagged");
    gather(&mut Stream::open(feed).await.expect(200), &["message:flagged"], &mut found).await;
    eventually("the ride is read-only", async || {
        (rider.get("rides/ride_123").await.expect(200).json()["chat"] == "readOnly").then_some(())
    })
    .await;
    let mut whole = rider.stream("ride_123", "").await.expect(200);
    // Of a ride, and not of everything: what the document shows.
    found.remove("stream:sync");
    gather(&mut whole, &["stream:sync", "stream:closing"], &mut found).await;
    let mut brief = within_a_limit("a stream begins with a brief token", async |ttl| {
        let stream = rider.clone().for_another(ttl).stream_all("", None).await;
        (stream.status == 200).then_some(stream)
    })
    .await;
    gather(&mut brief, &["auth:expired"], &mut found).await;

    let examples = examples();
    let documented: Vec<_> = examples.keys().collect();
    assert_eq!(documented, found.keys().collect::<Vec<_>>(), "every type has a section with an example");
    for (kind, example) in &examples {
        assert_eq!(shape(example), shape(&found[kind]), "{kind}: {}", found[kind]);
    }
}

#[test]
fn the_tests_that_are_to_show_what_is_safe_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut named = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let Some((module, test)) = name.rsplit_once("::") else { continue };
        let file = match module.split_once("::") {
            Some((suite @ ("it" | "faults"), module)) => {
                root.join(format!("tests/{suite}/{}.rs", module.replace("::", "/")))
            }
            _ => {
                // The tests of a module are in a file of their own, or in the module's.
                let file = |module: &str| root.join("src").join(module.replace("::", "/")).with_extension("rs");
                let own = file(module);
                if own.exists() { own } else { file(module.trim_end_matches("::tests")) }
            }
        };
        let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {}: {error}", file.display()));
        assert!(source.contains(&format!("fn {test}()")), "{name} is not there");
        named += 1;
    }
    assert!(named > 20, "{named}");
    for point in 1..=10 {
        assert!(text.contains(&format!("**API{point},")), "nothing on API{point}");
    }
}

#[test]
fn every_statement_that_touches_messages_or_events_has_its_plan() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/plans.md")).unwrap();
    let mut looked_at = 0;
    for directory in fs::read_dir(root.join("sql")).unwrap().map(|entry| entry.unwrap().path()) {
        if directory.ends_with("migrations") {
            continue;
        }
        for file in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" ");
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| ["messages", "events", "ride_snapshots"].contains(&word)) {
                let name = file.strip_prefix(root.join("sql")).unwrap().display().to_string();
                assert!(page.contains(&format!("| `{name}` |")), "docs/plans.md has nothing on sql/{name}");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 20, "{looked_at}");
}

#[test]
fn the_page_on_growth_says_what_its_model_computes() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let model = docs.join("scaling/model.py");
    let Ok(checked) = Command::new("python3").arg(&model).arg("--check").output() else {
        eprintln!("there is no python3, so docs/scaling.md is not checked");
        return;
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // What is checked is the page: with other costs it would have to say something else.
    let page = fs::read_to_string(docs.join("scaling.md")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("scaling")).unwrap();
    let copy = directory.path().join("scaling/model.py");
    fs::copy(&model, &copy).unwrap();
    let (before, after) = page.split_once("| `send_postgres_us` | ").unwrap();
    let dearer = format!("{before}| `send_postgres_us` | 1{after}");
    fs::write(directory.path().join("scaling.md"), dearer).unwrap();
    let checked = Command::new("python3").arg(&copy).arg("--check").output().unwrap();
    assert!(!checked.status.success(), "the model does not read the page's costs");
}
