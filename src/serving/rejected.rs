//! Access log lines for requests that hyper rejects itself, because they are not valid HTTP.
//!
//! Such a response has no id and no body. It is the last one of its connection.

/// Returns the status that hyper has sent for invalid input, or `None` if it has sent nothing. hyper does not report the status, so this
/// repeats its choice (`Server::on_error` in its `proto/h1/role.rs`).
fn status(error: &hyper::Error) -> Option<u16> {
    if error.is_parse_too_large() {
        // Both are too large. The URI is the cause only if the limit of the head is above the limit of a URI.
        return Some(if error.to_string() == "URI too long" { 414 } else { 431 });
    }
    (error.is_parse() && !error.is_parse_version_h2()).then_some(400)
}

/// Logs the end of a connection if hyper has rejected its last request. The error text is hyper's own and contains no input.
pub(super) fn log_rejected(ended: &hyper::Result<()>) {
    if let Err(error) = ended
        && let Some(status) = status(error)
    {
        tracing::info!(target: "access", status, reason = %error, "request rejected");
    }
}
