//! `docs/events.md` shows every event as it is; `docs/security.md` names tests that there are; the calls of the pages about
//! moving an app work as they stand there; and links lead somewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Database, PATIENCE, Server, Stream, eventually};

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
    let settings = [("RIDEWIRE_CHAT_GRACE", "1s"), ("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let server = Server::with(&database, &settings).await;
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
    eventually("the ride is read-only", async || {
        (rider.get("rides/ride_123").await.expect(200).json()["chat"] == "readOnly").then_some(())
    })
    .await;
    let mut whole = rider.stream("ride_123", "").await.expect(200);
    // Of a ride, and not of everything: what the document shows.
    found.remove("stream:sync");
    gather(&mut whole, &["stream:sync", "stream:closing"], &mut found).await;
    let mut brief = rider.clone().for_another(Duration::from_secs(2)).stream_all("", None).await.expect(200);
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
            Some((suite @ ("it" | "faults"), module)) => root.join(format!("tests/{suite}/{module}.rs")),
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

/// What is around the commands of a page: a refusal ends it all, and a stream is left once it has begun.
const PRELUDE: &str = r#"set -eu
curl() {
    case " $* " in
    *" -N "*)
        said=$(timeout 2 curl -sS --fail-with-body --noproxy '*' "$@") || [ $? -eq 124 ]
        printf '%s\n' "$said"
        ;;
    *) command curl -sS --fail-with-body --noproxy '*' "$@" ;;
    esac
}
"#;

/// Runs what a page tells to paste, in one shell, and returns what it prints.
async fn pasted(page: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let blocks: Vec<_> = text.split("```bash\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let token = |name: &str| match name {
        "RIDER" => server.rider("rider_1").token,
        "DRIVER" => server.driver("driver_1").token,
        _ => server.service().token,
    };
    // The settings of a reader's own machine are those of this server.
    let (settings, commands) = blocks.split_first().unwrap();
    let mut script = PRELUDE.to_owned();
    for line in settings.lines() {
        let (name, _) = line.split_once('=').unwrap();
        let value = if name == "BASE" { format!("{}/api/v1", server.base) } else { token(name) };
        script += &format!("{name}='{value}'\n");
    }
    let script = script + "set -x\n" + &commands.concat();
    let run = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE * 3, run).await.expect("it ends").unwrap();
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page}: {said}\n{log}");
    said.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_an_app_that_polled_work_as_they_stand() {
    let said = pasted("migrate-from-polling.md").await;
    assert!(said.contains("}304\n"), "nothing has changed: {said}");
    assert!(said.contains("event: stream:sync"), "{said}");
    assert!(said.contains(r#""total":0"#), "all is read: {said}");
    let messages = said.split(r#"{"id":""#).skip(1).filter(|message| message.contains("phone-1:17"));
    let named: Vec<_> = messages.filter_map(|message| message.split('"').next()).collect();
    assert!(named.len() >= 2 && named.iter().all(|id| *id == named[0]), "a name is one message: {named:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_an_app_that_had_a_socket_work_as_they_stand() {
    let said = pasted("migrate-from-websocket.md").await;
    assert_eq!(said.matches("event: stream:sync").count(), 2, "{said}");
    assert!(said.contains(r#""status":"arrived""#), "{said}");
}

/// All documents in Markdown, but for those of others.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                waiting.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// What a heading is called in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        // Not what only looks like a link in an example.
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let named = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let shown = document.display();
            assert!(named.exists(), "{shown}: {target} is not there");
            if !fragment.is_empty() && named.extension().is_some_and(|extension| extension == "md") {
                let there = fs::read_to_string(&named).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line.trim_start_matches('#').trim()) == fragment),
                    "{shown}: {target}: there is no such heading"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}
