//! `/rides/{rideId}/location`.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Writer as _};
use serde::Deserialize;

use super::api_error::ApiError;
use super::body::{Body, Json, REQUIRED};
use super::context::Api;
use super::params::RidePath;
use super::schema;
use super::session::Session;
use crate::domain::{Caller, Coordinates, Error, FieldErrors, Location, RideId, RideRole, Time};

/// The driver's location.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "PutLocation"))]
pub(super) struct LocationBody {
    /// Degrees north.
    #[salvo(schema(required = true, nullable = false, minimum = -90, maximum = 90, example = 52.52))]
    lat: Option<f64>,
    /// Degrees east.
    #[salvo(schema(required = true, nullable = false, minimum = -180, maximum = 180, example = 13.405))]
    lng: Option<f64>,
    /// Degrees clockwise from north. −1 means unknown, as iOS reports it, and becomes null.
    #[salvo(schema(value_type = Option<schema::NewHeading>))]
    heading: Option<f64>,
    /// Metres per second. −1 means unknown, and becomes null.
    #[salvo(schema(value_type = Option<schema::NewSpeed>))]
    speed: Option<f64>,
    /// The radius of uncertainty in metres. −1 means unknown, and becomes null.
    #[salvo(schema(value_type = Option<schema::NewAccuracy>))]
    accuracy: Option<f64>,
    /// The time of the location. Defaults to the current time, which also replaces a time in the future.
    #[salvo(schema(format = "date-time"))]
    at: Option<String>,
}

/// Update the driver's location
///
/// For the ride's driver. The location is sent to the ride's streams. Only the latest location is stored; an older one is
/// ignored.
#[endpoint(tags("rides"), operation_id = "putLocation", responses(
    (status_code = 202, description = "Accepted"),
    (status_code = 403, description = "`forbidden`: not the ride's driver"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`ride_conflict`: the ride has ended")))]
pub(super) async fn put_location(
    session: Session,
    ride: RidePath,
    body: Body<LocationBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Session { caller, api, .. } = session;
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let lat = errors.check("/lat", body.lat.ok_or(REQUIRED));
    let lng = errors.check("/lng", body.lng.ok_or(REQUIRED));
    let heading = errors
        .check("/heading", within(unless_unknown(body.heading), 360.0, "must be 0 to 360 degrees, or -1 for unknown"));
    let speed = errors.check(
        "/speed",
        within(unless_unknown(body.speed), f64::MAX, "must be 0 or more metres per second, or -1 for unknown"),
    );
    let accuracy = errors.check(
        "/accuracy",
        within(unless_unknown(body.accuracy), f64::MAX, "must be 0 or more metres, or -1 for unknown"),
    );
    let at = body.at.map(|at| Time::parse(&at).ok_or("must be an RFC 3339 time"));
    let at = errors.check("/at", at.transpose());
    let (Some(lat), Some(lng), Some(heading), Some(speed), Some(accuracy), Some(at)) =
        (lat, lng, heading, speed, accuracy, at)
    else {
        return Err(errors.into_error().into());
    };
    let coordinates = Coordinates::parse(lat, lng).map_err(|(pointer, detail)| Error::invalid(pointer, detail))?;
    update_location(&api, &caller, ride.0, LocationUpdate { coordinates, heading, speed, accuracy, at }).await?;
    res.status_code(StatusCode::ACCEPTED);
    Ok(())
}

/// A location that a driver has sent.
pub(crate) struct LocationUpdate {
    pub(crate) coordinates: Coordinates,
    pub(crate) heading: Option<f64>,
    pub(crate) speed: Option<f64>,
    pub(crate) accuracy: Option<f64>,
    pub(crate) at: Option<Time>,
}

/// Checks that the caller is the ride's driver, then stores and publishes their location.
pub(crate) async fn update_location(
    api: &Api,
    caller: &Caller,
    ride: RideId,
    location: LocationUpdate,
) -> Result<(), ApiError> {
    let snapshot = api.snapshot(&ride).await?;
    if snapshot.require_access(caller)?.role != RideRole::Driver {
        return Err(Error::Forbidden("only the ride's driver can update the location").into());
    }
    if snapshot.ride.status.is_ended() {
        return Err(Error::RideConflict("the ride has ended").into());
    }
    let LocationUpdate { coordinates, heading, speed, accuracy, at } = location;
    // The database's clock, because locations that different replicas receive are compared with each other.
    let now = snapshot.read_at;
    let at = at.map_or(now, |at| at.min(now));
    let location = Location { ride, driver: caller.user.clone(), coordinates, heading, speed, accuracy, at };
    let shard = api.shards.of_ride(&location.ride);
    if let Some(update) = shard.store.put_location(&location, snapshot.head).await? {
        shard.publish(update);
    }
    Ok(())
}

/// Maps −1, which iOS reports for an unknown heading, speed or accuracy (`CLLocation`), to `None`. Other negative values are
/// invalid.
fn unless_unknown(value: Option<f64>) -> Option<f64> {
    value.filter(|value| *value != -1.0)
}

fn within(value: Option<f64>, most: f64, detail: &'static str) -> Result<Option<f64>, &'static str> {
    if value.is_none_or(|value| (0.0..=most).contains(&value)) { Ok(value) } else { Err(detail) }
}

/// Get the driver's location
#[endpoint(tags("rides"), operation_id = "getLocation", responses(
    (status_code = 200, description = "The latest location", body = schema::Location),
    (status_code = 404, description = "`ride_not_found`, or `location_unknown`")))]
pub(super) async fn get_location(session: Session, ride: RidePath) -> Result<Json<schema::Location>, ApiError> {
    let snapshot = session.api.snapshot(&ride.0).await?;
    let access = snapshot.require_access(&session.caller)?;
    let last = snapshot.location.filter(|last| access.covers(last.seq)).ok_or(Error::LocationUnknown)?;
    Ok(Json::text(StatusCode::OK, last.data.get().to_owned()))
}
