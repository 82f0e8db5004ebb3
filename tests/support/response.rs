//! An HTTP response. Its assertions print the request, the headers and the body when they fail.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// A response whose body has been read to its end.
#[derive(Debug)]
pub struct Response {
    /// Describes the request in failure messages.
    pub request: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Response {
    /// Reads `response` to its end. `request` describes the request.
    pub async fn of(request: String, response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{request}: {error:?}"));
        Self { request, status, headers, body: body.into() }
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts the status and returns the response.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}\n{:#?}\n{}", self.request, self.headers, self.text());
        self
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(self.header("content-type").starts_with("application/json"), "{}: {:?}", self.request, self.headers);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.request, self.text()))
    }

    /// Returns a header, or an empty string where the response does not have it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts a problem document (RFC 9457) with all members that Ridewire sends, with this status and code, and returns it.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let response = self.expect(status);
        let request = &response.request;
        assert_eq!(response.header("content-type"), "application/problem+json", "{request}");
        let problem: Value =
            serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{request}: {error}"));
        for member in ["type", "title", "detail", "code", "requestId"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{request}: no `{member}` in {problem}");
        }
        assert_eq!(problem["status"], status, "{request}: {problem}");
        assert_eq!(problem["code"], code, "{request}: {problem}");
        assert_eq!(problem["requestId"], response.header("x-request-id"), "{request}: {problem}");
        if let Some(errors) = problem.get("errors") {
            let fields = errors.as_array().unwrap_or_else(|| panic!("{request}: {problem}"));
            let is_complete = |field: &Value| field["pointer"].is_string() && field["detail"].is_string();
            assert!(!fields.is_empty() && fields.iter().all(is_complete), "{request}: {problem}");
        }
        problem
    }

    /// Asserts a 400 whose `errors` name this field, and returns the problem document.
    #[track_caller]
    pub fn invalid_field(self, pointer: &str) -> Value {
        let request = self.request.clone();
        let problem = self.problem(400, "invalid_request");
        let fields = problem["errors"].as_array().cloned().unwrap_or_default();
        assert!(fields.iter().any(|field| field["pointer"] == pointer), "{request}: no error for {pointer}: {problem}");
        problem
    }
}
