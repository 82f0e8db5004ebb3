//! An HTTP answer that says what it is when it is not what was expected.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// What was asked, for failures.
    pub asked: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn of(asked: String, response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{asked}: {error:?}"));
        Self { asked, status, headers, body: body.into() }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// This answer, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}\n{:#?}\n{}", self.asked, self.headers, self.text());
        self
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(self.header("content-type").starts_with("application/json"), "{}: {:?}", self.asked, self.headers);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.text()))
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as a problem (RFC 9457) with all that ours have, of this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let answer = self.expect(status);
        let asked = &answer.asked;
        assert_eq!(answer.header("content-type"), "application/problem+json", "{asked}");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{asked}: {error}"));
        for member in ["type", "title", "detail", "code", "requestId"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{asked}: no `{member}` in {problem}");
        }
        assert_eq!(problem["status"], status, "{asked}: {problem}");
        assert_eq!(problem["code"], code, "{asked}: {problem}");
        assert_eq!(problem["requestId"], answer.header("x-request-id"), "{asked}: {problem}");
        if let Some(errors) = problem.get("errors") {
            let fields = errors.as_array().unwrap_or_else(|| panic!("{asked}: {problem}"));
            let is_told = |field: &Value| field["pointer"].is_string() && field["detail"].is_string();
            assert!(!fields.is_empty() && fields.iter().all(is_told), "{asked}: {problem}");
        }
        problem
    }

    /// A 400 of which this field is the reason.
    #[track_caller]
    pub fn wrong_field(self, pointer: &str) -> Value {
        let asked = self.asked.clone();
        let problem = self.problem(400, "invalid_request");
        let fields = problem["errors"].as_array().cloned().unwrap_or_default();
        assert!(fields.iter().any(|field| field["pointer"] == pointer), "{asked}: not {pointer}, but {problem}");
        problem
    }
}
