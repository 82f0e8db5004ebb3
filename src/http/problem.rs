//! Errors as `application/problem+json` (RFC 9457). The only table of statuses, codes and titles is here.

use std::sync::Arc;

use salvo::http::header::{CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use salvo::http::{Problem, StatusCode, Version};
use salvo::oapi::{Components, EndpointOutRegister, Operation, ToSchema};
use salvo::{Depot, Request, Response, Writer, async_trait};
use serde::Serialize;
use serde_json::{Value, json};

use super::api_error::{ApiError, NotReady};
use super::context::Api;
use super::error_pages;
use super::request_id::RequestId;
use crate::auth::TokenError;
use crate::domain::{Code, Error, FieldErrors, Status};

/// The extension members of a problem (RFC 9457, section 3.2).
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

/// An error (RFC 9457).
#[derive(ToSchema)]
#[salvo(schema(name = "Problem", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct ProblemBody {
    /// The URL of the documentation of the code.
    #[salvo(schema(rename = "type", example = "https://chat.example.com/docs/errors/chat_closed"))]
    r#type: String,
    /// A summary of the kind of error.
    title: String,
    /// The HTTP status.
    #[salvo(schema(minimum = 400, maximum = 599))]
    status: u16,
    /// An explanation of this occurrence of the error.
    detail: String,
    /// The stable code of the kind of error, for programs.
    #[salvo(schema(example = "chat_closed"))]
    code: String,
    /// The request's id, as in the `X-Request-Id` header and in the server's log.
    request_id: String,
    /// The invalid fields.
    #[salvo(schema(required = false))]
    errors: Vec<WrongField>,
}

/// An invalid field.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[salvo(schema(name = "WrongField"))]
pub(super) struct WrongField {
    /// A JSON Pointer (RFC 6901) into the body, or the name of a parameter or header.
    #[salvo(schema(example = "/content"))]
    pointer: String,
    /// What a valid value must be.
    #[salvo(schema(example = "must not be empty"))]
    detail: String,
}

/// The error for any limit on requests, connections or queued writes.
const TOO_MANY: (StatusCode, &str, &str) = (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests");

/// Returns the status, code and title of an error.
fn table(error: &ApiError) -> (StatusCode, &'static str, &'static str) {
    let code = match error {
        ApiError::Domain(error) => error.code(),
        ApiError::Store(error) => Error::from(error).code(),
        ApiError::Unauthorized(error) => {
            let (code, title) = unauthorized(*error);
            return (StatusCode::UNAUTHORIZED, code, title);
        }
        ApiError::BodyTooLarge => return (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large"),
        ApiError::TooMany { .. } => return TOO_MANY,
        ApiError::BroadcastStopped { .. } => Error::Unavailable.code(),
        ApiError::NotReady(_) => return (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "Not ready"),
        ApiError::NotFound => return (StatusCode::NOT_FOUND, "not_found", "Not found"),
        ApiError::MethodNotAllowed => {
            return (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed");
        }
    };
    match code {
        Code::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request", "Invalid request"),
        Code::RideNotFound => (StatusCode::NOT_FOUND, "ride_not_found", "Ride not found"),
        Code::MessageNotFound => (StatusCode::NOT_FOUND, "message_not_found", "Message not found"),
        Code::WebhookNotFound => (StatusCode::NOT_FOUND, "webhook_not_found", "Webhook not found"),
        Code::FeedGap => (StatusCode::CONFLICT, "feed_gap", "Feed events expired"),
        Code::LocationUnknown => (StatusCode::NOT_FOUND, "location_unknown", "Location unknown"),
        Code::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
        Code::ChatNotOpen => (StatusCode::CONFLICT, "chat_not_open", "Chat not open"),
        Code::ChatClosed => (StatusCode::CONFLICT, "chat_closed", "Chat closed"),
        Code::IdempotencyConflict => (StatusCode::CONFLICT, "idempotency_conflict", "Idempotency conflict"),
        Code::MessageRejected => (StatusCode::UNPROCESSABLE_ENTITY, "message_rejected", "Message rejected"),
        Code::ModerationUnavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "moderation_unavailable", "Moderation unavailable")
        }
        Code::MessageDeleted => (StatusCode::CONFLICT, "message_deleted", "Message deleted"),
        Code::TooManyReactions => (StatusCode::CONFLICT, "too_many_reactions", "Too many reactions"),
        Code::InvalidTransition => (StatusCode::CONFLICT, "invalid_transition", "Invalid status transition"),
        Code::RideConflict => (StatusCode::CONFLICT, "ride_conflict", "Ride conflict"),
        Code::TooManyQueuedWrites => TOO_MANY,
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Service unavailable"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal server error"),
    }
}

/// Returns the code and title of a missing or invalid token.
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

/// The public URL in the examples.
const EXAMPLE: &str = "https://chat.example.com";

/// Returns one example of each problem that an operation may return, with its code, for openapi.yaml.
pub(super) fn examples() -> impl Iterator<Item = (&'static str, Value)> {
    let domain = [
        Error::invalid("/content", "must not be empty"),
        Error::RideNotFound,
        Error::MessageNotFound,
        Error::WebhookNotFound,
        Error::FeedGap { first: 4_711, last: 9_000 },
        Error::LocationUnknown,
        Error::Forbidden("only the `service` role can use this operation"),
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
        ApiError::NotReady(not_ready),
        ApiError::NotFound,
        ApiError::BodyTooLarge,
        ApiError::TooMany { what: "writes from this user", seconds: 1 },
    ];
    let tokens = [None].into_iter().chain(TokenError::OF_EACH_CODE.map(Some)).map(ApiError::Unauthorized);
    domain.map(ApiError::Domain).into_iter().chain(tokens).chain(http).map(|error| {
        let (status, code, title) = table(&error);
        let mut body = json!({
            "type": format!("{EXAMPLE}/docs/errors/{code}"),
            "title": title,
            "status": status.as_u16(),
            "detail": error.to_string(),
        });
        let extensions = extensions(code, "01a2064a-3f01-7521-8e7a-2efe52754594".to_owned(), error);
        if let (Some(members), Ok(Value::Object(extensions))) = (body.as_object_mut(), serde_json::to_value(extensions))
        {
            members.extend(extensions);
        }
        (code, body)
    })
}

/// Returns the extension members of an error.
fn extensions(code: &'static str, request_id: String, error: ApiError) -> Extensions {
    let (errors, readiness) = match error {
        ApiError::Domain(Error::Invalid(FieldErrors(fields))) => (fields, None),
        ApiError::NotReady(readiness) => (Vec::new(), Some(readiness)),
        _ => (Vec::new(), None),
    };
    let errors = errors.into_iter().map(|field| WrongField { pointer: field.pointer, detail: field.detail }).collect();
    Extensions { code, request_id, errors, readiness }
}

/// Returns a `Retry-After` in whole seconds, with jitter, so that clients that were rejected together do not all return
/// together.
pub(super) fn retry_after() -> HeaderValue {
    HeaderValue::from(fastrand::u16(1..=3))
}

/// Returns the challenge of a 401 (RFC 6750, section 3), with the code in `error_description`. Without a token there is no
/// `error` (section 3.1).
fn challenge(error: Option<TokenError>) -> HeaderValue {
    let (code, _) = unauthorized(error);
    let error = if error.is_some() { r#"error="invalid_token", "# } else { "" };
    let challenge = format!(r#"Bearer {error}error_description="{code}""#);
    HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"))
}

/// What a problem says about its request. It can be written after the request has gone.
pub(super) struct ProblemContext {
    api: Option<Arc<Api>>,
    request_id: RequestId,
    /// The URL of the pages of errors.
    pages: String,
}

impl ProblemContext {
    /// Returns the context of a request.
    pub(super) fn of(req: &Request, depot: &Depot) -> Self {
        let api = depot.get_typed::<Arc<Api>>().ok().cloned();
        let pages = error_pages::base_url(req, api.as_ref().and_then(|api| api.public_url.as_deref()));
        Self { api, request_id: RequestId::of(depot), pages }
    }

    /// Writes an error.
    pub(super) fn write(&self, error: ApiError, res: &mut Response) {
        let (status, code, title) = table(&error);
        if let Some(api) = &self.api {
            api.metrics.api_errors.with_label_values(&[code]).inc();
            if matches!(error, ApiError::Domain(Error::TooManyQueuedWrites)) {
                api.metrics.rejected("write_queue");
            }
        }
        let challenge = match &error {
            ApiError::Unauthorized(error) => Some(challenge(*error)),
            _ => None,
        };
        let Self { request_id, pages, .. } = self;
        let detail = match &error {
            // The cause is logged, and not sent to the client.
            ApiError::Store(error) => {
                if status == StatusCode::INTERNAL_SERVER_ERROR {
                    tracing::error!(%error, request.id = %request_id, "request failed");
                } else {
                    tracing::debug!(%error, request.id = %request_id, "database unavailable for request");
                }
                Error::from(error).to_string()
            }
            other => other.to_string(),
        };
        let retry = match &error {
            ApiError::TooMany { seconds, .. } => Some(HeaderValue::from(*seconds)),
            ApiError::Domain(Error::TooManyQueuedWrites) => Some(HeaderValue::from(1)),
            _ => (status == StatusCode::SERVICE_UNAVAILABLE).then(retry_after),
        };
        let (page, extensions) = (format!("{pages}{code}"), extensions(code, request_id.to_string(), error));
        res.render(Problem::new(status).kind(page).title(title).detail(detail).with_extensions(extensions));
        if let Some(retry) = retry {
            res.headers_mut().insert(RETRY_AFTER, retry);
        }
        if let Some(challenge) = challenge {
            res.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
    }
}

#[async_trait]
impl Writer for ApiError {
    async fn write(self, req: &mut Request, depot: &mut Depot, res: &mut Response) {
        // The rest of a large body is not read, so the connection cannot carry another request.
        if matches!(self, Self::BodyTooLarge) && req.version() < Version::HTTP_2 {
            res.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ProblemContext::of(req, depot).write(self, res);
    }
}

impl EndpointOutRegister for ApiError {
    fn register(_components: &mut Components, _operation: &mut Operation) {
        // `openapi` adds the common errors to every operation.
    }
}
