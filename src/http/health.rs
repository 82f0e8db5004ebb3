//! The liveness and readiness probes.

use std::sync::Arc;

use futures_util::future::join_all;
use salvo::oapi::endpoint;
use salvo::{Depot, Response, Scribe};
use serde::Serialize;

use super::api_error::{ApiError, NotReady};
use super::body::Json;
use super::context::Api;
use super::schema;
use crate::domain::Error;
use crate::realtime::ListenerState;

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    database: bool,
    writable: bool,
    keys: bool,
    listen: &'static str,
}

/// Liveness probe
#[endpoint(tags("operations"), operation_id = "getHealth", responses(
    (status_code = 200, description = "`ok`", content_type = "text/plain", body = String)))]
pub(super) async fn get_health(res: &mut Response) {
    res.render("ok");
}

/// Readiness probe
///
/// The server is ready when Postgres accepts writes (of one shard at least), a key to verify tokens is loaded, and the server is
/// not stopping.
/// `listen` is the state of the connection that receives notifications from other replicas. It does not affect readiness,
/// because the fallback poll finds the same changes.
#[endpoint(tags("operations"), operation_id = "getReadiness", responses(
    (status_code = 200, description = "Ready", body = schema::Ready),
    (status_code = 503, description = "`not_ready`: `detail` has the reason", content_type = "application/problem+json", body = schema::NotReady)))]
pub(super) async fn get_readiness(depot: &mut Depot, res: &mut Response) -> Result<(), ApiError> {
    let api = depot.get_typed::<Arc<Api>>().map_err(|_| Error::Internal)?;
    // If only some shards are available, the server serves their rides.
    let checked = join_all(api.shards.iter().map(|shard| shard.store.is_writable())).await;
    let database = checked.iter().any(Result::is_ok);
    let writable = checked.into_iter().any(|checked| checked.unwrap_or(false));
    let keys = api.verifier.has_keys();
    let listeners = api.shards.iter().map(|shard| shard.listener.state());
    let listen = listeners.fold(ListenerState::Off, ListenerState::worse).as_str();
    if !writable || !keys || api.admission.is_draining() {
        return Err(ApiError::NotReady(NotReady { database, writable, keys, listen }));
    }
    Json::<schema::Ready>::ok(&Ready { status: "ok", database, writable, keys, listen })?.render(res);
    Ok(())
}
