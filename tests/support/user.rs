//! An HTTP client with a user's token, for one server.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ridewire::auth::Signer;
pub use ridewire::domain::Role;
use ridewire::domain::UserId;
use serde_json::{Value, json};

use super::{Response, SECRET, Server, Stream, TIMEOUT};

/// A client that sends requests as one user.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub role: Role,
    pub token: String,
    pub base: String,
    http: reqwest::Client,
}

impl User {
    pub(super) fn new(http: reqwest::Client, base: &str, name: &str, role: Role) -> Self {
        let user = Self { name: name.to_owned(), role, token: String::new(), base: base.to_owned(), http };
        user.with_token_ttl(Duration::from_secs(3_600))
    }

    /// Returns the client with a new token that expires after `ttl`.
    pub fn with_token_ttl(mut self, ttl: Duration) -> Self {
        let signer = Signer::new(SECRET.as_bytes()).unwrap();
        self.token = signer.sign(&UserId::parse(&self.name).unwrap(), self.role, ttl).unwrap();
        self
    }

    /// Returns the client with a separate connection pool, which is closed with the client.
    pub fn with_own_connections(self) -> Self {
        Self { http: reqwest::Client::new(), ..self }
    }

    /// Returns the client with this token, which need not be valid.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Returns the client for another server.
    pub fn on(&self, server: &Server) -> Self {
        Self { base: server.base.clone(), ..self.clone() }
    }

    /// Builds a request with a path below `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = path.trim_start_matches('/');
        let request = self.http.request(method, format!("{}/api/v1/{path}", self.base));
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    /// Sends a request and reads the response to its end.
    pub async fn execute(&self, request: reqwest::RequestBuilder) -> Response {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let description = format!("{} {} as {} ({})", request.method(), request.url(), self.name, self.role.as_str());
        let response = async {
            let response = client.execute(request).await.unwrap_or_else(|error| panic!("{description}: {error:?}"));
            Response::of(description.clone(), response).await
        };
        // The longest poll waits 55 s.
        tokio::time::timeout(TIMEOUT + Duration::from_secs(55), response)
            .await
            .unwrap_or_else(|_| panic!("{description}: no response"))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.execute(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.execute(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.execute(self.request(Method::POST, path).json(&body)).await
    }

    /// `POST` without a body.
    pub async fn post_empty(&self, path: &str) -> Response {
        self.execute(self.request(Method::POST, path)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Response {
        self.execute(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Response {
        self.execute(self.request(Method::PATCH, path).json(&body)).await
    }

    /// Sends any bytes as the body.
    pub async fn send_bytes(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.execute(self.request(method, path).header("content-type", "application/json").body(body)).await
    }

    /// `PUT /rides/{ride}`
    pub async fn put_ride(&self, ride: &str, rider: &str, driver: Option<&str>) -> Response {
        let body = match driver {
            Some(driver) => json!({ "riderId": rider, "driverId": driver }),
            None => json!({ "riderId": rider }),
        };
        self.put(&format!("rides/{ride}"), body).await
    }

    /// `POST /rides/{ride}/status`
    pub async fn set_status(&self, ride: &str, status: &str) -> Response {
        self.post(&format!("rides/{ride}/status"), json!({ "status": status })).await
    }

    /// Sends a message, which must be created, and returns it.
    pub async fn send(&self, ride: &str, content: &str) -> Value {
        self.post("messages", json!({ "rideId": ride, "content": content })).await.expect(201).json()
    }

    /// Sends a message with a `clientMessageId` and returns the response, whatever its status.
    pub async fn send_with_id(&self, ride: &str, content: &str, client_id: &str) -> Response {
        self.post("messages", json!({ "rideId": ride, "content": content, "clientMessageId": client_id })).await
    }

    /// `POST /messages/{id}/read` or `/delivered`
    pub async fn mark(&self, message: &Value, watermark: &str) -> Response {
        self.post_empty(&format!("messages/{}/{watermark}", message["id"].as_str().unwrap())).await
    }

    /// `PATCH /messages/{id}`
    pub async fn edit(&self, message: &Value, content: &str) -> Response {
        self.patch(&path_of(message), json!({ "content": content })).await
    }

    /// `DELETE /messages/{id}`
    pub async fn delete_message(&self, message: &Value) -> Response {
        self.delete(&path_of(message)).await
    }

    /// `GET /messages/rides/{ride}`
    pub async fn history(&self, ride: &str, query: &str) -> Value {
        self.get(&format!("messages/rides/{ride}{query}")).await.expect(200).json()
    }

    /// Polls a ride once, which must succeed; `query` without its question mark.
    pub async fn poll(&self, ride: &str, query: &str) -> Value {
        self.get(&format!("messages/rides/{ride}/poll?{query}")).await.expect(200).json()
    }

    /// Opens a stream of a ride; `query` without its question mark.
    pub async fn stream(&self, ride: &str, query: &str) -> Stream {
        self.stream_from(ride, query, None).await
    }

    /// Opens a stream of a ride like an `EventSource` that reconnects.
    pub async fn stream_from(&self, ride: &str, query: &str, last_event_id: Option<&str>) -> Stream {
        self.open(&format!("messages/rides/{ride}/events?{query}"), last_event_id).await
    }

    /// Polls all the user's events once, which must succeed.
    pub async fn poll_all(&self, query: &str) -> Value {
        self.get(&format!("poll?{query}")).await.expect(200).json()
    }

    /// Polls all the user's events after a cursor that exist now, page by page.
    pub async fn poll_pages(&self, cursor: &str, query: &str) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), cursor.to_owned());
        loop {
            let page = self.poll_all(&format!("after={after}&wait=0&{query}")).await;
            events.extend(page["events"].as_array().expect("events").iter().cloned());
            if page["hasMore"] == json!(false) {
                return events;
            }
            page["cursor"].as_str().expect("a cursor").clone_into(&mut after);
        }
    }

    /// Opens the stream of all the user's events.
    pub async fn stream_all(&self, query: &str, last_event_id: Option<&str>) -> Stream {
        self.open(&format!("events?{query}"), last_event_id).await
    }

    async fn open(&self, path: &str, last_event_id: Option<&str>) -> Stream {
        let mut request = self.request(Method::GET, path);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        Stream::open(request).await
    }

    /// `POST /broadcasts`
    pub async fn broadcast(&self, users: &[&str], data: Value) -> Response {
        self.post("broadcasts", json!({ "userIds": users, "type": "test", "data": data })).await
    }
}

fn path_of(message: &Value) -> String {
    format!("messages/{}", message["id"].as_str().expect("a message's id"))
}

/// Returns the types of events.
pub fn data_types(events: &Value) -> Vec<&str> {
    events.as_array().expect("events").iter().map(|event| event["type"].as_str().expect("a type")).collect()
}

/// Encodes a token with any header and claims, signed with `secret` or unsigned.
pub fn raw_token(header: &Value, claims: &Value, secret: Option<&str>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = secret.map_or_else(String::new, |secret| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).expect("a signature")
    });
    format!("{signed}.{signature}")
}
