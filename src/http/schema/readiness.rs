//! What `/readyz` says.

use salvo::oapi::ToSchema;

/// Whether this server can do its work.
#[derive(ToSchema)]
#[salvo(schema(name = "Ready", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct Ready {
    /// `ok`.
    #[salvo(schema(example = "ok"))]
    status: String,
    /// Whether Postgres answers.
    database: bool,
    /// Whether Postgres can be written to: it does not only read, and its schema is there.
    writable: bool,
    /// Whether there is a key to verify tokens with.
    keys: bool,
    /// How hints of other replicas arrive: `listening`, `connecting`, `deaf`, `off`.
    #[salvo(schema(example = "listening"))]
    listen: String,
}

/// Why a server is not ready: a problem (RFC 9457), and what was looked at.
#[derive(ToSchema)]
#[salvo(schema(name = "NotReady", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct NotReady {
    /// The URL of the page that explains the code.
    #[salvo(schema(rename = "type", example = "https://chat.example.com/docs/errors/not_ready"))]
    r#type: String,
    /// The kind of problem in words.
    title: String,
    /// 503.
    #[salvo(schema(example = 503))]
    status: u16,
    /// Why the server is not ready.
    #[salvo(schema(example = "Postgres does not answer"))]
    detail: String,
    /// A stable name for the kind of problem, for programs.
    #[salvo(schema(example = "not_ready"))]
    code: String,
    /// The request's id, as in the `X-Request-Id` header and in the server's log.
    request_id: String,
    /// Whether Postgres answers.
    database: bool,
    /// Whether Postgres can be written to: it does not only read, and its schema is there.
    writable: bool,
    /// Whether there is a key to verify tokens with.
    keys: bool,
    /// How hints of other replicas arrive: `listening`, `connecting`, `deaf`, `off`.
    #[salvo(schema(example = "listening"))]
    listen: String,
}
