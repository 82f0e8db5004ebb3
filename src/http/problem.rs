//! Refusals as `application/problem+json` (RFC 9457). One table: here.

use std::sync::Arc;

use salvo::http::header::{CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use salvo::http::{Problem, StatusCode, Version};
use salvo::oapi::{Components, EndpointOutRegister, Operation, ToSchema};
use salvo::{Depot, Request, Response, Writer, async_trait};
use serde::Serialize;
use serde_json::{Value, json};

use super::context::Api;
use super::errors;
use super::health::NotReady;
use super::refusal::Refusal;
use super::trace::RequestId;
use crate::auth::TokenError;
use crate::domain::{Code, Error, FieldErrors, Status};

/// The members that our problems have beside the standard ones.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Extensions {
    code: &'static str,
    request_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<WrongField>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    readiness: Option<NotReady>,
}

/// What is wrong with a request (RFC 9457).
#[derive(ToSchema)]
#[salvo(schema(name = "Problem", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct ProblemBody {
    /// The URL of the page that explains the code.
    #[salvo(schema(rename = "type", example = "https://chat.example.com/docs/errors/chat_closed"))]
    r#type: String,
    /// The kind of problem in words.
    title: String,
    /// The HTTP status.
    #[salvo(schema(minimum = 400, maximum = 599))]
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// A stable name for the kind of problem, for programs.
    #[salvo(schema(example = "chat_closed"))]
    code: String,
    /// The request's id, as in the `X-Request-Id` header and in the server's log.
    request_id: String,
    /// The fields that are wrong.
    #[salvo(schema(required = false))]
    errors: Vec<WrongField>,
}

/// A field that is wrong, and what would be right.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[salvo(schema(name = "WrongField"))]
pub(super) struct WrongField {
    /// A JSON Pointer (RFC 6901) into the body, or the name of a parameter or header.
    #[salvo(schema(example = "/content"))]
    pointer: String,
    /// What would be right.
    #[salvo(schema(example = "must not be empty"))]
    detail: String,
}

/// More than there may be, of requests or of writes that wait.
const TOO_MANY: (StatusCode, &str, &str) = (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests");

/// Status, code and title of each kind of refusal.
fn table(refusal: &Refusal) -> (StatusCode, &'static str, &'static str) {
    let code = match refusal {
        Refusal::Domain(error) => error.code(),
        Refusal::Store(error) => Error::from(error).code(),
        Refusal::Unauthorized(error) => {
            let (code, title) = unauthorized(*error);
            return (StatusCode::UNAUTHORIZED, code, title);
        }
        Refusal::BodyTooLarge => return (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large"),
        Refusal::TooMany { .. } => return TOO_MANY,
        Refusal::BroadcastStopped { .. } => Error::Unavailable.code(),
        Refusal::NotReady(_) => return (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "Not ready"),
        Refusal::NotFound => return (StatusCode::NOT_FOUND, "not_found", "Nothing here"),
        Refusal::MethodNotAllowed => {
            return (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed");
        }
    };
    match code {
        Code::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request", "Invalid request"),
        Code::RideNotFound => (StatusCode::NOT_FOUND, "ride_not_found", "No such ride"),
        Code::MessageNotFound => (StatusCode::NOT_FOUND, "message_not_found", "No such message"),
        Code::WebhookNotFound => (StatusCode::NOT_FOUND, "webhook_not_found", "Webhook not found"),
        Code::FeedGap => (StatusCode::CONFLICT, "feed_gap", "Events have expired"),
        Code::LocationUnknown => (StatusCode::NOT_FOUND, "location_unknown", "Position not known"),
        Code::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Not allowed"),
        Code::ChatNotOpen => (StatusCode::CONFLICT, "chat_not_open", "Chat not open yet"),
        Code::ChatClosed => (StatusCode::CONFLICT, "chat_closed", "Chat closed"),
        Code::IdempotencyConflict => (StatusCode::CONFLICT, "idempotency_conflict", "Used for another message"),
        Code::MessageRejected => (StatusCode::UNPROCESSABLE_ENTITY, "message_rejected", "Message rejected"),
        Code::ModerationUnavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "moderation_unavailable", "Moderation unavailable")
        }
        Code::MessageDeleted => (StatusCode::CONFLICT, "message_deleted", "Message deleted"),
        Code::TooManyReactions => (StatusCode::CONFLICT, "too_many_reactions", "Too many kinds of reactions"),
        Code::InvalidTransition => (StatusCode::CONFLICT, "invalid_transition", "No such step"),
        Code::RideConflict => (StatusCode::CONFLICT, "ride_conflict", "Not in this state of the ride"),
        Code::TooManyWaiting => TOO_MANY,
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Our fault"),
    }
}

/// Code and title of a missing token, or of one that is rejected.
fn unauthorized(error: Option<TokenError>) -> (&'static str, &'static str) {
    let code = error.map_or("token_missing", TokenError::code);
    let title = match code {
        "token_missing" => "Token missing",
        "token_expired" => "Token expired",
        "token_not_yet_valid" => "Token not yet valid",
        "token_revoked" => "Token revoked",
        "signature_invalid" => "Signature invalid",
        "key_unknown" => "Key unknown",
        "issuer_invalid" => "Issuer invalid",
        "audience_invalid" => "Audience invalid",
        _ => "Token malformed",
    };
    (code, title)
}

/// Where the examples' pages are.
const EXAMPLE: &str = "https://chat.example.com";

/// One problem of each kind that an operation may answer with, by its code: for openapi.yaml.
pub(super) fn examples() -> impl Iterator<Item = (&'static str, Value)> {
    let domain = [
        Error::invalid("/content", "must not be empty"),
        Error::RideNotFound,
        Error::MessageNotFound,
        Error::WebhookNotFound,
        Error::FeedGap { first: 4_711, last: 9_000 },
        Error::LocationUnknown,
        Error::Forbidden("only the service may do this"),
        Error::ChatNotOpen,
        Error::ChatClosed,
        Error::IdempotencyConflict,
        Error::MessageRejected("Phone numbers are not allowed in this chat".to_owned()),
        Error::ModerationUnavailable,
        Error::MessageDeleted,
        Error::TooManyReactions,
        Error::InvalidTransition { from: Status::Completed, to: Status::Accepted },
        Error::RideConflict("another driver has the ride"),
        Error::Unavailable,
        Error::Internal,
    ];
    let not_ready = NotReady { database: false, writable: false, keys: true, listen: "connecting" };
    let http = [
        Refusal::NotReady(not_ready),
        Refusal::NotFound,
        Refusal::BodyTooLarge,
        Refusal::TooMany { what: "messages", seconds: 1 },
    ];
    let tokens = [None].into_iter().chain(TokenError::OF_EACH_CODE.map(Some)).map(Refusal::Unauthorized);
    domain.map(Refusal::Domain).into_iter().chain(tokens).chain(http).map(|refusal| {
        let (status, code, title) = table(&refusal);
        let mut body = json!({
            "type": format!("{EXAMPLE}/docs/errors/{code}"),
            "title": title,
            "status": status.as_u16(),
            "detail": refusal.to_string(),
        });
        let extensions = extensions(code, "01a2064a-3f01-7521-8e7a-2efe52754594".to_owned(), refusal);
        if let (Some(members), Ok(Value::Object(extensions))) = (body.as_object_mut(), serde_json::to_value(extensions))
        {
            members.extend(extensions);
        }
        (code, body)
    })
}

/// What a refusal says besides.
fn extensions(code: &'static str, request_id: String, refusal: Refusal) -> Extensions {
    let (errors, readiness) = match refusal {
        Refusal::Domain(Error::Invalid(FieldErrors(fields))) => (fields, None),
        Refusal::NotReady(readiness) => (Vec::new(), Some(readiness)),
        _ => (Vec::new(), None),
    };
    let errors = errors.into_iter().map(|field| WrongField { pointer: field.pointer, detail: field.detail }).collect();
    Extensions { code, request_id, errors, readiness }
}

/// When to try again, in whole seconds: jittered, so that those who were refused together do not come back
/// together.
pub(super) fn retry_after() -> HeaderValue {
    HeaderValue::from(fastrand::u16(1..=3))
}

/// The challenge of a 401 (RFC 6750, section 3), with the code in `error_description`. Without a token there is no `error`: a
/// client that has shown nothing has made no mistake (section 3.1).
fn challenge(error: Option<TokenError>) -> HeaderValue {
    let (code, _) = unauthorized(error);
    let error = if error.is_some() { r#"error="invalid_token", "# } else { "" };
    let challenge = format!(r#"Bearer {error}error_description="{code}""#);
    HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"))
}

#[async_trait]
impl Writer for Refusal {
    async fn write(self, req: &mut Request, depot: &mut Depot, res: &mut Response) {
        let (status, code, title) = table(&self);
        let api = depot.get_typed::<Arc<Api>>().ok();
        if let Some(api) = api {
            api.metrics.refusals.with_label_values(&[code]).inc();
            if matches!(self, Self::Domain(Error::TooManyWaiting)) {
                api.metrics.rejected("writes_waiting");
            }
        }
        let page = errors::url(req, api.and_then(|api| api.public_url.as_deref()), code);
        let challenge = match &self {
            Self::Unauthorized(error) => Some(challenge(*error)),
            _ => None,
        };
        let request_id = RequestId::of(depot);
        let detail = match &self {
            // What went wrong inside is for the log.
            Self::Store(error) => {
                let told = Error::from(error);
                if status == StatusCode::INTERNAL_SERVER_ERROR {
                    tracing::error!(%error, request.id = %request_id, "a request failed");
                } else {
                    tracing::debug!(%error, request.id = %request_id, "the database cannot be used now");
                }
                told.to_string()
            }
            other => other.to_string(),
        };
        let retry = match &self {
            Self::TooMany { seconds, .. } => Some(HeaderValue::from(*seconds)),
            Self::Domain(Error::TooManyWaiting) => Some(HeaderValue::from(1)),
            _ => (status == StatusCode::SERVICE_UNAVAILABLE).then(retry_after),
        };
        let extensions = extensions(code, request_id.to_string(), self);
        res.render(Problem::new(status).kind(page).title(title).detail(detail).with_extensions(extensions));
        if let Some(retry) = retry {
            res.headers_mut().insert(RETRY_AFTER, retry);
        }
        // The rest of the body is not read, so nothing else can come through this connection.
        if status == StatusCode::PAYLOAD_TOO_LARGE && req.version() < Version::HTTP_2 {
            res.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(challenge) = challenge {
            res.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
    }
}

impl EndpointOutRegister for Refusal {
    fn register(_components: &mut Components, _operation: &mut Operation) {
        // What every operation may be refused with is added to all of them in `openapi`.
    }
}
