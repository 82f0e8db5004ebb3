//! JSON request bodies, whatever their `Content-Type` is, and JSON responses.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use salvo::extract::Metadata;
use salvo::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, TRANSFER_ENCODING};
use salvo::http::{Method, ParseError, StatusCode, Version};
use salvo::oapi::{Components, Content, EndpointArgRegister, EndpointOutRegister, Operation, RequestBody, ToSchema};
use salvo::{Depot, Extractible, Request, Response, Scribe};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::Segment;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::api_error::ApiError;
use super::context::Api;
use super::operations::ApiOperation;
use crate::domain::{Error, FieldErrors};
use crate::memory::MemoryReservation;

/// The maximum size of a body, unless the handler sets another one.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// The maximum size of a body that is read and discarded because it is too large.
const MAX_DISCARDED: usize = 1024 * 1024;

/// A request's body, of at most `MAX` bytes.
#[derive(Debug)]
pub(super) struct Body<T, const MAX: usize = MAX_BYTES>(pub(super) T);

impl<'ex, T: DeserializeOwned + Send, const MAX: usize> Extractible<'ex> for Body<T, MAX> {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("Body");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, ApiError> {
        parse(read(req, depot, MAX).await?).map(Self)
    }
}

impl<T: ToSchema, const MAX: usize> EndpointArgRegister for Body<T, MAX> {
    fn register(components: &mut Components, operation: &mut Operation, _arg: &str) {
        let content = Content::new(T::to_schema(components));
        operation.request_body =
            Some(RequestBody::new().add_content("application/json", content).required(salvo::oapi::Required::True));
    }
}

/// An optional request body. An empty body is the default value.
#[derive(Debug)]
pub(super) struct OptionalBody<T>(pub(super) T);

impl<'ex, T: DeserializeOwned + Default + Send> Extractible<'ex> for OptionalBody<T> {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("OptionalBody");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, ApiError> {
        let bytes = read(req, depot, MAX_BYTES).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse(bytes).map(Self) }
    }
}

impl<T: ToSchema> EndpointArgRegister for OptionalBody<T> {
    fn register(components: &mut Components, operation: &mut Operation, arg: &str) {
        Body::<T, MAX_BYTES>::register(components, operation, arg);
        if let Some(body) = &mut operation.request_body {
            body.required = Some(salvo::oapi::Required::False);
        }
    }
}

/// Rejects the body of a request whose operation has no body, because it would be ignored. An empty body and `{}`, which some
/// clients always send, are accepted. In GET and HEAD requests, a body has no meaning (RFC 9110, section 9.3.1).
pub(super) async fn reject_body(
    req: &mut Request,
    depot: &Depot,
    operation: Option<&ApiOperation>,
) -> Result<(), ApiError> {
    if matches!(*req.method(), Method::GET | Method::HEAD) || operation.is_none_or(|operation| operation.has_body) {
        return Ok(());
    }
    let bytes = read(req, depot, MAX_BYTES).await?.trim_ascii();
    let fields = match serde_json::from_slice::<HashMap<String, IgnoredAny>>(bytes) {
        Ok(fields) => fields,
        Err(_) if bytes.is_empty() => return Ok(()),
        Err(_) => return Err(Error::invalid("", "must be empty, or {}: this operation has no body").into()),
    };
    let mut errors = FieldErrors::default();
    for field in fields.keys() {
        errors.check::<(), _>(&pointer_to(field), Err("is unknown: this operation has no fields"));
    }
    if errors.0.is_empty() { Ok(()) } else { Err(errors.into_error().into()) }
}

/// Reads a body of at most `max` bytes.
///
/// Reserves memory for the body for the time of the request. An eviction of the reservation while the body is read fails the
/// request with 503.
pub(super) async fn read<'ex>(req: &'ex mut Request, depot: &Depot, max: usize) -> Result<&'ex [u8], ApiError> {
    let api = depot.get_typed::<Arc<Api>>().map_err(|_| Error::Internal)?;
    let length = content_length(req);
    let deadline = Instant::now() + api.limits.body_deadline;
    if let Some(length) = length.filter(|length| *length > max) {
        // A client that is still sending may miss the response. In HTTP/2, a client may treat the end of the stream as a failure
        // (curl 7 does). In HTTP/1.1, unread data resets the connection and discards the response (RFC 9112, section 9.6).
        // Therefore a body that is not much too large is read and discarded. A client with `Expect: 100-continue` sends no body.
        let is_sent = req.version() >= Version::HTTP_2 || !req.headers().contains_key(EXPECT);
        if is_sent && length <= MAX_DISCARDED {
            let reservation = reserve(api, length);
            let reading = unless_evicted(reservation.as_ref(), req.payload_with_max_size(MAX_DISCARDED));
            drop(timeout_at(deadline, reading).await);
        }
        return Err(ApiError::BodyTooLarge);
    }
    let reservation = reserve(api, length.unwrap_or(max));
    // The reservation lasts as long as the request, because the parsed body waits for the writer.
    if let Some((_, reservation)) = &reservation {
        req.extensions_mut().insert(Arc::clone(reservation));
    }
    let reading = timeout_at(deadline, unless_evicted(reservation.as_ref(), req.payload_with_max_size(max))).await;
    if let Some((_, reservation)) = &reservation {
        reservation.exempt_from_eviction();
    }
    match reading {
        Ok(Some(Ok(bytes))) => Ok(bytes),
        Ok(Some(Err(ParseError::PayloadTooLarge))) => Err(ApiError::BodyTooLarge),
        Ok(Some(Err(_))) => Err(Error::invalid("", "the body could not be read").into()),
        Ok(None) => Err(Error::Unavailable.into()),
        Err(_) => {
            api.metrics.rejected("body_deadline");
            Err(Error::invalid("", "the body was not received in time").into())
        }
    }
}

/// The minimum size of a body for which memory is reserved. A smaller body usually arrives together with the head.
const MIN_RESERVED: usize = 1024;

fn content_length(req: &Request) -> Option<usize> {
    req.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns whether a request has no body, or one that needs no memory reservation.
pub(super) fn has_small_body(req: &Request) -> bool {
    match content_length(req) {
        Some(length) => length < MIN_RESERVED,
        None => {
            let is_announced = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| req.headers().contains_key(name));
            !is_announced && req.version() < Version::HTTP_2
        }
    }
}

/// A memory reservation, and the token that is cancelled when it is evicted.
type Reservation = (CancellationToken, Arc<MemoryReservation>);

/// Reserves memory for a body, unless it is small.
fn reserve(api: &Api, length: usize) -> Option<Reservation> {
    (length >= MIN_RESERVED).then(|| {
        let evicted = CancellationToken::new();
        let reservation = Arc::new(api.memory.reserve(length, &evicted));
        (evicted, reservation)
    })
}

/// Awaits `reading`. Returns `None` if the reservation is evicted first.
async fn unless_evicted<T>(reservation: Option<&Reservation>, reading: impl Future<Output = T>) -> Option<T> {
    match reservation {
        Some((evicted, _)) => evicted.run_until_cancelled(reading).await,
        None => Some(reading.await),
    }
}

/// Parses a body. The error names the invalid field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    match serde_json::from_slice(bytes) {
        Err(error) if !error.is_data() => Err(Error::invalid("", format!("must be JSON: {error}")).into()),
        // Serde would also deserialize a struct from an array.
        _ if !bytes.trim_ascii_start().starts_with(b"{") => Err(Error::invalid("", "must be a JSON object").into()),
        Ok(parsed) => Ok(parsed),
        Err(error) => Err(Error::invalid(invalid_field::<T>(bytes), json_detail(&error.to_string())).into()),
    }
}

/// Converts an error message of serde to the terms of JSON: what a valid value must be.
fn json_detail(message: &str) -> String {
    // A message begins with the kind of error and ends with the expected value. Text of the client is between the two.
    let message = message.rfind(" at line ").and_then(|end| message.get(..end)).unwrap_or(message);
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
    let names = |list: &str| list.trim_start_matches("one of ").replace('`', "").replace(" or ", ", ");
    let mut words = message.split(' ');
    match (words.next().unwrap_or_default(), words.next().unwrap_or_default(), expected) {
        ("unknown", "field", Some(list)) => format!("is unknown; the fields here are {}", names(list)),
        ("unknown", "field", None) => "is unknown; there are no fields here".to_owned(),
        ("unknown", "variant", Some(list)) => format!("must be one of {}", names(list)),
        ("duplicate", "field", _) => "is given twice".to_owned(),
        ("missing", "field", _) => REQUIRED.to_owned(),
        ("invalid", "type" | "value" | "length" | "type:" | "value:" | "length:", Some(expected)) => {
            format!("must be {}", json_type(expected))
        }
        _ => message.to_owned(),
    }
}

/// Converts serde's name of an expected Rust type to the name of a JSON type.
fn json_type(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        "unit" => "null",
        of_struct if of_struct.starts_with("struct ") => "an object",
        of_list if of_list.starts_with("a tuple ") => "an array",
        other => other,
    }
}

/// Returns the pointer of the first invalid field. It parses the body again, because tracking the path in each parse would double
/// its cost.
fn invalid_field<T: DeserializeOwned>(bytes: &[u8]) -> String {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize::<_, T>(&mut reader);
    parsed.err().map(|error| pointer(error.path())).unwrap_or_default()
}

/// Returns the JSON Pointer (RFC 6901) to a member.
fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => pointer_to(key),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    };
    path.iter().map(segment).collect()
}

/// The detail for a missing required field.
pub(super) const REQUIRED: &str = "is required";

/// A JSON response as text. `T` is its schema in openapi.yaml.
#[derive(Debug)]
pub(super) struct Json<T> {
    status: StatusCode,
    text: String,
    shape: PhantomData<T>,
}

impl<T> Json<T> {
    /// Serializes a value for a response with 200.
    pub(super) fn ok(value: &impl Serialize) -> Result<Self, ApiError> {
        let text = serde_json::to_string(value).map_err(|_| Error::Internal)?;
        Ok(Self::text(StatusCode::OK, text))
    }

    /// Creates a response from JSON text.
    pub(super) fn text(status: StatusCode, text: String) -> Self {
        Self { status, text, shape: PhantomData }
    }
}

/// A body, and a guard that is dropped after the last byte of the body was sent.
struct GuardedBody<G>(String, #[allow(dead_code, reason = "only its drop matters")] G);

impl<G> AsRef<[u8]> for GuardedBody<G> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Responds with 200 and a value. Keeps the guard until the last byte was sent: hyper drops the body itself earlier, but not its
/// `Bytes`.
pub(super) fn render_with_guard<G>(value: &impl Serialize, guard: G, res: &mut Response) -> Result<(), ApiError>
where
    G: Send + 'static,
{
    let text = serde_json::to_string(value).map_err(|_| Error::Internal)?;
    res.status_code(StatusCode::OK);
    res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    res.body(Bytes::from_owner(GuardedBody(text, guard)));
    Ok(())
}

impl<T> Scribe for Json<T> {
    fn render(self, res: &mut Response) {
        res.status_code(self.status);
        res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        res.body(self.text);
    }
}

impl<T: ToSchema> EndpointOutRegister for Json<T> {
    fn register(components: &mut Components, operation: &mut Operation) {
        let content = Content::new(T::to_schema(components));
        let response = salvo::oapi::Response::new("Success").add_content("application/json", content);
        operation.responses.insert("200", response);
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Sample {
        #[allow(dead_code, reason = "only parsed")]
        ride_id: Option<String>,
        #[allow(dead_code, reason = "only parsed")]
        list: Option<Vec<u8>>,
        #[allow(dead_code, reason = "only parsed")]
        nested: Option<Nested>,
    }

    #[derive(Debug, Deserialize)]
    struct Nested {
        #[allow(dead_code, reason = "only parsed")]
        a: Option<bool>,
    }

    fn parse_error(text: &[u8]) -> (String, String) {
        match parse::<Sample>(text).unwrap_err() {
            ApiError::Domain(Error::Invalid(mut fields)) => {
                let field = fields.0.remove(0);
                (field.pointer, field.detail)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_error_of_an_invalid_body_names_the_field() {
        assert_eq!(parse_error(br#"{"rideId": 5}"#).0, "/rideId");
        assert_eq!(parse_error(br#"{"list": [1, "x"]}"#).0, "/list/1");
        assert_eq!(parse_error(br#"{"other": 1}"#).0, "/other");
        assert!(parse_error(br#"{"rideId": "#).1.starts_with("must be JSON"));
        assert!(parse_error(b"").1.starts_with("must be JSON"));
        assert!(parse_error(br#"{} x"#).1.starts_with("must be JSON"));
        assert!(parse_error(b"{\"rideId\": \"\xff\"}").1.starts_with("must be JSON"));
        assert!(parse_error(br#"{"rideId": "\ud800"}"#).1.starts_with("must be JSON"));
        // A deep array is rejected because it is an array; its items are not parsed.
        assert_eq!(parse_error("[".repeat(5_000).as_bytes()).1, "must be a JSON object");
        assert!(parse::<Sample>(br#"{"rideId": null}"#).is_ok());
    }

    #[test]
    fn details_are_in_the_terms_of_json() {
        let detail = |text: &str| parse_error(text.as_bytes()).1;
        assert_eq!(detail(r#"{"rideId": 5}"#), "must be a string");
        assert_eq!(detail(r#"{"rideId": {"a": "x, expected y at line 3"}}"#), "must be a string");
        assert_eq!(detail(r#"{"list": "at line 1, expected nothing"}"#), "must be an array");
        assert_eq!(detail(r#"{"list": [1, "x"]}"#), "must be a whole number, 0 or more");
        assert_eq!(detail(r#"{"list": [300]}"#), "must be a whole number, 0 or more");
        assert_eq!(detail(r#"{"nested": 1}"#), "must be an object");
        assert_eq!(detail(r#"{"nested": {"a": 1}}"#), "must be a boolean");
        assert_eq!(detail(r#"{"other, expected `x`": 1}"#), "is unknown; the fields here are rideId, list, nested");
        assert_eq!(detail(r#"{"list": [], "list": []}"#), "is given twice");
        assert_eq!(detail("[]"), "must be a JSON object");
        assert_eq!(json_detail("must be one of a, b at line 1 column 2"), "must be one of a, b");
        assert_eq!(json_detail("unknown variant `x`, expected `a` or `b` at line 1 column 2"), "must be one of a, b");
        assert_eq!(json_detail("missing field `a` at line 1 column 2"), "is required");
    }
}
