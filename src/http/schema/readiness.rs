//! The schemas of `/readyz`.

use salvo::oapi::ToSchema;

/// The state of a server that is ready.
#[derive(ToSchema)]
#[salvo(schema(name = "Ready", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct Ready {
    /// `ok`.
    #[salvo(schema(example = "ok"))]
    status: String,
    /// Whether Postgres responds.
    database: bool,
    /// Whether Postgres accepts writes: it is not read-only, and the schema exists.
    writable: bool,
    /// Whether a key to verify tokens is loaded.
    keys: bool,
    /// The state of the connection that receives notifications from other replicas: `listening`, `connecting`, `deaf`
    /// (connected, but no notifications arrive) or `off`.
    #[salvo(schema(example = "listening"))]
    listen: String,
}

/// Why a server is not ready: a problem (RFC 9457) with the result of each check.
#[derive(ToSchema)]
#[salvo(schema(name = "NotReady", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct NotReady {
    /// The URL of the documentation of the code.
    #[salvo(schema(rename = "type", example = "https://chat.example.com/docs/errors/not_ready"))]
    r#type: String,
    /// A summary of the kind of error.
    title: String,
    /// 503.
    #[salvo(schema(example = 503))]
    status: u16,
    /// The first failed check.
    #[salvo(schema(example = "Postgres does not respond"))]
    detail: String,
    /// The stable code of the kind of error, for programs.
    #[salvo(schema(example = "not_ready"))]
    code: String,
    /// The request's id, as in the `X-Request-Id` header and in the server's log.
    request_id: String,
    /// Whether Postgres responds.
    database: bool,
    /// Whether Postgres accepts writes: it is not read-only, and the schema exists.
    writable: bool,
    /// Whether a key to verify tokens is loaded.
    keys: bool,
    /// The state of the connection that receives notifications from other replicas: `listening`, `connecting`, `deaf`
    /// (connected, but no notifications arrive) or `off`.
    #[salvo(schema(example = "listening"))]
    listen: String,
}
