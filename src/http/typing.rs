//! `/messages/rides/{rideId}/typing`.

use std::sync::Arc;

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Writer as _};
use serde::Deserialize;

use super::api_error::ApiError;
use super::body::{Body, REQUIRED};
use super::context::Api;
use super::params::RidePath;
use super::session::Session;
use crate::domain::{Caller, Error, RideId, Seq, Time, Topic, UserId};

/// Whether the caller is typing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "Typing"))]
pub(super) struct TypingBody {
    /// Whether the caller is typing.
    #[salvo(schema(required = true, nullable = false))]
    typing: Option<bool>,
}

/// Set the typing indicator
///
/// The indicator is sent to the ride's current streams and is not stored. It ends by itself after 6 s, or with the caller's
/// next message. A repeated request within 3 s sends nothing.
#[endpoint(tags("live"), operation_id = "setTyping", responses(
    (status_code = 202, description = "Accepted"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`chat_not_open`, or `chat_closed`")))]
pub(super) async fn set_typing(
    session: Session,
    ride: RidePath,
    body: Body<TypingBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Session { caller, api, .. } = session;
    let is_typing = body.0.typing.ok_or_else(|| Error::invalid("/typing", REQUIRED))?;
    update_typing(&api, &caller, &ride.0, is_typing).await?;
    res.status_code(StatusCode::ACCEPTED);
    Ok(())
}

/// Checks that the user may write, then publishes their typing indicator.
pub(crate) async fn update_typing(
    api: &Arc<Api>,
    caller: &Caller,
    ride: &RideId,
    is_typing: bool,
) -> Result<(), ApiError> {
    let snapshot = api.snapshot(ride).await?;
    snapshot.require_open_chat(snapshot.require_access(caller)?.role)?;
    publish_typing(api, ride, &caller.user, is_typing, snapshot.head, Some(snapshot.read_at));
    Ok(())
}

/// Publishes a changed typing indicator to the ride's readers, here and on the other replicas. `now` is the database's time. It
/// may be `None` where typing ends: the hub then derives the version from the one at which typing began.
pub(super) fn publish_typing(
    api: &Arc<Api>,
    ride: &RideId,
    user: &UserId,
    is_typing: bool,
    seq: Seq,
    now: Option<Time>,
) {
    let shard = api.shards.of_ride(ride);
    if let Some(update) = shard.hub.typing_update(&Topic::ride(ride), user, is_typing, seq, now) {
        shard.publish(update);
    }
}
