//! openapi.yaml, made from the handlers.

mod merged;

use std::sync::OnceLock;

use salvo::http::header::{CONTENT_TYPE, HeaderValue};
use salvo::oapi::schema::Ref;
use salvo::oapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme};
use salvo::oapi::{
    Content, Example, Info, License, OpenApi, PathItemType, RefOr, Response, Schema, SecurityScheme, Server, Tag,
    ToSchema,
};
use salvo::{Depot, FlowCtrl, Handler, Request, Writer as _, async_trait};

use super::problem::{self, ProblemBody};
use super::refusal::Refusal;
use super::router::{Served, router};
use crate::domain::Error;

const DESCRIPTION: &str = "\
Real-time messaging for the people of a ride, over plain HTTP: REST for writing and history, Server-Sent Events for \
browsers and curl, long polling for mobile apps.

Every durable event of a ride has a number, its `seq`: 1, 2, 3, … without holes, in commit order. It is the cursor \
of streams (`Last-Event-ID`), polls (`after`) and the history alike.

Request bodies are JSON whatever their `Content-Type` says. Errors are `application/problem+json` (RFC 9457) with a \
stable `code`. A ride or message that is not yours looks as one that is not there. A query parameter that an operation does not \
document is rejected, except `_`, which some libraries add against caches; so is a body where none is documented, except `{}`. `HEAD` is accepted wherever `GET` is.";

/// The media type of a problem (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// The refusals that any operation under `/api/v1` may meet.
const COMMON: [(&str, &str); 7] = [
    ("400", "`invalid_request`: `errors` says which field, and what would be right"),
    (
        "401",
        "No token, or one that is rejected: `token_missing`, `token_malformed`, `token_expired`, `token_not_yet_valid`, \
         `token_revoked`, `signature_invalid`, `key_unknown`, `issuer_invalid`, `audience_invalid`. `WWW-Authenticate` has \
         the code in `error_description`",
    ),
    ("403", "`forbidden`: a stream ticket opens streams and polls alone"),
    ("413", "`body_too_large`: a body may have at most 64 KiB"),
    (
        "429",
        "`too_many_requests`: of one user, or of writes that wait for a ride; `Retry-After` says when to try again",
    ),
    ("500", "`internal`: our fault; the log knows more under `requestId`"),
    ("503", "`unavailable`: try again, `Retry-After` says when"),
];

/// The document.
pub fn document() -> OpenApi {
    let info = Info::new("Ridewire", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(License::new("MIT OR Apache-2.0").identifier("MIT OR Apache-2.0"));
    let bearer = SecurityScheme::Http(
        Http::new(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description("A JWT with `sub` (the user), `role` (rider, driver, support, service) and `exp`."),
    );
    let ticket = ApiKeyValue::with_description("ticket", "A stream ticket, for those who cannot set a header.");
    let ticket = SecurityScheme::ApiKey(ApiKey::Query(ticket));
    let mut document = OpenApi::with_info(info)
        .add_security_scheme("bearer", bearer)
        .add_security_scheme("ticket", ticket)
        // Whichever server the document is from.
        .servers([Server::new("/")])
        .tags([
            Tag::new("messages").description("What is said on a ride, and who has received and read it."),
            Tag::new("live").description("A ride's events, as they happen."),
            Tag::new("rides").description("What messaging has to know of a ride's life."),
            Tag::new("drivers").description("Who of the drivers takes rides."),
            Tag::new("push").description("What tells browsers of messages while their pages are closed (Web Push)."),
            Tag::new("platform").description("Every event, for the platform."),
            Tag::new("operations").description("For those who run it."),
        ])
        .merge_router(&router(Served::All));
    for (_, item) in document.paths.iter_mut() {
        // HEAD answers as GET does: what is said of the one holds for the other.
        item.operations.remove(&PathItemType::Head);
        // What needs no token says so.
        for operation in item.operations.values_mut() {
            operation.securities.get_or_insert_default();
        }
    }
    let problem = ProblemBody::to_schema(&mut document.components);
    for (code, body) in problem::examples() {
        document.components.examples.insert(code.to_owned(), Example::new().value(body).into());
    }
    describe_refusals(&mut document, &problem);
    show_problems(&mut document);
    document
}

/// Says of each refusal that it is a problem, and adds those that any operation may meet.
fn describe_refusals(document: &mut OpenApi, problem: &RefOr<Schema>) {
    for (_, item) in document.paths.iter_mut().filter(|(path, _)| path.starts_with("/api/")) {
        for operation in item.operations.values_mut() {
            // What the framework says of handlers that return nothing; ours say what they answer themselves.
            operation.responses.retain(|_, response| {
                !matches!(response, RefOr::Type(response) if response.description == "Ok" && response.contents.is_empty())
            });
            for (status, description) in COMMON {
                // An operation without a body has none that is too large.
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

/// Shows an example of each code that the description of a problem has between backticks.
fn show_problems(document: &mut OpenApi) {
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

/// The document as text.
pub fn yaml() -> Result<String, serde_norway::Error> {
    serde_norway::to_string(&written()?)
}

/// The document as it is written, with the simplest schemas of the same meaning.
fn written() -> Result<serde_norway::Value, serde_norway::Error> {
    let mut document = serde_norway::to_value(document())?;
    merged::merge_all_of(&mut document);
    Ok(document)
}

/// Serves the document.
pub(super) struct Yaml;

#[async_trait]
impl Handler for Yaml {
    async fn handle(&self, _req: &mut Request, _depot: &mut Depot, res: &mut salvo::Response, _ctrl: &mut FlowCtrl) {
        res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        res.body(include_str!("../../openapi.yaml"));
    }
}

/// Serves the same as JSON, for programs that read no YAML, such as the reference in a browser.
#[derive(Default)]
pub(super) struct Json(OnceLock<Option<String>>);

#[async_trait]
impl Handler for Json {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut salvo::Response, _ctrl: &mut FlowCtrl) {
        // Made when it is first asked for: the document is made from the routes, and this is one of them.
        match self.0.get_or_init(|| serde_json::to_string(&written().ok()?).ok()) {
            Some(text) => {
                res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                res.body(text.clone());
            }
            None => Refusal::from(Error::Internal).write(req, depot, res).await,
        }
    }
}
