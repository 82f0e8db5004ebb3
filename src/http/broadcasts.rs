//! `POST /broadcasts`.

use std::collections::BTreeSet;

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::{Body, Json, REQUIRED};
use super::context::Session;
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Error, FieldErrors, Metadata, Role, UserId};
use crate::writer::{Notices, Stopped};

/// The most users of a call.
const USERS: usize = 10_000;

/// The largest body: that many users with the longest ids, and the data.
const MAX_BYTES: usize = 1024 * 1024;

/// The longest type of a notice.
const TYPE_CHARS: usize = 64;

/// A notice to chosen users.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "NewBroadcast"))]
pub(super) struct BroadcastBody {
    /// To whom: 1 to 10000 users, who need not be known here. Each gets it once.
    #[salvo(schema(required = true, nullable = false, value_type = Vec<schema::Person>, min_items = 1, max_items = 10000, example = json!(["rider_1", "driver_1"])))]
    user_ids: Option<Vec<String>>,
    /// What kind of notice it is, in the platform's words: at most 64 characters.
    #[salvo(schema(min_length = 1, max_length = 64, example = "surge"))]
    r#type: Option<String>,
    /// What it says: at most 8 KiB, 32 levels deep.
    #[salvo(schema(required = true, nullable = false, value_type = Map<String, Value>, example = json!({"text": "Heavy rain: drivers may be late"})))]
    data: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Count {
    count: usize,
}

/// Tell chosen users something
///
/// For the platform (service). Puts a `notice` on the topic of each user, who sees it on `/events` and `/poll`, also when
/// they come later. One broadcast at a time is carried out by each server, in small batches in the order of the users' ids,
/// beside everybody's messages; others wait for their turn. Answered once all are committed. A 503 says for how many of the first
/// users it is: repeat it with the others. Where there is no answer a repeat may tell some twice.
#[endpoint(tags("rides"), operation_id = "broadcast", responses(
    (status_code = 202, description = "Committed for so many users", body = schema::BroadcastCount),
    (status_code = 403, description = "`forbidden`: not the service"),
    (status_code = 429, description = "`too_many_requests`: too many broadcasts wait for their turn"),
    (status_code = 503, description = "`unavailable`: not all are committed; `detail` says how many")))]
pub(super) async fn broadcast(
    session: Session,
    body: Body<BroadcastBody, MAX_BYTES>,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Session { caller, api, writer } = session;
    // Said before anything else: whoever may not do it has no use for what is wrong with the body.
    if caller.role != Role::Service {
        return Err(Error::Forbidden("only the service may broadcast").into());
    }
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let users = errors.take("/userIds", body.user_ids.ok_or_else(|| REQUIRED.to_owned()).and_then(users));
    let kind = errors.take("/type", body.r#type.map(kind).transpose());
    let data = errors.take("/data", body.data.as_deref().ok_or(REQUIRED).and_then(Metadata::parse));
    let (Some(users), Some(kind), Some(data)) = (users, kind, data) else { return Err(errors.into_error().into()) };
    let count = users.len();
    api.broadcaster.send(Notices { caller, users, kind, data, writer }).await.map_err(|stopped| {
        if matches!(stopped, Stopped::Busy) {
            api.metrics.rejected("broadcasts");
        }
        Refusal::from(stopped)
    })?;
    let text = serde_json::to_string(&Count { count }).map_err(|_| Error::Internal)?;
    Json::<schema::BroadcastCount>::text(StatusCode::ACCEPTED, text).render(res);
    Ok(())
}

/// The users, each once.
fn users(ids: Vec<String>) -> Result<Vec<UserId>, String> {
    if !(1..=USERS).contains(&ids.len()) {
        return Err(format!("must be 1 to {USERS} users"));
    }
    let user = |(place, id): (usize, &String)| UserId::parse(id).map_err(|error| format!("/{place}: {error}"));
    let users = ids.iter().enumerate().map(user).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(users.into_iter().collect())
}

fn kind(text: String) -> Result<String, &'static str> {
    let chars = text.chars().take(TYPE_CHARS + 1).count();
    let is_fine = (1..=TYPE_CHARS).contains(&chars) && !text.contains('\0');
    if is_fine { Ok(text) } else { Err("must be 1 to 64 characters, without U+0000") }
}
