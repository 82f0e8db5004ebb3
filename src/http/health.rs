//! Whether this server lives, and whether it can work.

use std::sync::Arc;

use salvo::oapi::endpoint;
use salvo::{Depot, Response, Scribe};
use serde::Serialize;

use super::body::Json;
use super::context::Api;
use super::refusal::Refusal;
use super::schema;
use crate::domain::Error;

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    database: bool,
    writable: bool,
    keys: bool,
    listen: &'static str,
}

/// What was looked at of a server that is not ready.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NotReady {
    pub(super) database: bool,
    pub(super) writable: bool,
    pub(super) keys: bool,
    pub(super) listen: &'static str,
}

impl NotReady {
    /// The first reason.
    pub(super) fn reason(&self) -> &'static str {
        match (self.database, self.writable, self.keys) {
            (false, ..) => "Postgres does not answer",
            (_, false, _) => "Postgres cannot be written to",
            (.., false) => "there is no key to verify tokens with",
            _ => "the server is stopping",
        }
    }
}

/// It lives
#[endpoint(tags("operations"), operation_id = "getHealth", responses(
    (status_code = 200, description = "`ok`", content_type = "text/plain", body = String)))]
pub(super) async fn get_health(res: &mut Response) {
    res.render("ok");
}

/// It can work
///
/// Postgres answers and can be written to, there is a key to verify tokens with, and the server is not stopping. `listen` says how
/// hints of other replicas arrive; where they do not, the fallback poll serves, so that alone does not make a server unready.
#[endpoint(tags("operations"), operation_id = "getReadiness", responses(
    (status_code = 200, description = "Ready", body = schema::Ready),
    (status_code = 503, description = "`not_ready`: `detail` says why, `Retry-After` when to ask again", content_type = "application/problem+json", body = schema::NotReady)))]
pub(super) async fn get_readiness(depot: &mut Depot, res: &mut Response) -> Result<(), Refusal> {
    let api = depot.get_typed::<Arc<Api>>().map_err(|_| Error::Internal)?;
    let asked = api.store.is_writable().await;
    let (database, writable) = (asked.is_ok(), asked.unwrap_or(false));
    let keys = api.verifier.has_keys();
    let listen = api.listener.state().as_str();
    if !writable || !keys || api.admission.is_draining() {
        return Err(Refusal::NotReady(NotReady { database, writable, keys, listen }));
    }
    Json::<schema::Ready>::ok(&Ready { status: "ok", database, writable, keys, listen })?.render(res);
    Ok(())
}
