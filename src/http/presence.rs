//! `/messages/rides/{rideId}/presence`.

use salvo::Writer as _;
use salvo::oapi::endpoint;
use serde::Serialize;

use super::body::Json;
use super::context::Session;
use super::live::state::{ParticipantView, participants};
use super::params::RidePath;
use super::refusal::Refusal;
use super::schema;
use crate::domain::Error;

#[derive(Serialize)]
struct PresenceView<'a> {
    participants: Vec<ParticipantView<'a>>,
}

/// Who of a ride's people follows it
///
/// By a stream or by polling, on any replica. Whoever has left is still there for a grace.
#[endpoint(tags("live"), operation_id = "getPresence", responses(
    (status_code = 200, description = "Those who are on the ride", body = schema::Presence),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_presence(session: Session, ride: RidePath) -> Result<Json<schema::Presence>, Refusal> {
    let snapshot = session.api.store.snapshot(&ride.0).await?.ok_or(Error::RideNotFound)?;
    snapshot.admit(&session.caller)?;
    Json::ok(&PresenceView { participants: participants(&snapshot) })
}
