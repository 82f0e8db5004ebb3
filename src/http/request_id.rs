//! The id of each request.

use std::fmt;
use std::sync::{Arc, OnceLock};

use salvo::http::header::HeaderName;
use salvo::{Depot, Request};
use uuid::Uuid;

use crate::domain::Role;

/// The header with the id, in requests and responses.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id: the value of `X-Request-Id` where that has 1 to 64 printable ASCII characters, otherwise a new id. It also has
/// the role of the caller, after authentication.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<RequestMeta>);

#[derive(Debug)]
struct RequestMeta {
    id: String,
    role: OnceLock<Role>,
}

impl RequestId {
    /// Returns the id of the request to which `depot` belongs.
    pub(super) fn of(depot: &Depot) -> Self {
        depot.get_typed::<Self>().cloned().unwrap_or_else(|_| Self::new(String::new()))
    }

    /// Sets the role of the request's caller, for the access log.
    pub(super) fn set_role(depot: &Depot, role: Role) {
        if let Ok(request) = depot.get_typed::<Self>() {
            // The role is set once per request.
            let _ = request.0.role.set(role);
        }
    }

    /// Returns the id as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0.id
    }

    /// Returns the caller's role, where the token is valid.
    pub(super) fn role(&self) -> Option<Role> {
        self.0.role.get().copied()
    }

    fn new(id: String) -> Self {
        Self(Arc::new(RequestMeta { id, role: OnceLock::new() }))
    }

    /// Returns the id that the request has in its header, or a new one.
    pub(super) fn from_request(req: &Request) -> Self {
        let given = req.headers().get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let is_plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        Self::new(given.filter(is_plain).map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
