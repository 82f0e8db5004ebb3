//! Whether this server lives, and whether it can work.

use std::sync::Arc;

use salvo::http::StatusCode;
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
    (status_code = 503, description = "Not ready", body = schema::Ready)))]
pub(super) async fn get_readiness(depot: &mut Depot, res: &mut Response) -> Result<(), Refusal> {
    let api = depot.get_typed::<Arc<Api>>().map_err(|_| Error::Internal)?;
    let asked = api.store.is_writable().await;
    let (database, writable) = (asked.is_ok(), asked.unwrap_or(false));
    let keys = api.verifier.has_keys();
    let is_ready = writable && keys && !api.admission.is_draining();
    let ready = Ready {
        status: if is_ready { "ok" } else { "unavailable" },
        database,
        writable,
        keys,
        listen: api.listener.state().as_str(),
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = serde_json::to_string(&ready).map_err(|_| Error::Internal)?;
    Json::<schema::Ready>::text(status, text).render(res);
    Ok(())
}
