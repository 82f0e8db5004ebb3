//! The documentation agrees with the program: the examples of `docs/reference/events.md` have the members of the real events,
//! and `docs/explanation/security.md` names existing tests. `CHANGELOG.md` names the migrations that
//! block writes. `docs/reference/plans.md` has every statement on large tables, and `docs/explanation/scaling.md` agrees with its model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::moderation::hook::{Hook, Reply};
use crate::support::{Database, Server, Stream, eventually, retry_with_longer_limit};

/// Returns the examples of the document by event type. The type is the heading of the example.
fn examples() -> BTreeMap<String, Value> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/events.md")).unwrap();
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

/// Returns the shape of a value: its members and their types.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| (name.clone(), shape(member))).collect::<Map<_, _>>())
        }
        // A list counts only if it has objects, because a list of names may be empty here.
        Value::Array(items) => json!(items.first().filter(|first| first.is_object()).map(shape)),
        Value::Bool(_) => json!("boolean"),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        other => other.clone(),
    }
}

/// Reads a stream until events of all these types have arrived.
async fn collect(stream: &mut Stream, kinds: &[&str], found: &mut BTreeMap<String, Value>) {
    // By default, `next_event` skips presence.
    stream.includes_presence = true;
    let mut missing: Vec<_> = kinds.iter().filter(|kind| !found.contains_key(**kind)).collect();
    while !missing.is_empty() {
        let event = stream.next_event().await;
        missing.retain(|kind| **kind != event.kind);
        found.entry(event.kind).or_insert(event.data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_have_the_members_of_real_events() {
    let database = Database::create().await;
    let hook = Hook::start(|_| Reply::Json(json!({ "action": "flag", "labels": ["phone_number"] }))).await;
    let settings = [("RIDEWIRE_CHAT_GRACE", "1s"), ("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let server = Server::start_with(&database, &[&settings[..], &hook.settings()].concat()).await;
    let (rider, driver, service) = (server.rider("rider_1"), server.driver("driver_1"), server.service());
    let mut rider_stream = rider.stream_all("", None).await.expect(200);
    let mut driver_events = service.stream_all("types=driver:*", None).await.expect(200);
    driver_events.next_sync().await;
    let mut found = BTreeMap::new();

    driver.put("drivers/me/availability", json!({ "available": true, "lat": 52.52, "lng": 13.405 })).await.expect(200);
    collect(&mut driver_events, &["driver:availability"], &mut found).await;
    service.put_ride("ride_123", "rider_1", None).await.expect(201);
    driver.post_empty("rides/ride_123/accept").await.expect(200);
    collect(&mut rider_stream, &["ride:assigned", "ride:participants", "ride:accept"], &mut found).await;
    let driver_stream = driver.stream_all("", None).await.expect(200);
    collect(&mut rider_stream, &["presence:online"], &mut found).await;
    let sent = rider.post("messages", json!({ "rideId": "ride_123", "content": "I am at the main gate" })).await;
    let sent = sent.expect(201).json();
    rider.edit(&sent, "I am at the side gate").await.expect(200);
    driver
        .put(&format!("messages/{}/reactions/%F0%9F%91%8D", sent["id"].as_str().unwrap()), json!({}))
        .await
        .expect(204);
    driver.mark(&sent, "delivered").await.expect(200);
    driver.mark(&sent, "read").await.expect(200);
    driver.post("messages/rides/ride_123/typing", json!({ "typing": true })).await.expect(202);
    driver.post("rides/ride_123/location", json!({ "lat": 52.52, "lng": 13.405, "heading": 90 })).await.expect(202);
    rider.delete_message(&sent).await.expect(204);
    driver.set_status("ride_123", "arrived").await.expect(200);
    service.broadcast(&["rider_1"], json!({ "text": "Heavy rain: drivers may be late" })).await.expect(202);
    drop(driver_stream);
    collect(&mut rider_stream, &["presence:offline"], &mut found).await;
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
    collect(&mut rider_stream, &rest, &mut found).await;
    let until = ridewire::domain::Time::now().plus(std::time::Duration::from_secs(600)).to_string();
    let reopening = json!({ "until": until, "reason": "The rider lost their umbrella" });
    server.support().post("rides/ride_123/reopen", reopening).await.expect(200);
    // Waits for the event of the user's topic: only that one has `fromSeq`.
    while found.get("ride:reopened").is_none_or(|data| data.get("fromSeq").is_none()) {
        found.remove("ride:reopened");
        collect(&mut rider_stream, &["ride:reopened"], &mut found).await;
    }
    // Closes the chat again soon, for `stream:closing`.
    let until = ridewire::domain::Time::now().plus(std::time::Duration::from_secs(2)).to_string();
    server.support().post("rides/ride_123/reopen", json!({ "until": until })).await.expect(200);
    let feed = service.request(Method::GET, "feed?after=0&types=message:flagged");
    collect(&mut Stream::open(feed).await.expect(200), &["message:flagged"], &mut found).await;
    eventually("the ride is read-only", async || {
        (rider.get("rides/ride_123").await.expect(200).json()["chat"] == "readOnly").then_some(())
    })
    .await;
    let mut ride_stream = rider.stream("ride_123", "").await.expect(200);
    // The document shows the `stream:sync` of a ride, not of a merged stream.
    found.remove("stream:sync");
    collect(&mut ride_stream, &["stream:sync", "stream:closing"], &mut found).await;
    let mut short_lived = retry_with_longer_limit("a stream opens before its token expires", async |ttl| {
        let stream = rider.clone().with_token_ttl(ttl).stream_all("", None).await;
        (stream.status == 200).then_some(stream)
    })
    .await;
    collect(&mut short_lived, &["auth:expired"], &mut found).await;

    let examples = examples();
    let documented: Vec<_> = examples.keys().collect();
    assert_eq!(documented, found.keys().collect::<Vec<_>>(), "every type has a section with an example");
    for (kind, example) in &examples {
        assert_eq!(shape(example), shape(&found[kind]), "{kind}: {}", found[kind]);
    }
}

#[test]
fn the_changelog_names_the_migrations_that_block_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).unwrap();
    let (_, section) = changelog.split_once("### Migrations that lock\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let named: Vec<&str> = section.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    for entry in fs::read_dir(root.join("sql/migrations")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let code = code.join(" ");
        // Returns the word after `before` of each such statement.
        let tables_named_after = |statement: &str, before: &str| -> Vec<String> {
            let rest = code.split(statement).skip(1).filter_map(|rest| rest.split_once(before));
            rest.map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default().to_owned()).collect()
        };
        let created =
            [tables_named_after("create table", " "), tables_named_after("create unlogged table", " ")].concat();
        let locked = [
            tables_named_after("create index", " on "),
            tables_named_after("create unique index", " on "),
            tables_named_after("update messages", "set"),
            tables_named_after("update participants", "set"),
        ]
        .concat();
        let (version, _) = path.file_name().unwrap().to_str().unwrap().split_once("__").unwrap();
        let locks = locked.iter().any(|table| !created.contains(table));
        assert!(!locks || named.contains(&version), "CHANGELOG.md does not mention the locks of {version}");
    }
}

#[test]
fn the_tests_named_in_the_security_document_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/explanation/security.md")).unwrap();
    let mut named = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let Some((module, test)) = name.rsplit_once("::") else { continue };
        let file = match module.split_once("::") {
            Some((suite @ ("it" | "faults"), module)) => {
                root.join(format!("tests/{suite}/{}.rs", module.replace("::", "/")))
            }
            _ => {
                // The tests of a module are in a separate file or in the module's file.
                let file = |module: &str| root.join("src").join(module.replace("::", "/")).with_extension("rs");
                let own = file(module);
                if own.exists() { own } else { file(module.trim_end_matches("::tests")) }
            }
        };
        let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {}: {error}", file.display()));
        assert!(source.contains(&format!("fn {test}()")), "{name} does not exist");
        named += 1;
    }
    assert!(named > 20, "{named}");
    // The OWASP API Security Top 10.
    for point in 1..=10 {
        assert!(text.contains(&format!("**API{point},")), "API{point} is missing");
    }
}

#[test]
fn every_statement_on_messages_or_events_has_a_plan() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reference/plans.md")).unwrap();
    let mut statements = 0;
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
                assert!(page.contains(&format!("| `{name}` |")), "docs/reference/plans.md has no row for sql/{name}");
                statements += 1;
            }
        }
    }
    assert!(statements > 20, "{statements}");
}

#[test]
fn the_scaling_document_agrees_with_its_model() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explanation");
    let model = docs.join("scaling/model.py");
    let Ok(output) = Command::new("python3").arg(&model).arg("--check").output() else {
        eprintln!("skipped: python3 is not installed; docs/explanation/scaling.md is not checked");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The check reads the page: with another cost on the page it must fail.
    let page = fs::read_to_string(docs.join("scaling.md")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("scaling")).unwrap();
    let copy = directory.path().join("scaling/model.py");
    fs::copy(&model, &copy).unwrap();
    let (before, after) = page.split_once("| `send_postgres_us` | ").unwrap();
    let changed = format!("{before}| `send_postgres_us` | 1{after}");
    fs::write(directory.path().join("scaling.md"), changed).unwrap();
    let output = Command::new("python3").arg(&copy).arg("--check").output().unwrap();
    assert!(!output.status.success(), "the model does not read the page's costs");
}
