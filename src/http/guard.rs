//! What browsers are told besides: which sites may use the interface, and what they must not make of an answer.

use std::str::FromStr;

use salvo::cors::{AllowHeaders, AllowOrigin, Cors, CorsHandler};
use salvo::http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use salvo::http::{HeaderMap, Method};

/// How long a browser may remember what it was allowed, in seconds: two hours, the longest that Chrome takes.
const MAX_AGE: u64 = 7_200;

/// A site that may use the interface: `https://app.example.com`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be an origin such as https://app.example.com, without a path; or *");
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
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

/// Lets scripts of these sites in. No credentials of the browser's own count here, only tokens that a script gives; so `*`
/// lets all sites in, and none of them in somebody's name.
pub(super) fn cors(origins: &[Origin]) -> Option<CorsHandler> {
    let allowed = match origins {
        [] => return None,
        all if all.iter().any(|Origin(origin)| origin == "*") => AllowOrigin::any(),
        some => AllowOrigin::list(some.iter().map(|Origin(origin)| origin.clone())),
    };
    let named = ["idempotency-key", "last-event-id", "prefer", "x-request-id"].map(HeaderName::from_static);
    let headers = [AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH].into_iter().chain(named);
    let exposed = ["x-request-id", "ratelimit", "ratelimit-policy", "preference-applied"].map(HeaderName::from_static);
    let exposed = [ETAG, LOCATION, RETRY_AFTER].into_iter().chain(exposed);
    let cors = Cors::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::list(headers))
        .expose_headers(exposed.collect::<Vec<_>>())
        .max_age(MAX_AGE);
    Some(cors.into_handler())
}

/// Answers are data: not to be guessed at, run, or framed; and where they were asked for is nobody else's to know.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for fine in ["*", "https://app.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert!(fine.parse::<Origin>().is_ok(), "{fine}");
        }
        for wrong in
            ["", "null", "app.example.com", "https://", "https://a.example/", "https://A.example", "https://a b"]
        {
            assert!(wrong.parse::<Origin>().unwrap_err().contains("must be an origin"), "{wrong}");
        }
    }
}
