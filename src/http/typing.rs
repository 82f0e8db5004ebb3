//! `/messages/rides/{rideId}/typing`.

use std::sync::Arc;

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Writer as _};
use serde::Deserialize;

use super::body::{Body, REQUIRED};
use super::context::{Api, Session};
use super::params::RidePath;
use super::refusal::Refusal;
use crate::domain::{Caller, Error, RideId, Seq, Time, Topic, UserId};

/// Whether the caller is typing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "Typing"))]
pub(super) struct TypingBody {
    /// False when they have stopped.
    #[salvo(schema(required = true, nullable = false))]
    typing: Option<bool>,
}

/// Say that one is typing
///
/// Told to the others on the ride, and to nobody later. It ends by itself after 6 s, or with one's next message; said
/// again within 3 s it is not told again.
#[endpoint(tags("live"), operation_id = "setTyping", responses(
    (status_code = 202, description = "It will be told"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`chat_not_open`, or `chat_closed`")))]
pub(super) async fn set_typing(
    session: Session,
    ride: RidePath,
    body: Body<TypingBody>,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Session { caller, api, .. } = session;
    let types = body.0.typing.ok_or_else(|| Error::invalid("/typing", REQUIRED))?;
    say_typing(&api, &caller, &ride.0, types).await?;
    res.status_code(StatusCode::ACCEPTED);
    Ok(())
}

/// Judges and tells that somebody types, or has stopped.
pub(crate) async fn say_typing(api: &Arc<Api>, caller: &Caller, ride: &RideId, types: bool) -> Result<(), Refusal> {
    let snapshot = api.store.snapshot(ride).await?.ok_or(Error::RideNotFound)?;
    snapshot.require_open_chat(snapshot.admit(caller)?.role)?;
    tell(api, &Topic::ride(ride), &caller.user, types, snapshot.head, Some(snapshot.read_at));
    Ok(())
}

/// Tells everybody who follows the ride, here and on the other replicas, where that is news. `now` is the database's time, where
/// it is known: that of somebody who has stopped follows from when they began.
pub(super) fn tell(api: &Arc<Api>, topic: &Topic, user: &UserId, types: bool, seq: Seq, now: Option<Time>) {
    if let Some(signal) = api.hub.typing(topic, user, types, seq, now) {
        api.tell(signal);
    }
}
