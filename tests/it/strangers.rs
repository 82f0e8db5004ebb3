//! A stranger learns nothing of a ride or a message from a 404: it is the same whether there is one, and so are the statements that
//! lead to it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, Server, User};

/// How often a request is tried: what the server does by itself meanwhile only adds statements.
const ATTEMPTS: usize = 5;

/// The statements that Postgres has logged, each by its first line.
fn statements(log: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let statement = line.split_once("LOG:  statement: ").map(|(_, text)| text);
        let executed =
            line.split_once("LOG:  execute ").and_then(|(_, rest)| rest.split_once(": ")).map(|(_, text)| text);
        statement.or(executed).map(str::to_owned)
    };
    log.lines().filter_map(of_line).collect()
}

/// A request of a stranger.
#[derive(Debug)]
struct Asked {
    method: Method,
    path: String,
    body: Option<Value>,
    header: Option<(&'static str, &'static str)>,
}

impl Asked {
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
        let answer = user.ask(request).await;
        let mut problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        problem["requestId"] = Value::Null;
        (answer.status, problem)
    }
}

/// Each operation that names a ride; but `accept`, by which drivers learn by design whether there is one.
fn of_ride(ride: &str) -> Vec<Asked> {
    let history = format!("messages/rides/{ride}");
    let known = Asked { header: Some(("if-none-match", "\"1-0\"")), ..Asked::new(Method::GET, &history) };
    vec![
        Asked::new(Method::GET, format!("rides/{ride}")),
        Asked::new(Method::POST, format!("rides/{ride}/cancel")),
        Asked::new(Method::POST, format!("rides/{ride}/status")).with(json!({ "status": "arrived" })),
        Asked::new(Method::GET, format!("rides/{ride}/location")),
        Asked::new(Method::POST, format!("rides/{ride}/location")).with(json!({ "lat": 1, "lng": 2 })),
        Asked::new(Method::GET, &history),
        known,
        Asked::new(Method::GET, format!("{history}/unread-count")),
        Asked::new(Method::GET, format!("{history}/presence")),
        Asked::new(Method::POST, format!("{history}/typing")).with(json!({ "typing": true })),
        Asked::new(Method::GET, format!("{history}/events?after=0")),
        Asked::new(Method::GET, format!("{history}/poll?after=0&wait=0")),
        Asked::new(Method::POST, "stream-tickets").with(json!({ "rideId": ride })),
        Asked::new(Method::POST, "messages").with(json!({ "rideId": ride, "content": "Hello" })),
        Asked::new(Method::POST, "messages")
            .with(json!({ "rideId": ride, "content": "Hello", "clientMessageId": "a-name" })),
    ]
}

/// Each operation that names a message.
fn of_message(message: &str) -> Vec<Asked> {
    let message = format!("messages/{message}");
    vec![
        Asked::new(Method::GET, &message),
        Asked::new(Method::PATCH, &message).with(json!({ "content": "Hello" })),
        Asked::new(Method::DELETE, &message),
        Asked::new(Method::POST, format!("{message}/read")),
        Asked::new(Method::POST, format!("{message}/delivered")),
        Asked::new(Method::PUT, format!("{message}/reactions/%F0%9F%91%8D")),
        Asked::new(Method::DELETE, format!("{message}/reactions/%F0%9F%91%8D")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_a_ride_or_a_message_exists_makes_no_difference_to_a_stranger() {
    let database = Database::create().await;
    // Of the sessions of this database alone.
    let log_all = format!("alter database {} set log_statement = 'all'", database.name());
    database.client().await.batch_execute(&log_all).await.unwrap();
    let settings = [
        ("RIDEWIRE_FEED", "off"),
        ("RIDEWIRE_NOTIFY", "off"),
        ("RIDEWIRE_FALLBACK_POLL", "1h"),
        ("RIDEWIRE_SENDS_PER_SECOND", "0"),
    ];
    let server = Server::with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let message = rider.send("ride_1", "Hello").await;
    let (there, none) = (message["id"].as_str().unwrap(), "01a2064a-3f01-7521-8e7a-2efe52754594");
    let pairs = of_ride("ride_1").into_iter().zip(of_ride("ride_9"));
    let pairs = pairs.chain(of_message(there).into_iter().zip(of_message(none)));
    let shortest = async |user: &User, asked: &Asked| {
        let mut found: Option<(Vec<String>, (StatusCode, Value))> = None;
        for _ in 0..ATTEMPTS {
            // The writer knows the ride, as that of a ride on which people talk.
            rider.send("ride_1", "Hello").await;
            let before = database.postgres_log().len();
            let answer = asked.by(user).await;
            let statements = statements(database.postgres_log().get(before..).unwrap_or_default());
            if found.as_ref().is_none_or(|(shortest, _)| statements.len() < shortest.len()) {
                found = Some((statements, answer));
            }
        }
        found.unwrap()
    };
    let mut wrong = Vec::new();
    for (of_one, of_none) in pairs {
        for user in [server.rider("stranger"), server.driver("stranger")] {
            // A statement is prepared when a connection first runs it.
            of_one.by(&user).await;
            let (one, answer) = shortest(&user, &of_one).await;
            let (other, expected) = shortest(&user, &of_none).await;
            assert_eq!(answer, expected, "{of_one:?}");
            assert_eq!(answer.0, 404, "{of_one:?} as {}: {}", user.role.as_str(), answer.1);
            assert!(!one.is_empty(), "Postgres logs statements");
            if one != other {
                wrong.push(format!("{of_one:?} as {}:\n{one:#?}\n{of_none:?}:\n{other:#?}", user.role.as_str()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
