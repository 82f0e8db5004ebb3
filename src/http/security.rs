//! Request checks and headers for security: CORS, security headers, and the validation of `Host` and path.

use std::str::FromStr;

use salvo::cors::{AllowHeaders, AllowOrigin, Cors, CorsHandler};
use salvo::http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use salvo::http::uri::Authority;
use salvo::http::{HeaderMap, Method, Version};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Writer as _, async_trait};

use super::api_error::ApiError;
use crate::domain::Error;

/// How long a browser may cache a preflight response, in seconds: two hours, which is Chrome's maximum.
const MAX_AGE: u64 = 7_200;

/// An origin that may use the API: `https://app.example.com`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be an origin such as https://app.example.com, without a path; or *");
        // Apps in a web view have other schemes: capacitor://localhost, ionic://localhost.
        let is_scheme = |scheme: &str| {
            let rest = scheme
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
            rest && scheme.starts_with(|first: char| first.is_ascii_lowercase())
        };
        let rest = text.split_once("://").and_then(|(scheme, rest)| is_scheme(scheme).then_some(rest));
        let is_host = |rest: &str| {
            !rest.is_empty()
                && rest.bytes().all(|byte| {
                    byte.is_ascii_lowercase()
                        || byte.is_ascii_digit()
                        || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
                })
        };
        if text != "*" && !rest.is_some_and(is_host) {
            return Err(wrong());
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| wrong())
    }
}

/// Returns the CORS middleware for these origins. The API ignores the browser's ambient credentials and accepts only tokens that
/// a script sends. `*` is therefore safe: a site cannot act as a user without that user's token.
pub(super) fn cors(origins: &[Origin]) -> Option<CorsHandler> {
    let allowed = match origins {
        [] => return None,
        all if all.iter().any(|Origin(origin)| origin == "*") => AllowOrigin::any(),
        some => AllowOrigin::list(some.iter().map(|Origin(origin)| origin.clone())),
    };
    // Tracing libraries in browsers add the last three headers (W3C Trace Context, W3C Baggage).
    let custom = ["idempotency-key", "last-event-id", "prefer", "x-request-id", "traceparent", "tracestate", "baggage"]
        .map(HeaderName::from_static);
    let headers = [AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH].into_iter().chain(custom);
    let exposed = ["x-request-id", "ratelimit", "ratelimit-policy", "preference-applied"].map(HeaderName::from_static);
    let exposed = [ETAG, LOCATION, RETRY_AFTER].into_iter().chain(exposed);
    let cors = Cors::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::list(headers))
        .expose_headers(exposed.collect::<Vec<_>>())
        .max_age(MAX_AGE);
    Some(cors.into_handler())
}

/// Rejects HTTP/1.1 requests without exactly one valid `Host` (RFC 9112, section 3.2). This prevents request smuggling between a
/// proxy and a server that interpret the header differently.
pub(super) struct RequireHost;

#[async_trait]
impl Handler for RequireHost {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        if req.version() == Version::HTTP_11 && !has_one_host(req.headers()) {
            ctrl.skip_rest();
            let error = Error::invalid("Host", "must be given once, as a host name or address with an optional port");
            ApiError::from(error).write(req, depot, res).await;
        }
    }
}

/// The prefixes of pages. Their paths may end with a slash.
const PAGES: [&str; 3] = ["/docs", "/console", "/client"];

/// Rejects paths with an empty segment. The router would skip such segments and serve `/readyz/` and `//metrics`. These paths
/// would bypass a proxy that hides or limits the exact path.
pub(super) struct RequirePath;

#[async_trait]
impl Handler for RequirePath {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        if !is_exact(req.uri().path()) {
            ctrl.skip_rest();
            ApiError::NotFound.write(req, depot, res).await;
        }
    }
}

fn is_exact(path: &str) -> bool {
    let is_page = PAGES.iter().any(|page| path.strip_prefix(page).is_some_and(|rest| rest.starts_with('/')));
    !path.contains("//") && (path == "/" || !path.ends_with('/') || is_page)
}

fn has_one_host(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(HOST).iter();
    let (Some(host), None) = (values.next(), values.next()) else { return false };
    // `Host` is empty where the target has no authority.
    host.is_empty() || is_host(host)
}

fn is_host(value: &HeaderValue) -> bool {
    Authority::try_from(value.as_bytes()).is_ok_and(|host| !host.as_str().contains('@'))
}

/// Returns a request's host and port, where they are valid. HTTP/2 has them in the target.
pub(super) fn host(req: &Request) -> Option<&str> {
    let mut values = req.headers().get_all(HOST).iter();
    match (values.next(), values.next()) {
        (Some(host), None) if is_host(host) => host.to_str().ok(),
        (None, _) => req.uri().authority().map(Authority::as_str).filter(|host| !host.contains('@')),
        _ => None,
    }
}

/// Sets the security headers of API responses. They are data, so browsers must not sniff their type, run or frame them, or send
/// their URL as a referrer.
pub(super) fn set_security_headers(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_valid_host_is_accepted() {
        let has_one = |hosts: &[&'static str]| {
            has_one_host(&hosts.iter().map(|host| (HOST, HeaderValue::from_static(host))).collect())
        };
        for fine in ["example.com", "example.com:8080", "127.0.0.1:80", "[::1]:8080", ""] {
            assert!(has_one(&[fine]), "{fine}");
        }
        for wrong in ["a b", "user@example.com", "http://example.com", "example.com/path", "a,b:c:d"] {
            assert!(!has_one(&[wrong]), "{wrong}");
        }
        assert!(!has_one(&[]) && !has_one(&["example.com", "example.com"]));
    }

    #[test]
    fn a_path_has_no_empty_segments_but_pages_may_end_with_a_slash() {
        for fine in ["/", "/readyz", "/api/v1/rides", "/docs/", "/docs/errors/", "*"] {
            assert!(is_exact(fine), "{fine}");
        }
        for wrong in ["//", "/readyz/", "//metrics", "/api/v1//rides", "/api/v1/rides/", "/docs//errors", "/documents/"]
        {
            assert!(!is_exact(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for fine in [
            "*",
            "https://app.example.com",
            "http://localhost:3000",
            "https://[::1]:8443",
            "capacitor://localhost",
            "ionic://localhost",
        ] {
            assert!(fine.parse::<Origin>().is_ok(), "{fine}");
        }
        for wrong in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://a b",
            "1a://b",
        ] {
            assert!(wrong.parse::<Origin>().unwrap_err().contains("must be an origin"), "{wrong}");
        }
    }
}
