//! `POST /broadcasts`: a notice to chosen users.

use std::collections::BTreeSet;

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::api_error::ApiError;
use super::body::{Body, Json, REQUIRED};
use super::schema;
use super::session::Session;
use crate::domain::{Error, FieldErrors, Metadata, Role, UserId};
use crate::writer::{BroadcastError, BroadcastRequest};

/// The maximum number of users of a request.
const MAX_USERS: usize = 10_000;

/// The maximum size of a body: the maximum number of users with the longest ids, and the data.
const MAX_BYTES: usize = 1024 * 1024;

/// The maximum length of a notice's type, in characters.
const MAX_TYPE_CHARS: usize = 64;

/// A notice to chosen users.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "NewBroadcast"))]
pub(super) struct BroadcastBody {
    /// The recipients: 1 to 10000 users, each of whom receives the notice once. They need not have rides.
    #[salvo(schema(required = true, nullable = false, value_type = Vec<schema::UserId>, min_items = 1, max_items = 10000, example = json!(["rider_1", "driver_1"])))]
    user_ids: Option<Vec<String>>,
    /// The kind of notice, defined by the platform: at most 64 characters.
    #[salvo(schema(min_length = 1, max_length = 64, example = "surge"))]
    r#type: Option<String>,
    /// The content of the notice: a JSON object of at most 8 KiB, at most 32 levels deep.
    #[salvo(schema(required = true, nullable = false, value_type = Map<String, Value>, example = json!({"text": "Heavy rain: drivers may be late"})))]
    data: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Count {
    count: usize,
}

/// Broadcast a notice
///
/// For the platform (service). Appends a `notice` to the topic of each user, who receives it on `/events` and `/poll`, also
/// when they connect later. Each server carries out one broadcast at a time, in small batches in the order of the users' ids;
/// other broadcasts are queued. The response is sent after all batches are committed. The `detail` of a 503 states for how many
/// users it is committed: repeat the request with the others. If you repeat a request that got no response, some users may
/// receive the notice twice.
#[endpoint(tags("rides"), operation_id = "broadcast", responses(
    (status_code = 202, description = "Committed for all users", body = schema::BroadcastCount),
    (status_code = 403, description = "`forbidden`: only the `service` role can broadcast"),
    (status_code = 429, description = "`too_many_requests`: too many queued broadcasts"),
    (status_code = 503, description = "`unavailable`: not committed for all users; `detail` states for how many")))]
pub(super) async fn broadcast(
    session: Session,
    body: Body<BroadcastBody, MAX_BYTES>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let writers = session.writers();
    let Session { caller, api, .. } = session;
    // Checked first: a caller without permission needs no errors about the body.
    if caller.role != Role::Service {
        return Err(Error::Forbidden("only the `service` role can broadcast").into());
    }
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let users = errors.check("/userIds", body.user_ids.ok_or_else(|| REQUIRED.to_owned()).and_then(users));
    let kind = errors.check("/type", body.r#type.map(kind).transpose());
    let data = errors.check("/data", body.data.as_deref().ok_or(REQUIRED).and_then(Metadata::parse));
    let (Some(users), Some(kind), Some(data)) = (users, kind, data) else { return Err(errors.into_error().into()) };
    let count = users.len();
    api.broadcaster.send(BroadcastRequest { caller, users, kind, data, writers }).await.map_err(|error| {
        if matches!(error, BroadcastError::QueueFull) {
            api.metrics.rejected("broadcast_queue");
        }
        ApiError::from(error)
    })?;
    let text = serde_json::to_string(&Count { count }).map_err(|_| Error::Internal)?;
    Json::<schema::BroadcastCount>::text(StatusCode::ACCEPTED, text).render(res);
    Ok(())
}

/// Parses the users and removes duplicates.
fn users(ids: Vec<String>) -> Result<Vec<UserId>, String> {
    if !(1..=MAX_USERS).contains(&ids.len()) {
        return Err(format!("must be 1 to {MAX_USERS} users"));
    }
    let user = |(index, id): (usize, &String)| UserId::parse(id).map_err(|error| format!("/{index}: {error}"));
    let users = ids.iter().enumerate().map(user).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(users.into_iter().collect())
}

fn kind(text: String) -> Result<String, &'static str> {
    let chars = text.chars().take(MAX_TYPE_CHARS + 1).count();
    let is_fine = (1..=MAX_TYPE_CHARS).contains(&chars) && !text.contains('\0');
    if is_fine { Ok(text) } else { Err("must be 1 to 64 characters, without U+0000") }
}
