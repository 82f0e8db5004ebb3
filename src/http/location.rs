//! `/rides/{rideId}/location`.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Writer as _};
use serde::Deserialize;

use super::body::{Body, Json, REQUIRED};
use super::context::{Api, Session};
use super::params::RidePath;
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Caller, Error, FieldErrors, Location, Position, RideId, RideRole, Time};

/// Where the driver is.
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
    /// Degrees clockwise from north. −1 is unknown, as phones with iOS report it, and becomes null.
    #[salvo(schema(value_type = Option<schema::NewHeading>))]
    heading: Option<f64>,
    /// Metres a second. −1 is unknown, and becomes null.
    #[salvo(schema(value_type = Option<schema::NewSpeed>))]
    speed: Option<f64>,
    /// Metres within which the position is right. −1 is unknown, and becomes null.
    #[salvo(schema(value_type = Option<schema::NewAccuracy>))]
    accuracy: Option<f64>,
    /// When; now where it is not given, or in the future.
    #[salvo(schema(format = "date-time"))]
    at: Option<String>,
}

/// Say where one is
///
/// For the ride's driver. Told to those who follow the ride; only the last position is kept, and one that is older
/// than that is ignored.
#[endpoint(tags("rides"), operation_id = "putLocation", responses(
    (status_code = 202, description = "It is taken"),
    (status_code = 403, description = "`forbidden`: not the ride's driver"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`ride_conflict`: the ride is over")))]
pub(super) async fn put_location(
    session: Session,
    ride: RidePath,
    body: Body<LocationBody>,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Session { caller, api, .. } = session;
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let lat = errors.take("/lat", body.lat.ok_or(REQUIRED));
    let lng = errors.take("/lng", body.lng.ok_or(REQUIRED));
    let heading = errors
        .take("/heading", within(known(body.heading), 360.0, "must be 0 to 360 degrees, or -1 where it is unknown"));
    let speed = errors.take(
        "/speed",
        within(known(body.speed), f64::MAX, "must be 0 or more metres a second, or -1 where it is unknown"),
    );
    let accuracy = errors.take(
        "/accuracy",
        within(known(body.accuracy), f64::MAX, "must be 0 or more metres, or -1 where it is unknown"),
    );
    let at = body.at.map(|at| Time::parse(&at).ok_or("must be a time as RFC 3339 writes it"));
    let at = errors.take("/at", at.transpose());
    let (Some(lat), Some(lng), Some(heading), Some(speed), Some(accuracy), Some(at)) =
        (lat, lng, heading, speed, accuracy, at)
    else {
        return Err(errors.into_error().into());
    };
    let position = Position::parse(lat, lng).map_err(|(pointer, detail)| Error::invalid(pointer, detail))?;
    locate(&api, &caller, ride.0, Fix { position, heading, speed, accuracy, at }).await?;
    res.status_code(StatusCode::ACCEPTED);
    Ok(())
}

/// Where a driver says they are.
pub(crate) struct Fix {
    pub(crate) position: Position,
    pub(crate) heading: Option<f64>,
    pub(crate) speed: Option<f64>,
    pub(crate) accuracy: Option<f64>,
    pub(crate) at: Option<Time>,
}

/// Judges where a driver says they are, and tells it.
pub(crate) async fn locate(api: &Api, caller: &Caller, ride: RideId, fix: Fix) -> Result<(), Refusal> {
    let snapshot = api.store.snapshot(&ride).await?.ok_or(Error::RideNotFound)?;
    if snapshot.admit(caller)?.role != RideRole::Driver {
        return Err(Error::Forbidden("only the ride's driver can say where they are").into());
    }
    if snapshot.ride.status.is_ended() {
        return Err(Error::RideConflict("the ride is over").into());
    }
    let Fix { position, heading, speed, accuracy, at } = fix;
    // By the database's clock: what is known of a ride is compared with what another replica has taken.
    let now = snapshot.read_at;
    let at = at.map_or(now, |at| at.min(now));
    let location = Location { ride, driver: caller.user.clone(), position, heading, speed, accuracy, at };
    if let Some(signal) = api.store.put_location(&location, snapshot.head).await? {
        api.tell(signal);
    }
    Ok(())
}

/// A heading, speed or accuracy, unless it is unknown: iOS reports that as −1 (`CLLocation`). Any other negative value is a mistake.
fn known(value: Option<f64>) -> Option<f64> {
    value.filter(|value| *value != -1.0)
}

fn within(value: Option<f64>, most: f64, detail: &'static str) -> Result<Option<f64>, &'static str> {
    if value.is_none_or(|value| (0.0..=most).contains(&value)) { Ok(value) } else { Err(detail) }
}

/// Where the driver is
#[endpoint(tags("rides"), operation_id = "getLocation", responses(
    (status_code = 200, description = "The last position", body = schema::Location),
    (status_code = 404, description = "`ride_not_found`, or `location_unknown`")))]
pub(super) async fn get_location(session: Session, ride: RidePath) -> Result<Json<schema::Location>, Refusal> {
    let snapshot = session.api.store.snapshot(&ride.0).await?.ok_or(Error::RideNotFound)?;
    let access = snapshot.admit(&session.caller)?;
    let last = snapshot.location.filter(|last| access.covers(last.seq)).ok_or(Error::LocationUnknown)?;
    Ok(Json::text(StatusCode::OK, last.data.get().to_owned()))
}
