//! What hyper answers itself, because it is no request: a line in the access log.
//!
//! Such an answer has no id and no body. It is the last one of its connection.

/// The status that hyper has answered what it could not parse with; `None` where it has answered nothing. It does not say which,
/// so this is how it chooses (`Server::on_error` in its `proto/h1/role.rs`).
fn status(error: &hyper::Error) -> Option<u16> {
    if error.is_parse_too_large() {
        // Both are too large; the address is only where a head may be larger than an address ever is.
        return Some(if error.to_string() == "URI too long" { 414 } else { 431 });
    }
    (error.is_parse() && !error.is_parse_version_h2()).then_some(400)
}

/// Logs what has ended a connection, where that was no request. Its text is one of hyper's own, and quotes nothing.
pub(super) fn log_rejected(ended: &hyper::Result<()>) {
    if let Err(error) = ended
        && let Some(status) = status(error)
    {
        tracing::info!(target: "access", status, reason = %error, "request rejected");
    }
}
