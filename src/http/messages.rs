//! `/messages`: send, list, get, edit and delete messages.

use std::hash::{DefaultHasher, Hash, Hasher};

use salvo::http::StatusCode;
use salvo::http::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION};
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Depot, Request, Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::api_error::ApiError;
use super::body::{Body, Json, REQUIRED};
use super::live::state::{ParticipantView, WatermarksView, participants, receipts};
use super::message_lookup::find;
use super::page_size::fill_page;
use super::params::{MessagePath, RidePath, number, query, seq};
use super::session::Session;
use super::{audit_entry, moderation, schema, typing};
use crate::domain::{
    Caller, ClientMessageId, Content, Error, FieldErrors, Metadata, Review, RideId, RideSnapshot, Seq,
};
use crate::store::{Direction, HistoryPage};
use crate::writer::{DeleteMessage, SendMessage};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A message to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "SendMessage"))]
pub(super) struct SendBody {
    /// The ride to which the message belongs.
    #[salvo(schema(
        required = true,
        nullable = false,
        pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
        example = "ride_123"
    ))]
    ride_id: Option<String>,
    /// 1 to 4000 characters after trimming, at most 16 KiB in total, without U+0000. Stored byte for byte.
    #[salvo(schema(
        required = true,
        nullable = false,
        min_length = 1,
        max_length = 4000,
        pattern = r"\S",
        example = "I am at the main gate"
    ))]
    content: Option<String>,
    /// Any JSON object: at most 8 KiB, at most 32 levels deep, integers within 64 bits.
    #[salvo(schema(value_type = Option<Map<String, Value>>))]
    metadata: Option<Box<RawValue>>,
    /// The sender's id for this message. A repeated request with the same id returns the same message.
    #[salvo(schema(pattern = r"^[^\x00-\x1F\x7F-\x9F]+$", max_length = 128, min_length = 1))]
    client_message_id: Option<String>,
}

/// Send a message
///
/// The response is sent after the commit. A repeated request with the same `clientMessageId` (or `Idempotency-Key`)
/// returns the same message with 200 instead of 201.
#[endpoint(tags("messages"), operation_id = "sendMessage",
    parameters(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, pattern = "^[!-~]+$", description = "Alternative to `clientMessageId`.")),
    responses(
        (status_code = 201, description = "Committed", body = schema::Message),
        (status_code = 200, description = "The message was already sent", body = schema::Message),
        (status_code = 404, description = "`ride_not_found`"),
        (status_code = 409, description = "`chat_not_open`, `chat_closed`, or `idempotency_conflict`"),
        (status_code = 422, description = "`message_rejected`: rejected by the platform's moderation; `detail` is the reason"),
        (status_code = 503, description = "`unavailable` or `moderation_unavailable`. Try again after the time in `Retry-After`")))]
pub(super) async fn send_message(
    session: Session,
    body: Body<SendBody>,
    req: &mut Request,
    depot: &mut Depot,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Body(body) = body;
    let key = idempotency_key(req.headers())?;
    let mut errors = FieldErrors::default();
    let ride = body.ride_id.ok_or_else(|| REQUIRED.to_owned());
    let ride = errors.check("/rideId", ride.and_then(|ride| RideId::parse(&ride).map_err(|error| error.to_string())));
    let content = errors.check("/content", body.content.ok_or(REQUIRED).and_then(Content::parse));
    let metadata = errors.check("/metadata", body.metadata.as_deref().map(Metadata::parse).transpose());
    let named = errors.check("/clientMessageId", body.client_message_id.map(ClientMessageId::parse).transpose());
    let (Some(ride), Some(content), Some(metadata), Some(named)) = (ride, content, metadata, named) else {
        return Err(errors.into_error().into());
    };
    if let (Some(key), Some(named)) = (&key, &named)
        && key != named
    {
        return Err(Error::invalid("/clientMessageId", "must be the same as the Idempotency-Key header").into());
    }
    let writer = session.writer_of(&ride);
    let Session { caller, api, .. } = session;
    let client_message_id = named.or(key);
    let content_hash = writer.content_hash(&content, metadata.as_ref());
    let review = Review::NotNeeded;
    let mut command = SendMessage { caller, ride, content, metadata, client_message_id, content_hash, review };
    let (ride, user) = (command.ride.clone(), command.caller.user.clone());
    command.review = moderation::review(&api, &command).await?;
    let sent = writer.submit(command).await?;
    audit_entry::add_message(depot, &ride, sent.id);
    // A send ends the sender's typing indicator.
    typing::publish_typing(&api, &ride, &user, false, sent.seq, None);
    let status = if sent.created { StatusCode::CREATED } else { StatusCode::OK };
    if let Ok(location) = HeaderValue::try_from(["/api/v1/messages/", &sent.id.to_string()].concat()) {
        res.headers_mut().insert(LOCATION, location);
    }
    Json::<schema::Message>::text(status, sent.json).render(res);
    Ok(())
}

/// Parses `Idempotency-Key`. The value may be quoted: the header's draft defines it as a String of RFC 9651.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<ClientMessageId>, Error> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let invalid = |detail: &str| Error::invalid("Idempotency-Key", detail);
    let text = value.to_str().map_err(|_| invalid("must be plain text"))?.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    ClientMessageId::parse(text.to_owned()).map(Some).map_err(invalid)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct History<'a> {
    messages: Vec<Box<RawValue>>,
    has_more: bool,
    cursor: String,
    receipts: Vec<WatermarksView<'a>>,
    participants: Vec<ParticipantView<'a>>,
}

/// List a ride's messages
///
/// Returns the newest page by default. Within a page, messages are ordered oldest first. `cursor` is the log position at
/// which the page is accurate: a stream or poll that is opened `after` it misses nothing. A request with a matching
/// `If-None-Match` gets 304.
#[endpoint(tags("messages"), operation_id = "getHistory",
    parameters(
        ("before" = Option<i64>, Query, minimum = 0, description = "Only messages before this seq."),
        ("after" = Option<i64>, Query, minimum = 0, description = "Only messages after this seq. Cannot be combined with `before`."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Maximum number of messages: 1 to 200 (default 50). A page has at most about 256 KiB, but at least one message."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the page that the client already has.")),
    responses(
        (status_code = 200, description = "A page", body = schema::History),
        (status_code = 304, description = "The page has not changed"),
        (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_history(
    session: Session,
    ride: RidePath,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Session { caller, api, .. } = session;
    let RidePath(ride) = ride;
    let (before, after) = (seq("before", query(req, "before"))?, seq("after", query(req, "after"))?);
    let direction = match (before, after) {
        (Some(_), Some(_)) => return Err(Error::invalid("after", "give `before` or `after`, not both").into()),
        (None, Some(after)) => Direction::After(after),
        (before, None) => Direction::Before(before.unwrap_or(Seq::MAX)),
    };
    let limit = number(req, "limit", 1..=200)?.unwrap_or(50);

    res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(known) = req.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()) {
        // Each change of the page moves the log's head, so the ETag depends on the ride alone. The messages are not read.
        let snapshot = api.snapshot(&ride).await?;
        snapshot.require_access(&caller)?;
        let etag = etag(&snapshot, &caller, direction, limit);
        if matches_etag(known, &etag) {
            res.headers_mut().insert(ETAG, header(&etag));
            res.status_code(StatusCode::NOT_MODIFIED);
            return Ok(());
        }
    }
    let store = &api.shards.of_ride(&ride).store;
    let page = store.history(&ride, &caller, direction, limit).await?.ok_or(Error::RideNotFound)?;
    page.snapshot.require_access(&caller)?;
    api.require_memory()?;
    let page = HistoryPage { snapshot: store.with_visible_watermarks(page.snapshot, &caller).await?, ..page };
    res.headers_mut().insert(ETAG, header(&etag(&page.snapshot, &caller, direction, limit)));
    let views = page.messages.iter().map(|message| message.view_for(&caller, &page.snapshot.receipts));
    // A page that is over the size limit keeps the messages nearest to its start.
    let (messages, is_truncated) = match direction {
        Direction::After(_) => fill_page(views)?,
        Direction::Before(_) => {
            let (mut messages, is_truncated) = fill_page(views.rev())?;
            messages.reverse();
            (messages, is_truncated)
        }
    };
    let history = History {
        messages,
        has_more: page.has_more || is_truncated,
        cursor: page.snapshot.head.to_string(),
        receipts: receipts(&page.snapshot),
        participants: participants(&page.snapshot),
    };
    Json::<schema::History>::ok(&history)?.render(res);
    Ok(())
}

/// Returns the `ETag` of a page. It covers the whole response: each message, edit, receipt and participant change moves the
/// log's head, and presence has versions. A restored database may reach the same head with other events; the id of the batch
/// that wrote the last event distinguishes the two.
fn etag(snapshot: &RideSnapshot, caller: &Caller, direction: Direction, limit: usize) -> String {
    let mut hasher = DefaultHasher::new();
    (&caller.user, caller.role, direction, limit, snapshot.last_batch).hash(&mut hasher);
    let presence =
        snapshot.current_participants().map(|participant| participant.presence.map(|presence| presence.version));
    presence.for_each(|version| version.hash(&mut hasher));
    format!("\"{}-{:016x}\"", snapshot.head, hasher.finish())
}

/// Returns whether `If-None-Match` matches: a list, compared weakly, or `*` (RFC 9110, section 13.1.2).
fn matches_etag(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Get a message
///
/// A deleted message is returned as its tombstone.
#[endpoint(tags("messages"), operation_id = "getMessage", responses(
    (status_code = 200, description = "The message", body = schema::Message),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn get_message(session: Session, message: MessagePath) -> Result<Json<schema::Message>, ApiError> {
    let (message, snapshot, _) = find(&session.api, &session.caller, message.0).await?;
    Json::ok(&message.view_for(&session.caller, &snapshot.receipts))
}

/// An edit of a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "EditMessage"))]
pub(super) struct EditBody {
    /// The new text. If omitted or null, the text does not change.
    #[salvo(schema(min_length = 1, max_length = 4000, pattern = r"\S", example = "I am at the side gate"))]
    content: Option<String>,
    /// The new metadata. If omitted, the metadata does not change; null removes it.
    #[serde(default, deserialize_with = "deserialize_some")]
    #[salvo(schema(value_type = Option<Map<String, Value>>))]
    metadata: Option<Option<Box<RawValue>>>,
}

/// Distinguishes a field that is `null` (`Some(None)`) from an absent field (`None`).
pub(super) fn deserialize_some<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Edit a message
///
/// Only the sender can edit a message, while the chat is open. An edit that changes nothing creates no event.
#[endpoint(tags("messages"), operation_id = "editMessage", responses(
    (status_code = 200, description = "The message", body = schema::Message),
    (status_code = 403, description = "`forbidden`: another user's message"),
    (status_code = 404, description = "`message_not_found`"),
    (status_code = 409, description = "`message_deleted`, `chat_not_open`, or `chat_closed`"),
    (status_code = 422, description = "`message_rejected`: rejected by the platform's moderation; `detail` is the reason"),
    (status_code = 503, description = "`unavailable` or `moderation_unavailable`. Try again after the time in `Retry-After`")))]
pub(super) async fn edit_message(
    session: Session,
    message: MessagePath,
    body: Body<EditBody>,
) -> Result<Json<schema::Message>, ApiError> {
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let content = errors.check("/content", body.content.map(Content::parse).transpose());
    let metadata = body.metadata.map(|metadata| metadata.as_deref().map(Metadata::parse).transpose()).transpose();
    let (Some(content), Some(metadata)) = (content, errors.check("/metadata", metadata)) else {
        return Err(errors.into_error().into());
    };
    let json = moderation::edit(&session, message.0, content, metadata).await?;
    Ok(Json::text(StatusCode::OK, json))
}

/// Delete a message
///
/// The sender and support can delete a message. Its content is erased from the message and from all events of the log. A
/// tombstone remains. Deleting a message again changes nothing.
#[endpoint(tags("messages"), operation_id = "deleteMessage", responses(
    (status_code = 204, description = "Deleted"),
    (status_code = 403, description = "`forbidden`: another user's message"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn delete_message(session: Session, message: MessagePath, res: &mut Response) -> Result<(), ApiError> {
    let (message, ..) = find(&session.api, &session.caller, message.0).await?;
    let writer = session.writer_of(&message.ride);
    writer.submit(DeleteMessage { caller: session.caller, ride: message.ride, message: message.id }).await?;
    res.status_code(StatusCode::NO_CONTENT);
    Ok(())
}
