//! The operations of the OpenAPI document, for the checks that all of them share: unknown query parameters and undocumented
//! bodies are rejected, and the audit log names the operation.

use std::collections::HashMap;

use salvo::Request;
use salvo::http::Method;
use salvo::oapi::{self, OpenApi, ParameterIn, RefOr, SecurityRequirement};

use crate::domain::{Error, FieldErrors};

/// The operations, keyed by method and path.
#[derive(Debug, Default)]
pub(super) struct Operations(HashMap<String, ApiOperation>);

/// An operation.
#[derive(Debug)]
pub(super) struct ApiOperation {
    /// Its `operationId`.
    pub(super) id: Option<String>,
    /// Whether the operation has a request body.
    pub(super) has_body: bool,
    query_parameters: Vec<String>,
}

impl Operations {
    /// Collects the operations of a document.
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut operations = HashMap::new();
        for (path, item) in document.paths.iter() {
            for (method, operation) in item.operations.iter() {
                operations.insert(format!("{method:?} {path}").to_ascii_lowercase(), ApiOperation::of(operation));
            }
        }
        Self(operations)
    }

    /// Returns the operation of a request.
    pub(super) fn find(&self, req: &Request) -> Option<&ApiOperation> {
        let method = if req.method() == Method::HEAD { "get" } else { req.method().as_str() };
        self.0.get(&format!("{method} /{}", req.matched_path().trim_start_matches('/')).to_ascii_lowercase())
    }
}

impl ApiOperation {
    fn of(operation: &oapi::Operation) -> Self {
        let documented = operation.parameters.0.iter().filter_map(|parameter| match parameter {
            RefOr::Type(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
            _ => None,
        });
        let mut query_parameters: Vec<_> = documented.collect();
        // The document has `ticket` as a security scheme, not as a parameter.
        let ticket = SecurityRequirement::new("ticket", Vec::<String>::new());
        if operation.securities.iter().flatten().any(|security| *security == ticket) {
            query_parameters.push("ticket".to_owned());
        }
        let (id, has_body) = (operation.operation_id.clone(), operation.request_body.is_some());
        Self { id, has_body, query_parameters }
    }

    /// Rejects query parameters that the operation does not have, because they are probably misspelt. `_` is accepted: some
    /// libraries add it to bypass caches.
    pub(super) fn check_query(&self, req: &Request) -> Result<(), Error> {
        // Most requests have no query, so this avoids parsing it.
        if req.uri().query().is_none() {
            return Ok(());
        }
        let known = &self.query_parameters;
        let mut unknown = FieldErrors::default();
        for name in req.queries().keys().filter(|name| *name != "_" && !known.contains(name)) {
            let detail = match known.as_slice() {
                [] => "is unknown: this operation has no query parameters".to_owned(),
                known => format!("is unknown; the query parameters of this operation are {}", known.join(", ")),
            };
            unknown.check::<(), _>(name, Err(detail));
        }
        if unknown.0.is_empty() { Ok(()) } else { Err(unknown.into_error()) }
    }
}
