//! Checks that openapi.yaml matches the server: every route, every error and every response.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::auth::REQUESTS;
use crate::support::{Database, Response, Server, User, eventually, ridewire};

fn document() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml");
    serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns all operations: the method, the path and the operation object.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if ["get", "put", "post", "patch", "delete"].contains(&method.as_str()) {
                found.push((method.to_uppercase(), path.clone(), operation));
            }
        }
    }
    found
}

/// Collects the differences between a value and its schema: unknown, missing and invalid members.
fn problems(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("no {reference}"));
        return problems(document, found, value, at);
    }
    let Some(schema) = schema.as_object() else { return vec![format!("{at}: no schema")] };
    let mut wrong = Vec::new();
    let of = |part: &Value| problems(document, part, value, at);
    for (keyword, constraint) in schema {
        match keyword.as_str() {
            "allOf" => wrong.extend(constraint.as_array().unwrap().iter().flat_map(of)),
            "oneOf" | "anyOf" => {
                let tried: Vec<_> = constraint.as_array().unwrap().iter().map(of).collect();
                if tried.iter().all(|wrong| !wrong.is_empty()) {
                    wrong.push(format!("{at}: none of the schemas: {tried:?}"));
                }
            }
            "type" => {
                let types = constraint.as_array().cloned().unwrap_or_else(|| vec![constraint.clone()]);
                let is = |name: &Value| match name.as_str().unwrap() {
                    "null" => value.is_null(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "string" => value.is_string(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("{at}: {other}"),
                };
                if !types.iter().any(is) {
                    wrong.push(format!("{at}: {value} is no {constraint}"));
                }
            }
            "enum" if !constraint.as_array().unwrap().contains(value) => {
                wrong.push(format!("{at}: {value} not of {constraint}"))
            }
            "required" if value.is_object() => {
                let missing =
                    constraint.as_array().unwrap().iter().filter(|name| value.get(name.as_str().unwrap()).is_none());
                wrong.extend(missing.map(|name| format!("{at}: no {name}")));
            }
            "properties" if value.is_object() => {
                for (name, member) in value.as_object().unwrap() {
                    let below = format!("{at}/{name}");
                    match constraint.get(name) {
                        Some(schema) => wrong.extend(problems(document, schema, member, &below)),
                        None if schema.get("additionalProperties").is_some_and(Value::is_object) => {}
                        None => wrong.push(format!("{below}: not documented")),
                    }
                }
            }
            "items" if value.is_array() => {
                for (index, item) in value.as_array().unwrap().iter().enumerate() {
                    wrong.extend(problems(document, constraint, item, &format!("{at}/{index}")));
                }
            }
            "minimum" if value.is_number() && value.as_f64() < constraint.as_f64() => {
                wrong.push(format!("{at}: {value} is below {constraint}"));
            }
            "format" if value.is_string() => {
                let text = value.as_str().unwrap();
                let fits = match constraint.as_str().unwrap() {
                    "date-time" => text.parse::<jiff::Timestamp>().is_ok() && text.ends_with('Z'),
                    "uuid" => uuid::Uuid::try_parse(text).is_ok(),
                    _ => true,
                };
                if !fits {
                    wrong.push(format!("{at}: {text} is no {constraint}"));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Checks a response against the document.
struct Check {
    document: Value,
    seen: BTreeSet<String>,
}

impl Check {
    fn verify(&mut self, operation: &str, response: &Response) {
        let operations = operations(&self.document);
        let (.., found) = operations
            .iter()
            .find(|(.., found)| found["operationId"] == operation)
            .unwrap_or_else(|| panic!("no operation {operation}"));
        let status = response.status.as_str();
        let documented =
            found["responses"].get(status).unwrap_or_else(|| panic!("{operation}: {status} is not documented"));
        self.seen.insert(operation.to_owned());
        let Some(content) = documented.get("content") else {
            assert!(response.body.is_empty(), "{operation} {status}: {}", response.text());
            return;
        };
        let kind = response.header("content-type").split(';').next().unwrap();
        let schema =
            &content.get(kind).unwrap_or_else(|| panic!("{operation} {status}: {kind} is not documented"))["schema"];
        let value = match kind {
            "application/json" | "application/problem+json" => serde_json::from_slice(&response.body).unwrap(),
            _ => json!(response.text()),
        };
        let wrong = problems(&self.document, schema, &value, "");
        assert!(wrong.is_empty(), "{operation} {status}: {wrong:#?}\n{value:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_current_and_served() {
    let printed = ridewire().arg("openapi").output().await.unwrap();
    assert!(printed.status.success());
    let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml")).unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed == file, "openapi.yaml is not current: generate it with `ridewire openapi > openapi.yaml`");
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let served = reqwest::get(format!("{}/openapi.yaml", server.base)).await.unwrap();
    assert_eq!(served.status(), 200);
    assert_eq!(served.text().await.unwrap(), file);
    let json = reqwest::get(format!("{}/openapi.json", server.base)).await.unwrap();
    assert_eq!(json.headers()["content-type"], "application/json");
    assert_eq!(json.json::<Value>().await.unwrap(), document());
}

/// Client generators skip a type with a member that is an `allOf` with a single schema.
#[test]
fn no_schema_is_an_all_of_with_a_single_member() {
    fn find(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let below = format!("{at}/{name}");
                    let is_single = |member: &Value| {
                        let is_schema =
                            |part: &&Value| ["$ref", "oneOf", "type"].iter().any(|key| part.get(key).is_some());
                        member.as_array().is_some_and(|parts| parts.iter().filter(is_schema).count() < 2)
                    };
                    if name == "allOf" && is_single(member) {
                        found.push(below.clone());
                    }
                    find(member, &below, found);
                }
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, item)| find(item, &format!("{at}/{index}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    find(&document(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// Each error response has an example for each of its codes, equal to the server's own problem.
#[test]
fn every_code_has_an_example() {
    let document = document();
    let mut shown = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let Some(content) = response["content"].get("application/problem+json") else { continue };
            let examples = content["examples"].as_object().unwrap_or_else(|| panic!("{method} {path} {status}: none"));
            for (code, reference) in examples {
                let example = document.pointer(reference["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap();
                let body = &example["value"];
                assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status.parse::<u16>().unwrap())));
                assert_eq!(problems(&document, &content["schema"], body, ""), Vec::<String>::new(), "{code}");
                shown.insert(code.as_str());
            }
        }
    }
    let all: BTreeSet<_> = document["components"]["examples"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(shown, all, "every code has an example");
}

/// The console's paths belong to its page and are not part of the API.
#[test]
fn the_console_is_not_part_of_the_api() {
    for (_, path, _) in operations(&document()) {
        let is_api_path = path.starts_with("/api/v1/") || ["/healthz", "/readyz", "/metrics"].contains(&path.as_str());
        assert!(is_api_path, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_documented_and_every_documented_route_exists() {
    let document = document();
    let documented = operations(&document);
    let template = |path: &str| {
        format!("/api/v1/{path}")
            .replace("ride_1", "{rideId}")
            .replace("0198c0de-0000-7000-8000-000000000000", "{messageId}")
            .replace("%F0%9F%91%8D", "{emoji}")
            .replace("users/rider_1", "users/{userId}")
            .replace("wh_1", "{webhookId}")
    };
    for (method, path) in REQUESTS {
        let is_there = documented.iter().any(|(known, at, _)| known == method && *at == template(path));
        assert!(is_there, "{method} {path} is not documented");
    }
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let anonymous = server.rider("anonymous").with_token("");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in &documented {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no operationId"));
        assert!(ids.insert(id), "{id} twice");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{id}");
        let Some(below) = path.strip_prefix("/api/v1/") else { continue };
        let below = below
            .replace("{rideId}", "ride_1")
            .replace("{userId}", "rider_1")
            .replace("{messageId}", "0198c0de-0000-7000-8000-000000000000");
        let below = below.replace("{emoji}", "%F0%9F%91%8D");
        let response = anonymous.send_bytes(Method::from_bytes(method.as_bytes()).unwrap(), &below, "{}").await;
        response.problem(401, "token_missing");
        assert!(operation["security"].as_array().unwrap().contains(&json!({ "bearer": [] })), "{id}");
        let named = path.matches('{').count();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        assert_eq!(parameters.iter().filter(|parameter| parameter["in"] == "path").count(), named, "{id}");
    }
}

#[test]
fn every_error_response_is_documented_as_a_problem() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            if path.starts_with("/api/") && status.starts_with(['4', '5']) {
                let schema = &response["content"]["application/problem+json"]["schema"];
                assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
        for status in ["400", "401", "503"] {
            let is_there = !path.starts_with("/api/") || operation["responses"].get(status).is_some();
            assert!(is_there, "{method} {path} does not document {status}");
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name} is not a valid type name");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_match_the_document() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver, service) = (server.rider("rider_1"), server.driver("driver_1"), server.service());
    let mut check = Check { document: document(), seen: BTreeSet::new() };
    let ride = "messages/rides/ride_1";

    check.verify("putRide", &service.put_ride("ride_1", "rider_1", None).await);
    check.verify("putRide", &service.put_ride("ride_1", "rider_1", None).await);
    check.verify("putRide", &rider.put_ride("ride_1", "rider_1", None).await);
    check.verify("sendMessage", &rider.send_with_id("ride_1", "Hello", "m-1").await);
    check.verify("acceptRide", &driver.post_empty("rides/ride_1/accept").await);
    check.verify("acceptRide", &rider.post_empty("rides/ride_1/accept").await);
    check.verify("setRideStatus", &driver.set_status("ride_1", "arrived").await);
    check.verify("setRideStatus", &driver.set_status("ride_1", "accepted").await);
    check.verify("getRide", &driver.get("rides/ride_1").await);
    let body = json!({ "rideId": "ride_1", "content": "Hello", "metadata": { "a": [1] }, "clientMessageId": "m-1" });
    let sent = rider.post("messages", body.clone()).await.expect(201);
    check.verify("sendMessage", &sent);
    check.verify("sendMessage", &rider.post("messages", body).await);
    check.verify("sendMessage", &rider.post("messages", json!({ "content": 1 })).await);
    check.verify("sendMessage", &rider.send_bytes(Method::POST, "messages", "x".repeat(70_000)).await);
    let sent = sent.json();
    let path = format!("messages/{}", sent["id"].as_str().unwrap());
    check.verify("editMessage", &rider.edit(&sent, "Hello!").await);
    check.verify("editMessage", &driver.edit(&sent, "Hello!").await);
    check.verify("getMessage", &driver.get(&path).await);
    check.verify("getMessage", &server.driver("stranger").get(&path).await);
    check.verify("listRides", &driver.get("rides").await);
    check.verify("getUnreadCount", &driver.get(&format!("{ride}/unread-count")).await);
    check.verify("getUnreadCounts", &driver.get("messages/unread-count").await);
    check.verify("markDelivered", &driver.mark(&sent, "delivered").await);
    check.verify("markRead", &driver.mark(&sent, "read").await);
    check.verify("markRead", &service.mark(&sent, "read").await);
    let history = driver.get(ride).await;
    check.verify("getHistory", &history);
    let request = driver.request(Method::GET, ride).header("if-none-match", history.header("etag"));
    check.verify("getHistory", &driver.execute(request).await);
    check.verify("pollRide", &driver.get(&format!("{ride}/poll?after=0")).await);
    check.verify("pollRide", &driver.get(&format!("{ride}/poll?after=x")).await);
    let reaction = format!("{path}/reactions/%F0%9F%91%8D");
    check.verify("putReaction", &driver.execute(driver.request(Method::PUT, &reaction)).await);
    check.verify("getMessage", &driver.get(&path).await);
    check.verify("deleteReaction", &driver.delete(&reaction).await);
    check.verify("getLocation", &driver.get("rides/ride_1/location").await);
    check.verify("putLocation", &driver.post("rides/ride_1/location", json!({ "lat": 1.5, "lng": 2 })).await);
    check.verify("putLocation", &rider.post("rides/ride_1/location", json!({ "lat": 1.5, "lng": 2 })).await);
    check.verify("getLocation", &driver.get("rides/ride_1/location").await);
    check.verify("setTyping", &driver.post(&format!("{ride}/typing"), json!({ "typing": true })).await);
    check.verify("getPresence", &driver.get(&format!("{ride}/presence")).await);
    check.verify("createStreamTicket", &driver.post("stream-tickets", json!({})).await);
    check.verify("eraseUser", &service.delete("users/rider_9").await);
    check.verify("revokeUser", &service.post_empty("users/rider_9/revoke").await);
    check.verify("deleteMessage", &rider.delete_message(&sent).await);
    check.verify("getMessage", &driver.get(&path).await);
    let trace = format!("{path}/trace");
    check.verify("traceMessage", &service.get(&trace).await.expect(200));
    check.verify("traceMessage", &rider.get(&trace).await);
    check.verify("traceMessage", &service.get("messages/0198c0de-0000-7000-8000-000000000000/trace").await);
    check.verify("cancelRide", &rider.post_empty("rides/ride_1/cancel").await);
    let until =
        json!({ "until": ridewire::domain::Time::now().plus(std::time::Duration::from_secs(3_600)).to_string() });
    check.verify("reopenRide", &service.post("rides/ride_1/reopen", until.clone()).await.expect(200));
    check.verify("reopenRide", &rider.post("rides/ride_1/reopen", until).await);
    let policy = json!({ "opensAt": "requested", "graceSeconds": { "rider": 60, "driver": 3_600 } });
    let body = json!({ "riderId": "rider_1", "chatPolicy": policy });
    check.verify("putRide", &service.put("rides/ride_with_policy", body).await.expect(201));
    check.verify("listRides", &service.get("rides?userId=rider_1").await.expect(200));
    check.verify("listRides", &rider.get("rides?userId=rider_2").await);
    check.verify("streamRide", &driver.get(&format!("{ride}/events?after=x")).await);
    let availability = driver.put("drivers/me/availability", json!({ "available": true, "lat": 1, "lng": 2.5 }));
    check.verify("putAvailability", &availability.await);
    check.verify("putAvailability", &rider.put("drivers/me/availability", json!({ "available": true })).await);
    check.verify("listAvailableDrivers", &service.get("drivers/available").await);
    check.verify("listAvailableDrivers", &rider.get("drivers/available").await);
    check.verify("pollAll", &service.get("poll").await);
    check.verify("streamAll", &driver.get("events?after=x").await);
    check.verify("broadcast", &service.broadcast(&["rider_1", "rider_2"], json!({ "a": [1] })).await);
    check.verify("broadcast", &service.broadcast(&[], json!({})).await);
    check.verify("broadcast", &rider.broadcast(&["rider_1"], json!({})).await);
    webhooks(&mut check, &server).await;
    push(&mut check, &rider).await;
    eventually("an entry of the audit log", async || {
        let listed = service.get("audit").await.expect(200);
        check.verify("listAudit", &listed);
        (listed.json()["entries"] != json!([])).then_some(())
    })
    .await;
    check.verify("listAudit", &rider.get("audit").await);
    check.verify("pollAll", &rider.get("poll?after=0").await);
    check.verify("pollAll", &rider.get("poll?after=1").await);
    check.verify("pollFeed", &service.get("feed/poll?after=0").await);
    check.verify("pollFeed", &rider.get("feed/poll").await);
    check.verify("streamFeed", &rider.get("feed").await);
    for (operation, path) in [("getHealth", "healthz"), ("getReadiness", "readyz"), ("getMetrics", "metrics")] {
        let url = format!("{}/{path}", server.base);
        check.verify(operation, &Response::of(url.clone(), reqwest::get(&url).await.unwrap()).await);
    }
    streamed(&check.document, &driver).await;
    let all: BTreeSet<String> = operations(&check.document)
        .iter()
        .map(|(.., operation)| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(check.seen, all, "every operation is checked");
}

async fn webhooks(check: &mut Check, server: &Server) {
    let (rider, service) = (server.rider("rider_1"), server.service());
    let created = service.post("webhooks", json!({ "url": "https://receiver.invalid/" })).await.expect(201);
    check.verify("createWebhook", &created);
    check.verify("createWebhook", &service.post("webhooks", json!({ "url": "http://receiver.invalid/" })).await);
    check.verify("createWebhook", &rider.post("webhooks", json!({})).await);
    check.verify("listWebhooks", &service.get("webhooks").await);
    let path = format!("webhooks/{}", created.json()["id"].as_str().unwrap());
    check.verify("getWebhook", &service.get(&path).await);
    check.verify("getWebhook", &service.get("webhooks/wh_none").await);
    check.verify("updateWebhook", &service.patch(&path, json!({ "state": "paused" })).await);
    check.verify("rotateWebhookSecret", &service.post_empty(&format!("{path}/secret")).await);
    check.verify("testWebhook", &service.post_empty(&format!("{path}/test")).await);
    service.put_ride("ride_w", "rider_1", None).await.expect(201);
    let polled = service.get("feed/poll?after=0&wait=20").await.expect(200);
    assert_ne!(polled.json()["cursor"], "0");
    check.verify("replayWebhook", &service.post(&format!("{path}/replay"), json!({ "after": "0" })).await);
    check.verify("replayWebhook", &service.post(&format!("{path}/replay"), json!({ "after": "99999" })).await);
    service.patch(&path, json!({ "state": "active" })).await.expect(200);
    eventually("a delivery", async || {
        let listed = service.get(&format!("{path}/deliveries")).await.expect(200);
        (listed.json()["deliveries"] != json!([])).then_some(())
    })
    .await;
    check.verify("listWebhookDeliveries", &service.get(&format!("{path}/deliveries")).await);
    check.verify("deleteWebhook", &service.delete(&path).await);
}

async fn push(check: &mut Check, rider: &User) {
    check.verify("getPushKey", &rider.get("push-key").await.expect(200));
    let keys = json!({
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    });
    let body = json!({ "endpoint": "https://push.example/send/1", "expirationTime": null, "keys": keys });
    check.verify("putPushSubscription", &rider.put("push-subscriptions", body).await.expect(204));
    check.verify("putPushSubscription", &rider.put("push-subscriptions", json!({})).await.expect(400));
    let body = json!({ "endpoint": "https://push.example/send/1" });
    let deleted = rider.send_bytes(Method::DELETE, "push-subscriptions", body.to_string()).await;
    check.verify("deletePushSubscription", &deleted.expect(204));
}

// The data of control events is documented as well.
async fn streamed(document: &Value, user: &User) {
    let mut stream = user.stream("ride_1", "after=0").await;
    let sync = stream.next_sync().await;
    let schema = json!({ "$ref": "#/components/schemas/State" });
    let wrong = problems(document, &schema, &sync["state"], "");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let message = json!({ "$ref": "#/components/schemas/Message" });
    let wrong = problems(document, &message, &stream.find("message:new").await.data, "");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
