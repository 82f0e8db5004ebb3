//! Responses that are completed later: those of polls, which wait for events.
//!
//! The handler of a poll returns the head as far as it is known, and a future of the rest. Middleware that needs the final status adds
//! to that future ([`on_status`]). The connection awaits the future. Meanwhile it may take its socket over from hyper (`serving`), so a
//! waiting poll keeps nothing but its reader and its socket.
//!
//! If the client disconnects first, the future is dropped, and everything that it owns.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use salvo::Response;
use salvo::http::{ResBody, StatusCode};

/// The future of a response's status and body, and of headers that replace those of its head.
pub(crate) type Completion = BoxFuture<'static, Response>;

/// The completion of a response, as an extension of its head. (Extensions are cloned; only the first taker gets it.)
#[derive(Clone)]
struct Deferred(Arc<Mutex<Option<Completion>>>);

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferred")
    }
}

/// Makes `res` the head of a response that `completion` completes.
pub(crate) fn defer(res: &mut Response, completion: impl Future<Output = Response> + Send + 'static) {
    insert(res, completion.boxed());
    res.status_code(StatusCode::OK);
    // A placeholder, because salvo warns of a response without a body.
    res.body(ResBody::Once(Bytes::new()));
}

fn insert(res: &mut Response, completion: Completion) {
    res.extensions.insert(Deferred(Arc::new(Mutex::new(Some(completion)))));
}

/// Takes the completion of a deferred response from its head.
pub(crate) fn take(extensions: &mut hyper::http::Extensions) -> Option<Completion> {
    let Deferred(completion) = extensions.remove::<Deferred>()?;
    completion.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Whether a response is completed later.
pub(crate) fn is_deferred(res: &Response) -> bool {
    res.extensions.get::<Deferred>().is_some()
}

/// Calls `f` with the status of the response: now, or when a deferred response is completed.
pub(crate) fn on_status(res: &mut Response, f: impl FnOnce(u16) + Send + 'static) {
    let status = |res: &Response| res.status_code.unwrap_or(StatusCode::OK).as_u16();
    match take(&mut res.extensions) {
        Some(completion) => insert(res, completion.inspect(move |completed| f(status(completed))).boxed()),
        None => f(status(res)),
    }
}

/// Waits until a response is complete.
pub(crate) async fn completed(mut response: hyper::Response<ResBody>) -> hyper::Response<ResBody> {
    match take(response.extensions_mut()) {
        Some(completion) => complete(response, completion.await),
        None => response,
    }
}

/// Completes a response.
pub(crate) fn complete(mut head: hyper::Response<ResBody>, completed: Response) -> hyper::Response<ResBody> {
    let (parts, body) = completed.into_hyper().into_parts();
    *head.status_mut() = parts.status;
    head.headers_mut().extend(parts.headers);
    *head.body_mut() = body;
    head
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use salvo::http::header::{CACHE_CONTROL, HeaderValue, VARY};

    use super::*;

    fn header(value: &'static str) -> HeaderValue {
        HeaderValue::from_static(value)
    }

    #[tokio::test]
    async fn a_deferred_response_gets_the_status_the_body_and_the_headers_of_its_completion() {
        let mut res = Response::new();
        res.headers_mut().insert(VARY, header("origin"));
        res.headers_mut().insert(CACHE_CONTROL, header("private"));
        assert!(!is_deferred(&res));
        defer(&mut res, async {
            let mut completed = Response::new();
            completed.status_code(StatusCode::UNAUTHORIZED);
            completed.headers_mut().insert(CACHE_CONTROL, header("no-store"));
            completed.body(ResBody::Once(Bytes::from_static(b"revoked")));
            completed
        });
        assert!(is_deferred(&res));
        let seen = Arc::new(AtomicU16::new(0));
        let status = Arc::clone(&seen);
        on_status(&mut res, move |code| status.store(code, Ordering::Relaxed));
        let mut head = res.into_hyper();
        let completion = take(head.extensions_mut()).unwrap();
        assert!(take(head.extensions_mut()).is_none(), "only once");
        assert_eq!(seen.load(Ordering::Relaxed), 0, "not yet");
        let response = complete(head, completion.await);
        assert_eq!((seen.load(Ordering::Relaxed), response.status()), (401, StatusCode::UNAUTHORIZED));
        assert_eq!(
            (&response.headers()[VARY], &response.headers()[CACHE_CONTROL]),
            (&header("origin"), &header("no-store"))
        );
        assert!(matches!(response.body(), ResBody::Once(bytes) if bytes.as_ref() == b"revoked"));
    }

    #[test]
    fn the_status_of_an_ordinary_response_is_known_at_once() {
        let mut res = Response::new();
        res.status_code(StatusCode::NOT_FOUND);
        let seen = Arc::new(AtomicU16::new(0));
        let status = Arc::clone(&seen);
        on_status(&mut res, move |code| status.store(code, Ordering::Relaxed));
        assert_eq!(seen.load(Ordering::Relaxed), 404);
    }
}
