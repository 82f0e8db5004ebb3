//! `/messages`: sending, the history, one message.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use salvo::http::StatusCode;
use salvo::http::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION};
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Depot, Request, Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::{Body, Json, REQUIRED};
use super::context::{Api, Session};
use super::live::state::{MarkView, ParticipantView, marks, participants};
use super::pages::fitting;
use super::params::{MessagePath, RidePath, number, query, seq};
use super::refusal::Refusal;
use super::{audit, moderation, schema, typing};
use crate::domain::{
    Access, Caller, ClientMessageId, Content, Error, FieldErrors, Message, MessageId, Metadata, Review, RideId,
    RideSnapshot, Seq, Topic,
};
use crate::store::{Direction, HistoryPage};
use crate::writer::{DeleteMessage, SendMessage};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A message to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "SendMessage"))]
pub(super) struct SendBody {
    /// The ride to say it on.
    #[salvo(schema(
        required = true,
        nullable = false,
        pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
        example = "ride_123"
    ))]
    ride_id: Option<String>,
    /// 1 to 4000 characters after trimming, at most 16 KiB in all, without U+0000; kept byte for byte.
    #[salvo(schema(
        required = true,
        nullable = false,
        min_length = 1,
        max_length = 4000,
        pattern = r"\S",
        example = "I am at the main gate"
    ))]
    content: Option<String>,
    /// Anything the app attaches: at most 8 KiB, 32 levels deep, integers within 64 bits.
    #[salvo(schema(value_type = Option<Map<String, Value>>))]
    metadata: Option<Box<RawValue>>,
    /// The sender's own name for this message: sent again under the same name it is the same message.
    #[salvo(schema(pattern = r"^[^\x00-\x1F\x7F-\x9F]+$", max_length = 128, min_length = 1))]
    client_message_id: Option<String>,
}

/// Send a message
///
/// Answered once it is committed. Sent again with the same `clientMessageId` (or `Idempotency-Key`), it is the
/// same message, and the answer is 200 instead of 201.
#[endpoint(tags("messages"), operation_id = "sendMessage",
    parameters(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, pattern = "^[!-~]+$", description = "The same as `clientMessageId`.")),
    responses(
        (status_code = 201, description = "Committed", body = schema::Message),
        (status_code = 200, description = "It had been sent before", body = schema::Message),
        (status_code = 404, description = "`ride_not_found`"),
        (status_code = 409, description = "`chat_not_open`, `chat_closed`, or `idempotency_conflict`"),
        (status_code = 422, description = "`message_rejected`: by the platform's moderation; `detail` is its reason"),
        (status_code = 503, description = "`unavailable`, or `moderation_unavailable`: try again, `Retry-After` says when")))]
pub(super) async fn send_message(
    session: Session,
    body: Body<SendBody>,
    req: &mut Request,
    depot: &mut Depot,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Body(body) = body;
    let key = idempotency_key(req.headers())?;
    let mut errors = FieldErrors::default();
    let ride = body.ride_id.ok_or_else(|| REQUIRED.to_owned());
    let ride = errors.take("/rideId", ride.and_then(|ride| RideId::parse(&ride).map_err(|error| error.to_string())));
    let content = errors.take("/content", body.content.ok_or(REQUIRED).and_then(Content::parse));
    let metadata = errors.take("/metadata", body.metadata.as_deref().map(Metadata::parse).transpose());
    let named = errors.take("/clientMessageId", body.client_message_id.map(ClientMessageId::parse).transpose());
    let (Some(ride), Some(content), Some(metadata), Some(named)) = (ride, content, metadata, named) else {
        return Err(errors.into_error().into());
    };
    if let (Some(key), Some(named)) = (&key, &named)
        && key != named
    {
        return Err(Error::invalid("/clientMessageId", "must be the same as the Idempotency-Key header").into());
    }
    let (caller, client_message_id) = (session.caller, named.or(key));
    let content_hash = session.writer.content_hash(&content, metadata.as_ref());
    let review = Review::NotNeeded;
    let mut command = SendMessage { caller, ride, content, metadata, client_message_id, content_hash, review };
    let (ride, topic, user) = (command.ride.clone(), Topic::ride(&command.ride), command.caller.user.clone());
    command.review = moderation::review(&session.api, &command).await?;
    let sent = session.writer.submit(command).await?;
    audit::sent(depot, &ride, sent.id);
    // Who has sent it types no more.
    typing::tell(&session.api, &topic, &user, false, sent.seq, None);
    let status = if sent.created { StatusCode::CREATED } else { StatusCode::OK };
    if let Ok(location) = HeaderValue::try_from(["/api/v1/messages/", &sent.id.to_string()].concat()) {
        res.headers_mut().insert(LOCATION, location);
    }
    Json::<schema::Message>::text(status, sent.json).render(res);
    Ok(())
}

/// The key as it is, or within quotes: as a String of RFC 9651, which the header's draft asks for.
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
    receipts: Vec<MarkView<'a>>,
    participants: Vec<ParticipantView<'a>>,
}

/// A ride's messages
///
/// The newest page by default, oldest first within it. `cursor` is the position in the ride's log that the page is
/// true at: a stream or poll opened `after` it misses nothing. With `If-None-Match`, a page that has not changed
/// costs 304.
#[endpoint(tags("messages"), operation_id = "getHistory",
    parameters(
        ("before" = Option<i64>, Query, minimum = 0, description = "Only messages before this seq."),
        ("after" = Option<i64>, Query, minimum = 0, description = "Only messages after this seq; not with `before`."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "The most messages: 1 to 200, 50 where not given. A page has about 256 KiB at most, and at least one message: `hasMore` tells whether others follow."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the page that is there already.")),
    responses(
        (status_code = 200, description = "A page", body = schema::History),
        (status_code = 304, description = "It is as it was"),
        (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_history(
    session: Session,
    ride: RidePath,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), Refusal> {
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
        // Whatever changes the page moves the log's head, so the ride alone tells; the messages need not be read.
        let snapshot = api.store.snapshot(&ride).await?.ok_or(Error::RideNotFound)?;
        snapshot.admit(&caller)?;
        let etag = etag(&snapshot, &caller, direction, limit);
        if matches_etag(known, &etag) {
            res.headers_mut().insert(ETAG, header(&etag));
            res.status_code(StatusCode::NOT_MODIFIED);
            return Ok(());
        }
    }
    let page = api.store.history(&ride, &caller, direction, limit).await?.ok_or(Error::RideNotFound)?;
    page.snapshot.admit(&caller)?;
    api.require_room()?;
    let page = HistoryPage { snapshot: api.store.with_seen_marks(page.snapshot, &caller).await?, ..page };
    res.headers_mut().insert(ETAG, header(&etag(&page.snapshot, &caller, direction, limit)));
    let views = page.messages.iter().map(|message| message.view_for(&caller, &page.snapshot.receipts));
    // Those nearest to where the page begins.
    let (messages, is_cut) = match direction {
        Direction::After(_) => fitting(views)?,
        Direction::Before(_) => {
            let (mut messages, is_cut) = fitting(views.rev())?;
            messages.reverse();
            (messages, is_cut)
        }
    };
    let history = History {
        messages,
        has_more: page.has_more || is_cut,
        cursor: page.snapshot.head.to_string(),
        receipts: marks(&page.snapshot),
        participants: participants(&page.snapshot),
    };
    Json::<schema::History>::ok(&history)?.render(res);
    Ok(())
}

/// Names a page by all that it shows: the log's head moves with each message, edit, receipt and participant, and
/// presence has versions. A restored log may come as far again with other events: the batch that wrote the last one tells.
fn etag(snapshot: &RideSnapshot, caller: &Caller, direction: Direction, limit: usize) -> String {
    let mut hasher = DefaultHasher::new();
    (&caller.user, caller.role, direction, limit, snapshot.last_batch).hash(&mut hasher);
    let presence = snapshot.present().map(|person| person.presence.map(|presence| presence.version));
    presence.for_each(|version| version.hash(&mut hasher));
    format!("\"{}-{:016x}\"", snapshot.head, hasher.finish())
}

/// RFC 9110, section 13.1.2: a list, compared weakly, or `*`.
fn matches_etag(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// A message that the caller may see, and the ride it is on, as they are now.
pub(super) async fn find(
    api: &Arc<Api>,
    caller: &Caller,
    id: MessageId,
) -> Result<(Message, RideSnapshot, Access), Refusal> {
    let message = api.store.message(id).await?;
    // Also where there is no message: the statements that are run do not tell a stranger whether there is.
    let ride = match &message {
        Some(message) => message.ride.clone(),
        None => RideId::parse(&id.to_string()).map_err(|_| Error::Internal)?,
    };
    let snapshot = api.store.snapshot(&ride).await?;
    let (Some(message), Some(snapshot)) = (message, snapshot) else { return Err(Error::MessageNotFound.into()) };
    let access = snapshot.admit(caller).map_err(|_| Error::MessageNotFound)?;
    if !snapshot.parts(caller).contains(message.seq) {
        return Err(Error::MessageNotFound.into());
    }
    Ok((message, snapshot, access))
}

/// One message
///
/// A deleted one as its tombstone.
#[endpoint(tags("messages"), operation_id = "getMessage", responses(
    (status_code = 200, description = "The message as it is now", body = schema::Message),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn get_message(session: Session, message: MessagePath) -> Result<Json<schema::Message>, Refusal> {
    let (message, snapshot, _) = find(&session.api, &session.caller, message.0).await?;
    Json::ok(&message.view_for(&session.caller, &snapshot.receipts))
}

/// Changes to a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "EditMessage"))]
pub(super) struct EditBody {
    /// The new text; left out or null, it stays.
    #[salvo(schema(min_length = 1, max_length = 4000, pattern = r"\S", example = "I am at the side gate"))]
    content: Option<String>,
    /// The new metadata; left out, it stays; null takes it away.
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<Map<String, Value>>))]
    metadata: Option<Option<Box<RawValue>>>,
}

/// Tells `null` from a field that is not there.
pub(super) fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Edit a message
///
/// Only its sender may, while the chat is open. An edit that changes nothing makes no event.
#[endpoint(tags("messages"), operation_id = "editMessage", responses(
    (status_code = 200, description = "The message as it is now", body = schema::Message),
    (status_code = 403, description = "`forbidden`: another's message"),
    (status_code = 404, description = "`message_not_found`"),
    (status_code = 409, description = "`message_deleted`, `chat_not_open`, or `chat_closed`"),
    (status_code = 422, description = "`message_rejected`: by the platform's moderation; `detail` is its reason"),
    (status_code = 503, description = "`unavailable`, or `moderation_unavailable`: try again, `Retry-After` says when")))]
pub(super) async fn edit_message(
    session: Session,
    message: MessagePath,
    body: Body<EditBody>,
) -> Result<Json<schema::Message>, Refusal> {
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let content = errors.take("/content", body.content.map(Content::parse).transpose());
    let metadata = body.metadata.map(|metadata| metadata.as_deref().map(Metadata::parse).transpose()).transpose();
    let (Some(content), Some(metadata)) = (content, errors.take("/metadata", metadata)) else {
        return Err(errors.into_error().into());
    };
    let json = moderation::edit(&session, message.0, content, metadata).await?;
    Ok(Json::text(StatusCode::OK, json))
}

/// Delete a message
///
/// Its sender may, and support. What was said is erased from the message and from every event of the log; a
/// tombstone stays. Deleting it again changes nothing.
#[endpoint(tags("messages"), operation_id = "deleteMessage", responses(
    (status_code = 204, description = "It is gone"),
    (status_code = 403, description = "`forbidden`: another's message"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn delete_message(session: Session, message: MessagePath, res: &mut Response) -> Result<(), Refusal> {
    let (message, ..) = find(&session.api, &session.caller, message.0).await?;
    let command = DeleteMessage { caller: session.caller, ride: message.ride, message: message.id };
    session.writer.submit(command).await?;
    res.status_code(StatusCode::NO_CONTENT);
    Ok(())
}
