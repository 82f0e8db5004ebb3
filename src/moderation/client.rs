//! One request to the hook, and what its response says.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Failure, ModerationError};
use crate::domain::{Content, Labels, MessageId, Metadata, RideId, RideRole, Time, UserId, Verdict};
use crate::signature::{self, Secret};
use crate::web::outbound::tls_config;

/// The most bytes of a response.
const LARGEST_RESPONSE: usize = 64 * 1024;

/// How long a connection is kept that nobody uses: less than servers commonly keep theirs (Node: 5 s), so that a request is not
/// sent on one that is being closed.
const KEPT: Duration = Duration::from_secs(4);

/// The most characters of a reason; more are cut off.
const LONGEST_REASON: usize = 500;

/// The reason where the hook gives none.
const NO_REASON: &str = "the message was rejected";

/// A content that is to be stored.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check<'a> {
    /// The ride.
    pub ride_id: &'a RideId,
    /// The sender.
    pub sender_id: &'a UserId,
    /// What the sender is on the ride.
    pub sender_role: RideRole,
    /// The text: of an edit, the one after it.
    #[serde(serialize_with = "text")]
    pub content: &'a Content,
    /// What is attached to it.
    #[serde(serialize_with = "object")]
    pub metadata: Option<&'a Metadata>,
    /// The message that is edited; none for a new one.
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
    data: &'a Check<'a>,
}

/// Members that we do not know are ignored: a platform may send more than a version of ours reads.
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

/// Sends requests to one hook, and keeps connections to it.
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    secret: Secret,
}

impl Client {
    /// Keeps at most `connections` that nobody uses. Redirects are not followed, and no proxy is used.
    pub(super) fn new(url: &str, secret: Secret, connections: usize) -> Result<Self, ModerationError> {
        let url: Uri = url.trim().parse().map_err(|_| ModerationError::Url)?;
        let has_user = url.authority().is_none_or(|authority| authority.as_str().contains('@'));
        if has_user || !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(ModerationError::Url);
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls_config()?).https_or_http().enable_http1();
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(connections)
            .build(connector.wrap_connector(tcp));
        Ok(Self { http, url, secret })
    }

    /// Asks about a content. Takes as long as the hook does.
    pub(super) async fn ask(&self, check: &Check<'_>) -> Result<Verdict, Failure> {
        let request = self.request(check).ok_or(Failure::Unreachable)?;
        let response = self.http.request(request).await.map_err(|error| {
            tracing::debug!(%error, "the moderation hook cannot be reached");
            Failure::Unreachable
        })?;
        if !response.status().is_success() {
            return Err(Failure::Status);
        }
        let body = Limited::new(response.into_body(), LARGEST_RESPONSE).collect().await;
        let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => Failure::Invalid,
            false => Failure::Unreachable,
        })?;
        verdict(&body.to_bytes()).ok_or(Failure::Invalid)
    }

    fn request(&self, check: &Check<'_>) -> Option<Request<Full<Bytes>>> {
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

/// What a response says; `None` where it is not a verdict.
fn verdict(body: &[u8]) -> Option<Verdict> {
    let Response { action, content, reason, labels } = serde_json::from_slice(body).ok()?;
    Some(match action {
        Action::Allow => Verdict::Allow,
        Action::Replace => Verdict::Replace(Content::parse(content?).ok()?),
        Action::Reject => Verdict::Reject(reason_of(reason.as_deref().unwrap_or_default())),
        Action::Flag => Verdict::Flag(Labels::parse(labels.unwrap_or_default()).ok()?),
    })
}

/// A reason in one line. A rejection counts however long its reason is.
fn reason_of(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let reason: String = plain.trim().chars().take(LONGEST_REASON).collect();
    if reason.is_empty() { NO_REASON.to_owned() } else { reason }
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
        assert_eq!(of(r#"{"action":"reject"}"#), Some(Verdict::Reject(NO_REASON.into())));
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
            panic!("it is rejected all the same");
        };
        assert_eq!(long.len(), LONGEST_REASON);
    }
}
