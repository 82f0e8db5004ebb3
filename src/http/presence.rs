//! `/messages/rides/{rideId}/presence`.

use salvo::Writer as _;
use salvo::oapi::endpoint;
use serde::Serialize;

use super::api_error::ApiError;
use super::body::Json;
use super::live::state::{ParticipantView, participants};
use super::params::RidePath;
use super::schema;
use super::session::Session;

#[derive(Serialize)]
struct PresenceView<'a> {
    participants: Vec<ParticipantView<'a>>,
}

/// Get presence
///
/// A participant is online while they have an open stream or poll of the ride on any replica, and for the presence grace
/// (`RIDEWIRE_PRESENCE_GRACE`) after it.
#[endpoint(tags("live"), operation_id = "getPresence", responses(
    (status_code = 200, description = "The ride's participants", body = schema::Presence),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_presence(session: Session, ride: RidePath) -> Result<Json<schema::Presence>, ApiError> {
    let snapshot = session.api.snapshot(&ride.0).await?;
    snapshot.require_access(&session.caller)?;
    Json::ok(&PresenceView { participants: participants(&snapshot) })
}
