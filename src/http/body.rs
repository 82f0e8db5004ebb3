//! Request bodies, read as JSON whatever their `Content-Type` says, and JSON answers.

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

use super::context::Api;
use super::operations::ApiOperation;
use super::refusal::Refusal;
use crate::domain::{Error, FieldErrors};
use crate::memory::Held;

/// The largest body, where a handler does not say otherwise.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// The largest body that is read although it is too large.
const MAX_IGNORED: usize = 1024 * 1024;

/// A request's body, of at most `MAX` bytes.
#[derive(Debug)]
pub(super) struct Body<T, const MAX: usize = MAX_BYTES>(pub(super) T);

impl<'ex, T: DeserializeOwned + Send, const MAX: usize> Extractible<'ex> for Body<T, MAX> {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("Body");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, Refusal> {
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

/// A request's body, or nothing: an empty one is the default.
#[derive(Debug)]
pub(super) struct OptionalBody<T>(pub(super) T);

impl<'ex, T: DeserializeOwned + Default + Send> Extractible<'ex> for OptionalBody<T> {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("OptionalBody");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, Refusal> {
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

/// Rejects the body of a request whose operation has none: what it says would be ignored. Nothing and `{}`, which some clients
/// always send, are none; and of GET and HEAD a body has no meaning (RFC 9110, section 9.3.1).
pub(super) async fn reject_body(
    req: &mut Request,
    depot: &Depot,
    operation: Option<&ApiOperation>,
) -> Result<(), Refusal> {
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
        errors.take::<(), _>(&pointer_to(field), Err("is unknown: this operation has no fields"));
    }
    if errors.0.is_empty() { Ok(()) } else { Err(errors.into_error().into()) }
}

/// Reads a body of at most so many bytes.
pub(super) async fn read<'ex>(req: &'ex mut Request, depot: &Depot, most: usize) -> Result<&'ex [u8], Refusal> {
    let api = depot.get_typed::<Arc<Api>>().map_err(|_| Error::Internal)?;
    // Told beforehand that it is too long, there is no need to read it.
    let length = content_length(req);
    let deadline = Instant::now() + api.limits.body_deadline;
    if let Some(length) = length.filter(|length| *length > most) {
        // But whoever is still sending may miss the answer: in HTTP/2 a client may take the end of its stream for a failure (curl 7
        // does), and in HTTP/1.1 what was sent and not read resets the connection, answer and all (RFC 9112, section 9.6). Who asks
        // first (`Expect: 100-continue`) has not begun.
        let is_sent = req.version() >= Version::HTTP_2 || !req.headers().contains_key(EXPECT);
        if is_sent && length <= MAX_IGNORED {
            let held = hold(api, length);
            let reading = unless_cut(held.as_ref(), req.payload_with_max_size(MAX_IGNORED));
            drop(timeout_at(deadline, reading).await);
        }
        return Err(Refusal::BodyTooLarge);
    }
    // A small one is there, mostly, when its head is.
    let held = hold(api, length.unwrap_or(most));
    // It counts as long as the request does: what is parsed from it waits for the writer.
    if let Some((_, held)) = &held {
        req.extensions_mut().insert(Arc::clone(held));
    }
    let reading = timeout_at(deadline, unless_cut(held.as_ref(), req.payload_with_max_size(most))).await;
    if let Some((_, held)) = &held {
        held.settle();
    }
    match reading {
        Ok(Some(Ok(bytes))) => Ok(bytes),
        Ok(Some(Err(ParseError::PayloadTooLarge))) => Err(Refusal::BodyTooLarge),
        Ok(Some(Err(_))) => Err(Error::invalid("", "the body could not be read").into()),
        Ok(None) => Err(Error::Unavailable.into()),
        Err(_) => {
            api.metrics.rejected("body_deadline");
            Err(Error::invalid("", "the body has taken too long").into())
        }
    }
}

/// The smallest body that is counted.
const SMALL: usize = 1024;

fn content_length(req: &Request) -> Option<usize> {
    req.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a request has no body, or one that is not counted.
pub(super) fn has_small_body(req: &Request) -> bool {
    match content_length(req) {
        Some(length) => length < SMALL,
        None => {
            let is_announced = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| req.headers().contains_key(name));
            !is_announced && req.version() < Version::HTTP_2
        }
    }
}

/// Holds the memory of a body while it is read; with what ends that.
fn hold(api: &Api, length: usize) -> Option<(CancellationToken, Arc<Held>)> {
    (length >= SMALL).then(|| {
        let cut = CancellationToken::new();
        let held = Arc::new(api.memory.hold(length, &cut));
        (cut, held)
    })
}

async fn unless_cut<T>(held: Option<&(CancellationToken, Arc<Held>)>, reading: impl Future<Output = T>) -> Option<T> {
    match held {
        Some((cut, _)) => cut.run_until_cancelled(reading).await,
        None => Some(reading.await),
    }
}

/// Parses a body; where it is not what it should be, the error says which field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    match serde_json::from_slice(bytes) {
        Err(error) if !error.is_data() => Err(Error::invalid("", format!("must be JSON: {error}")).into()),
        // Serde would fill a struct from an array as well.
        _ if !bytes.trim_ascii_start().starts_with(b"{") => Err(Error::invalid("", "must be a JSON object").into()),
        Ok(parsed) => Ok(parsed),
        Err(error) => Err(Error::invalid(wrong_field::<T>(bytes), in_terms_of_json(&error.to_string())).into()),
    }
}

/// What serde says of a value that is not what it should be, in the terms of JSON instead of Rust's: what would be right.
fn in_terms_of_json(said: &str) -> String {
    // Its kinds of errors are words alone, and so is what it expects. What the client has sent stands between the two.
    let said = said.rfind(" at line ").and_then(|end| said.get(..end)).unwrap_or(said);
    let expected = said.rsplit_once(", expected ").map(|(_, expected)| expected);
    let names = |list: &str| list.trim_start_matches("one of ").replace('`', "").replace(" or ", ", ");
    match (said.split(' ').next().unwrap_or_default(), said.split(' ').nth(1).unwrap_or_default(), expected) {
        ("unknown", "field", Some(list)) => format!("is unknown; the fields here are {}", names(list)),
        ("unknown", "field", None) => "is unknown; there are no fields here".to_owned(),
        ("unknown", "variant", Some(list)) => format!("must be one of {}", names(list)),
        ("duplicate", "field", _) => "is given twice".to_owned(),
        ("missing", "field", _) => REQUIRED.to_owned(),
        ("invalid", "type" | "value" | "length" | "type:" | "value:" | "length:", Some(expected)) => {
            format!("must be {}", kind_of_json(expected))
        }
        _ => said.to_owned(),
    }
}

/// A Rust type, as serde names what it expects, in the terms of JSON.
fn kind_of_json(expected: &str) -> &str {
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

/// Where a body is wrong. It is parsed once more for that: to keep track of it costs as much as the parsing.
fn wrong_field<T: DeserializeOwned>(bytes: &[u8]) -> String {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize::<_, T>(&mut reader);
    parsed.err().map(|error| pointer(error.path())).unwrap_or_default()
}

/// A JSON Pointer (RFC 6901) to a member.
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

/// What a required field must be there for.
pub(super) const REQUIRED: &str = "is required";

/// A JSON answer, whose text may have been made elsewhere. `T` is what it is, for openapi.yaml.
#[derive(Debug)]
pub(super) struct Json<T> {
    status: StatusCode,
    text: String,
    shape: PhantomData<T>,
}

impl<T> Json<T> {
    /// 200 with a value.
    pub(super) fn ok(value: &impl Serialize) -> Result<Self, Refusal> {
        let text = serde_json::to_string(value).map_err(|_| Error::Internal)?;
        Ok(Self::text(StatusCode::OK, text))
    }

    /// JSON that is text already.
    pub(super) fn text(status: StatusCode, text: String) -> Self {
        Self { status, text, shape: PhantomData }
    }
}

/// Text, and what is held until the last of its bytes was sent.
struct Holding<H>(String, #[allow(dead_code, reason = "held, not read")] H);

impl<H> AsRef<[u8]> for Holding<H> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// 200 with a value, which holds on to something until its last byte was sent: hyper lets go of a body before that.
pub(super) fn render_holding<H>(value: &impl Serialize, held: H, res: &mut Response) -> Result<(), Refusal>
where
    H: Send + 'static,
{
    let text = serde_json::to_string(value).map_err(|_| Error::Internal)?;
    res.status_code(StatusCode::OK);
    res.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    res.body(Bytes::from_owner(Holding(text, held)));
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
        let response = salvo::oapi::Response::new("Done").add_content("application/json", content);
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

    fn wrong(text: &[u8]) -> (String, String) {
        match parse::<Sample>(text).unwrap_err() {
            Refusal::Domain(Error::Invalid(mut fields)) => {
                let field = fields.0.remove(0);
                (field.pointer, field.detail)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wrong_body_is_told_by_its_field() {
        assert_eq!(wrong(br#"{"rideId": 5}"#).0, "/rideId");
        assert_eq!(wrong(br#"{"list": [1, "x"]}"#).0, "/list/1");
        assert_eq!(wrong(br#"{"other": 1}"#).0, "/other");
        assert!(wrong(br#"{"rideId": "#).1.starts_with("must be JSON"));
        assert!(wrong(b"").1.starts_with("must be JSON"));
        assert!(wrong(br#"{} x"#).1.starts_with("must be JSON"));
        assert!(wrong(b"{\"rideId\": \"\xff\"}").1.starts_with("must be JSON"));
        assert!(wrong(br#"{"rideId": "\ud800"}"#).1.starts_with("must be JSON"));
        // However deep it is: the array itself is wrong already, and what is within is not parsed.
        assert_eq!(wrong("[".repeat(5_000).as_bytes()).1, "must be a JSON object");
        assert!(parse::<Sample>(br#"{"rideId": null}"#).is_ok());
    }

    #[test]
    fn what_would_be_right_is_said_in_the_terms_of_json() {
        let detail = |text: &str| wrong(text.as_bytes()).1;
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
        assert_eq!(in_terms_of_json("must be one of a, b at line 1 column 2"), "must be one of a, b");
        assert_eq!(
            in_terms_of_json("unknown variant `x`, expected `a` or `b` at line 1 column 2"),
            "must be one of a, b"
        );
        assert_eq!(in_terms_of_json("missing field `a` at line 1 column 2"), "is required");
    }
}
