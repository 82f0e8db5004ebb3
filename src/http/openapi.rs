//! The OpenAPI document. It is generated from the handlers; openapi.yaml is a copy that a test compares with it.

mod merged;

use std::sync::OnceLock;

use salvo::http::header::{CONTENT_TYPE, HeaderValue};
use salvo::oapi::schema::Ref;
use salvo::oapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme};
use salvo::oapi::{
    Content, Example, Info, License, OpenApi, PathItemType, RefOr, Response, Schema, SecurityScheme, Server, Tag,
    ToSchema,
};
use salvo::{Depot, FlowCtrl, Handler, Request, Router, Writer as _, async_trait};

use super::api_error::ApiError;
use super::problem::{self, ProblemBody};
use crate::domain::Error;

const DESCRIPTION: &str = "\
Real-time messaging for the participants of a ride, over plain HTTP: REST for writing and history, Server-Sent Events for \
browsers and curl, long polling for mobile apps.

Each durable event of a ride has a number, its `seq`: 1, 2, 3, … without holes, in commit order. The `seq` is the cursor \
of streams (`Last-Event-ID`), polls (`after`) and the message history.

Request bodies are JSON, whatever their `Content-Type` is. Errors are `application/problem+json` (RFC 9457) with a \
stable `code`. A ride or message to which you have no access gets the same response as one that does not exist. Undocumented \
query parameters are rejected, except `_`, which some libraries add to bypass caches. An undocumented body is rejected, except \
`{}`. `HEAD` is accepted wherever `GET` is.";

/// The media type of a problem (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// The errors that every operation under `/api/v1` may return.
const COMMON: [(&str, &str); 7] = [
    ("400", "`invalid_request`: `errors` lists the invalid fields"),
    (
        "401",
        "Missing or invalid token: `token_missing`, `token_malformed`, `token_expired`, `token_not_yet_valid`, \
         `token_revoked`, `signature_invalid`, `key_unknown`, `issuer_invalid`, `audience_invalid`. `WWW-Authenticate` has \
         the code in `error_description`",
    ),
    ("403", "`forbidden`: a stream ticket is valid for streams and polls only"),
    ("413", "`body_too_large`: a body may have at most 64 KiB"),
    (
        "429",
        "`too_many_requests`: the user's limit is reached, or too many writes are queued. Try again after the time in `Retry-After`",
    ),
    ("500", "`internal`: an internal error. The server's log has its cause under the `requestId`"),
    ("503", "`unavailable`: the service is unavailable. Try again after the time in `Retry-After`"),
];

/// Returns the document of these routes.
pub(super) fn document(routes: &Router) -> OpenApi {
    let info = Info::new("Ridewire", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(License::new("MIT OR Apache-2.0").identifier("MIT OR Apache-2.0"));
    let bearer = SecurityScheme::Http(
        Http::new(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description("A JWT with `sub` (the user), `role` (rider, driver, support, service) and `exp`."),
    );
    let ticket = ApiKeyValue::with_description("ticket", "A stream ticket, for clients that cannot set a header.");
    let ticket = SecurityScheme::ApiKey(ApiKey::Query(ticket));
    let mut document = OpenApi::with_info(info)
        .add_security_scheme("bearer", bearer)
        .add_security_scheme("ticket", ticket)
        // The server that the document is loaded from.
        .servers([Server::new("/")])
        .tags([
            Tag::new("messages").description("Messages of a ride, their history, reactions and receipts."),
            Tag::new("live").description("Event streams and polls, stream tickets, typing and presence."),
            Tag::new("rides").description("Rides, their status and locations, and broadcasts."),
            Tag::new("drivers").description("The availability of drivers."),
            Tag::new("push").description("Web Push notifications for browsers whose page is closed."),
            Tag::new("platform").description("The feed of all events, and webhooks."),
            Tag::new("operations").description("Probes, metrics, audit, traces and user data."),
        ])
        .merge_router(routes);
    for (_, item) in document.paths.iter_mut() {
        // HEAD has the same description as GET.
        item.operations.remove(&PathItemType::Head);
        // An operation without security requirements has an explicit empty list.
        for operation in item.operations.values_mut() {
            operation.securities.get_or_insert_default();
        }
    }
    let problem = ProblemBody::to_schema(&mut document.components);
    for (code, body) in problem::examples() {
        document.components.examples.insert(code.to_owned(), Example::new().value(body).into());
    }
    describe_errors(&mut document, &problem);
    add_error_examples(&mut document);
    document
}

/// Adds the common errors to each operation, and the problem schema to each error response.
fn describe_errors(document: &mut OpenApi, problem: &RefOr<Schema>) {
    for (_, item) in document.paths.iter_mut().filter(|(path, _)| path.starts_with("/api/")) {
        for operation in item.operations.values_mut() {
            // The framework adds an empty `Ok` for handlers that return nothing. These handlers document their responses.
            operation.responses.retain(|_, response| {
                !matches!(response, RefOr::Type(response) if response.description == "Ok" && response.contents.is_empty())
            });
            for (status, description) in COMMON {
                // 413 is possible only where the operation has a body.
                if status != "413" || operation.request_body.is_some() {
                    operation.responses.entry(status.to_owned()).or_insert_with(|| Response::new(description).into());
                }
            }
            for (status, response) in operation.responses.iter_mut() {
                if let RefOr::Type(response) = response
                    && status.starts_with(['4', '5'])
                {
                    response.contents.insert(PROBLEM.into(), Content::new(problem.clone()));
                }
            }
        }
    }
}

/// Adds an example for each code that the description of an error response has between backticks.
fn add_error_examples(document: &mut OpenApi) {
    let operations = document.paths.iter_mut().flat_map(|(_, item)| item.operations.values_mut());
    for (_, response) in operations.flat_map(|operation| operation.responses.iter_mut()) {
        let RefOr::Type(response) = response else { continue };
        let Some(content) = response.contents.get_mut(PROBLEM) else { continue };
        for code in response.description.split('`').skip(1).step_by(2) {
            if document.components.examples.contains_key(code) {
                let example = Ref::new(format!("#/components/examples/{code}"));
                content.examples.insert(code.to_owned(), RefOr::Ref(example));
            }
        }
    }
}

/// Returns the document of these routes as YAML.
pub(super) fn yaml(routes: &Router) -> Result<String, serde_norway::Error> {
    serde_norway::to_string(&simplified(routes)?)
}

/// Returns the document with simplified schemas.
fn simplified(routes: &Router) -> Result<serde_norway::Value, serde_norway::Error> {
    let mut document = serde_norway::to_value(document(routes))?;
    merged::merge_all_of(&mut document);
    Ok(document)
}

/// Serves the document as YAML.
pub(super) struct Yaml;

#[async_trait]
impl Handler for Yaml {
    async fn handle(&self, _req: &mut Request, _depot: &mut Depot, res: &mut salvo::Response, _ctrl: &mut FlowCtrl) {
        res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        res.body(include_str!("../../openapi.yaml"));
    }
}

/// Serves the document as JSON, for programs that do not parse YAML, such as the API reference in a browser.
pub(super) struct Json {
    routes: fn() -> Router,
    text: OnceLock<Option<String>>,
}

impl Json {
    /// Creates the handler for the document of the routes that `routes` returns.
    pub(super) fn of(routes: fn() -> Router) -> Self {
        Self { routes, text: OnceLock::new() }
    }
}

#[async_trait]
impl Handler for Json {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut salvo::Response, _ctrl: &mut FlowCtrl) {
        // Generated at the first request: the document is generated from the routes, and this is one of them.
        match self.text.get_or_init(|| serde_json::to_string(&simplified(&(self.routes)()).ok()?).ok()) {
            Some(text) => {
                res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                res.body(text.clone());
            }
            None => ApiError::from(Error::Internal).write(req, depot, res).await,
        }
    }
}
