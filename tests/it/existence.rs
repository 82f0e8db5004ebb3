//! A 404 does not reveal whether a ride or a message exists to a user without access: neither by its content nor by the
//! statements that the server executes for it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, Server, User};

/// How often a request is tried. Background work of the server can only add statements.
const ATTEMPTS: usize = 5;

/// Returns the statements in the Postgres log, by their first line.
fn statements(log: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let statement = line.split_once("LOG:  statement: ").map(|(_, text)| text);
        let executed =
            line.split_once("LOG:  execute ").and_then(|(_, rest)| rest.split_once(": ")).map(|(_, text)| text);
        statement.or(executed).map(str::to_owned)
    };
    log.lines().filter_map(of_line).collect()
}

/// A request of a user without access.
#[derive(Debug)]
struct TestRequest {
    method: Method,
    path: String,
    body: Option<Value>,
    header: Option<(&'static str, &'static str)>,
}

impl TestRequest {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, header: None }
    }

    fn with(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    async fn by(&self, user: &User) -> (StatusCode, Value) {
        let mut request = user.request(self.method.clone(), &self.path);
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        if let Some((name, value)) = self.header {
            request = request.header(name, value);
        }
        let response = user.execute(request).await;
        let mut problem: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        problem["requestId"] = Value::Null;
        (response.status, problem)
    }
}

/// All operations that name a ride, except `accept`, by which drivers learn by design whether a ride exists.
fn of_ride(ride: &str) -> Vec<TestRequest> {
    let history = format!("messages/rides/{ride}");
    let known = TestRequest { header: Some(("if-none-match", "\"1-0\"")), ..TestRequest::new(Method::GET, &history) };
    vec![
        TestRequest::new(Method::GET, format!("rides/{ride}")),
        TestRequest::new(Method::POST, format!("rides/{ride}/cancel")),
        TestRequest::new(Method::POST, format!("rides/{ride}/status")).with(json!({ "status": "arrived" })),
        TestRequest::new(Method::GET, format!("rides/{ride}/location")),
        TestRequest::new(Method::POST, format!("rides/{ride}/location")).with(json!({ "lat": 1, "lng": 2 })),
        TestRequest::new(Method::GET, &history),
        known,
        TestRequest::new(Method::GET, format!("{history}/unread-count")),
        TestRequest::new(Method::GET, format!("{history}/presence")),
        TestRequest::new(Method::POST, format!("{history}/typing")).with(json!({ "typing": true })),
        TestRequest::new(Method::GET, format!("{history}/events?after=0")),
        TestRequest::new(Method::GET, format!("{history}/poll?after=0&wait=0")),
        TestRequest::new(Method::POST, "stream-tickets").with(json!({ "rideId": ride })),
        TestRequest::new(Method::POST, "messages").with(json!({ "rideId": ride, "content": "Hello" })),
        TestRequest::new(Method::POST, "messages")
            .with(json!({ "rideId": ride, "content": "Hello", "clientMessageId": "a-name" })),
    ]
}

/// All operations that name a message.
fn of_message(message: &str) -> Vec<TestRequest> {
    let message = format!("messages/{message}");
    vec![
        TestRequest::new(Method::GET, &message),
        TestRequest::new(Method::PATCH, &message).with(json!({ "content": "Hello" })),
        TestRequest::new(Method::DELETE, &message),
        TestRequest::new(Method::POST, format!("{message}/read")),
        TestRequest::new(Method::POST, format!("{message}/delivered")),
        TestRequest::new(Method::PUT, format!("{message}/reactions/%F0%9F%91%8D")),
        TestRequest::new(Method::DELETE, format!("{message}/reactions/%F0%9F%91%8D")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_existence_of_a_ride_or_message_is_not_observable_for_non_participants() {
    let database = Database::create().await;
    // Only the sessions of this database.
    let log_all = format!("alter database {} set log_statement = 'all'", database.name());
    database.client().await.batch_execute(&log_all).await.unwrap();
    let settings = [
        ("RIDEWIRE_FEED", "off"),
        ("RIDEWIRE_NOTIFY", "off"),
        ("RIDEWIRE_FALLBACK_POLL", "1h"),
        ("RIDEWIRE_SENDS_PER_SECOND", "0"),
    ];
    let server = Server::start_with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let message = rider.send("ride_1", "Hello").await;
    let (there, none) = (message["id"].as_str().unwrap(), "01a2064a-3f01-7521-8e7a-2efe52754594");
    let pairs = of_ride("ride_1").into_iter().zip(of_ride("ride_9"));
    let pairs = pairs.chain(of_message(there).into_iter().zip(of_message(none)));
    let shortest = async |user: &User, request: &TestRequest| {
        let mut found: Option<(Vec<String>, (StatusCode, Value))> = None;
        for _ in 0..ATTEMPTS {
            // Load the ride into the writer's cache, as for an active ride.
            rider.send("ride_1", "Hello").await;
            let before = database.postgres_log().len();
            let response = request.by(user).await;
            let statements = statements(database.postgres_log().get(before..).unwrap_or_default());
            if found.as_ref().is_none_or(|(shortest, _)| statements.len() < shortest.len()) {
                found = Some((statements, response));
            }
        }
        found.unwrap()
    };
    let mut wrong = Vec::new();
    for (of_one, of_none) in pairs {
        for user in [server.rider("stranger"), server.driver("stranger")] {
            // A connection prepares a statement at its first execution.
            of_one.by(&user).await;
            let (one, response) = shortest(&user, &of_one).await;
            let (other, expected) = shortest(&user, &of_none).await;
            assert_eq!(response, expected, "{of_one:?}");
            assert_eq!(response.0, 404, "{of_one:?} as {}: {}", user.role.as_str(), response.1);
            assert!(!one.is_empty(), "Postgres logs statements");
            if one != other {
                wrong.push(format!("{of_one:?} as {}:\n{one:#?}\n{of_none:?}:\n{other:#?}", user.role.as_str()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
