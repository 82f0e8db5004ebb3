//! One request to the moderation hook, and the parsing of its response.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Request, Uri};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Failure, ModerationError};
use crate::domain::{Content, Labels, MessageId, Metadata, RideId, RideRole, Time, UserId, Verdict};
use crate::signature::{self, Secret};
use crate::web::client::{self, HttpClient, Idle, Targets, tls_config};

/// The most bytes of a response.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// How long an idle connection is kept. Servers commonly keep theirs longer (Node: 5 s), so a request is rarely sent on a
/// connection that the server is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The most characters of a reason. A longer one is truncated.
const MAX_REASON_CHARS: usize = 500;

/// The reason if the hook sends none.
const DEFAULT_REASON: &str = "the message was rejected";

/// A content to check before it is stored.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckRequest<'a> {
    /// The ride.
    pub ride_id: &'a RideId,
    /// The sender.
    pub sender_id: &'a UserId,
    /// The sender's role on the ride.
    pub sender_role: RideRole,
    /// The text; for an edit, the new text.
    #[serde(serialize_with = "text")]
    pub content: &'a Content,
    /// The metadata of the message.
    #[serde(serialize_with = "object")]
    pub metadata: Option<&'a Metadata>,
    /// The edited message; `None` for a new message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
}

fn text<S: serde::Serializer>(content: &Content, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(content.as_str())
}

#[allow(clippy::ref_option, reason = "serde gives a field like this")]
fn object<S: serde::Serializer>(metadata: &Option<&Metadata>, serializer: S) -> Result<S::Ok, S::Error> {
    metadata.map(Metadata::as_raw).map(RawValue::to_owned).serialize(serializer)
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: Time,
    data: &'a CheckRequest<'a>,
}

/// The hook's response. Unknown members are ignored, so that a platform may send members that this version does not read.
#[derive(Deserialize)]
struct Response {
    action: Action,
    content: Option<String>,
    reason: Option<String>,
    labels: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Allow,
    Replace,
    Reject,
    Flag,
}

/// The HTTP client of one hook, with its connection pool.
pub(super) struct Client {
    http: HttpClient,
    url: Uri,
    secret: Secret,
}

impl Client {
    /// Creates a client with at most `connections` idle connections. It follows no redirects and uses no proxy.
    pub(super) fn new(url: &str, secret: Secret, connections: usize) -> Result<Self, ModerationError> {
        let url: Uri = url.trim().parse().map_err(|_| ModerationError::Url)?;
        let has_user = url.authority().is_none_or(|authority| authority.as_str().contains('@'));
        if has_user || !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(ModerationError::Url);
        }
        let idle = Idle { timeout: IDLE_TIMEOUT, max: connections };
        let http = client::new(Targets::Any, tls_config()?, idle);
        Ok(Self { http, url, secret })
    }

    /// Sends a content to the hook, and returns its verdict. Has no timeout of its own.
    pub(super) async fn send(&self, check: &CheckRequest<'_>) -> Result<Verdict, Failure> {
        let request = self.request(check).ok_or(Failure::Unreachable)?;
        let response = self.http.request(request).await.map_err(|error| {
            tracing::debug!(%error, "moderation request failed");
            Failure::Unreachable
        })?;
        if !response.status().is_success() {
            return Err(Failure::Status);
        }
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => Failure::Invalid,
            false => Failure::Unreachable,
        })?;
        verdict(&body.to_bytes()).ok_or(Failure::Invalid)
    }

    fn request(&self, check: &CheckRequest<'_>) -> Option<Request<Full<Bytes>>> {
        let now = Time::now();
        let (id, timestamp) = (format!("msg_{}", Uuid::now_v7().simple()), now.as_unix_seconds());
        let body = serde_json::to_vec(&Body { r#type: "message.check", timestamp: now, data: check }).ok()?;
        let signature = self.secret.sign(&id, timestamp, &body);
        Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("ridewire/", env!("CARGO_PKG_VERSION")))
            .header(signature::ID, id)
            .header(signature::TIMESTAMP, timestamp)
            .header(signature::SIGNATURE, signature)
            .body(Full::from(body))
            .ok()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.url.host()).finish_non_exhaustive()
    }
}

/// Parses a response; `None` if it is not a verdict.
fn verdict(body: &[u8]) -> Option<Verdict> {
    let Response { action, content, reason, labels } = serde_json::from_slice(body).ok()?;
    Some(match action {
        Action::Allow => Verdict::Allow,
        Action::Replace => Verdict::Replace(Content::parse(content?).ok()?),
        Action::Reject => Verdict::Reject(reason_of(reason.as_deref().unwrap_or_default())),
        Action::Flag => Verdict::Flag(Labels::parse(labels.unwrap_or_default()).ok()?),
    })
}

/// Returns a reason as one line of bounded length. A rejection is valid however long its reason is.
fn reason_of(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let reason: String = plain.trim().chars().take(MAX_REASON_CHARS).collect();
    if reason.is_empty() { DEFAULT_REASON.to_owned() } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_one_of_four_verdicts_or_none() {
        let of = |body: &str| verdict(body.as_bytes());
        let replaced = Verdict::Replace(Content::parse("***".to_owned()).unwrap());
        assert_eq!(of(r#"{"action":"allow","score":0.1}"#), Some(Verdict::Allow));
        assert_eq!(of(r#"{"action":"replace","content":"***"}"#), Some(replaced));
        assert_eq!(of(r#"{"action":"reject","reason":" No\nnumbers "}"#), Some(Verdict::Reject("No numbers".into())));
        assert_eq!(of(r#"{"action":"reject"}"#), Some(Verdict::Reject(DEFAULT_REASON.into())));
        assert_eq!(of(r#"{"action":"flag"}"#), Some(Verdict::Flag(Labels::parse(Vec::new()).unwrap())));
        for invalid in [
            "",
            "[]",
            "{}",
            r#"{"action":"Allow"}"#,
            r#"{"action":"ban"}"#,
            r#"{"action":"replace"}"#,
            r#"{"action":"replace","content":"  "}"#,
            r#"{"action":"replace","content":"a\u0000"}"#,
            r#"{"action":"flag","labels":"spam"}"#,
            r#"{"action":"flag","labels":[1]}"#,
            r#"{"action":"flag","labels":[""]}"#,
        ] {
            assert_eq!(of(invalid), None, "{invalid}");
        }
        let Some(Verdict::Reject(long)) = of(&format!(r#"{{"action":"reject","reason":"{}"}}"#, "x".repeat(9_000)))
        else {
            panic!("a rejection with a long reason is a rejection");
        };
        assert_eq!(long.len(), MAX_REASON_CHARS);
    }
}
