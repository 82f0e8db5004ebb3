//! `/rides/{rideId}`: create, update, get, accept, cancel and reopen a ride.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::Deserialize;

use super::api_error::ApiError;
use super::body::{Body, Json, REQUIRED};
use super::messages::deserialize_some;
use super::params::RidePath;
use super::schema;
use super::session::Session;
use crate::domain::{
    Caller, ChatPolicy, Error, FieldErrors, GraceSeconds, OpensAt, RideSnapshot, Status, Time, UserId,
};
use crate::writer::{AcceptRide, CancelRide, PutRide, ReopenRide, SetStatus};

/// The state of a ride on the platform.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "PutRide"))]
pub(super) struct PutBody {
    /// The rider, who never changes. Required for a new ride.
    #[serde(default, deserialize_with = "deserialize_some")]
    #[salvo(schema(
        required = false,
        nullable = false,
        value_type = String,
        pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
        example = "rider_1"
    ))]
    rider_id: Option<Option<String>>,
    /// The driver. If omitted, the driver does not change. The first driver without a `status` means `accepted`. Another driver
    /// replaces the current one. Null removes the driver; a ride that has not ended then becomes `requested` again.
    #[serde(default, deserialize_with = "deserialize_some")]
    #[salvo(schema(
        value_type = Option<String>,
        pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
        example = "driver_1"
    ))]
    driver_id: Option<Option<String>>,
    /// The status. If omitted, it does not change. It may skip steps.
    #[salvo(schema(value_type = Option<schema::RideStatus>))]
    status: Option<Status>,
    /// When the chat opens and closes. If omitted, the policy does not change. Null is the default: the chat opens when the ride
    /// is accepted, and closes `RIDEWIRE_CHAT_GRACE` after the ride's end. The closing times of an ended ride do not change.
    #[serde(default, deserialize_with = "deserialize_some")]
    #[salvo(schema(value_type = Option<PolicyBody>))]
    chat_policy: Option<Option<PolicyBody>>,
}

/// When the chat of a ride opens and closes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "NewChatPolicy"))]
struct PolicyBody {
    /// The status at which the chat opens.
    #[salvo(schema(required = true, nullable = false, value_type = OpensAt))]
    opens_at: Option<String>,
    /// How long the chat stays open after the ride's end.
    #[salvo(schema(required = true, nullable = false, value_type = GraceBody))]
    grace_seconds: Option<GraceBody>,
}

/// How long a chat stays open after its ride's end, in seconds.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "NewGraceSeconds"))]
struct GraceBody {
    /// For the rider.
    #[salvo(schema(required = true, nullable = false, minimum = 0, maximum = 31536000, example = 86400))]
    #[serde(default, deserialize_with = "whole")]
    rider: Option<i64>,
    /// For the driver.
    #[salvo(schema(required = true, nullable = false, minimum = 0, maximum = 31536000, example = 3600))]
    #[serde(default, deserialize_with = "whole")]
    driver: Option<i64>,
}

/// Deserializes a whole number. 3.0 is accepted, because JSON does not distinguish it from 3.
fn whole<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    let of_float =
        || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15).map(|float| float as i64);
    let whole = number.as_i64().or_else(of_float);
    whole.map(Some).ok_or_else(|| serde::de::Error::custom("must be a whole number"))
}

impl PolicyBody {
    fn parse(&self, errors: &mut FieldErrors) -> Option<ChatPolicy> {
        let opens_at = self.opens_at.as_deref().ok_or(REQUIRED);
        let opens_at = opens_at.and_then(|text| OpensAt::parse(text).ok_or("must be requested, accepted or arrived"));
        let opens_at = errors.check("/chatPolicy/opensAt", opens_at);
        let grace = errors.check("/chatPolicy/graceSeconds", self.grace_seconds.as_ref().ok_or(REQUIRED))?;
        let mut seconds = |pointer, seconds: Option<i64>| {
            let within = |seconds| u32::try_from(seconds).ok().filter(|seconds| *seconds <= GraceSeconds::MAX);
            let parsed = seconds.ok_or_else(|| REQUIRED.to_owned()).and_then(|seconds| {
                within(seconds).ok_or_else(|| format!("must be a whole number from 0 to {}", GraceSeconds::MAX))
            });
            errors.check(pointer, parsed)
        };
        let rider = seconds("/chatPolicy/graceSeconds/rider", grace.rider);
        let driver = seconds("/chatPolicy/graceSeconds/driver", grace.driver);
        Some(ChatPolicy { opens_at: opens_at?, grace_seconds: GraceSeconds { rider: rider?, driver: driver? } })
    }
}

/// Create or update a ride
///
/// For the platform (service). A repeated request changes nothing.
#[endpoint(tags("rides"), operation_id = "putRide", responses(
    (status_code = 201, description = "Created", body = schema::Ride),
    (status_code = 200, description = "Updated, or already up to date", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: not the `service` role"),
    (status_code = 409, description = "`invalid_transition` or `ride_conflict`")))]
pub(super) async fn put_ride(
    session: Session,
    ride: RidePath,
    body: Body<PutBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Body(body) = body;
    let user = |text: String| UserId::parse(&text).map_err(|error| error.to_string());
    let mut errors = FieldErrors::default();
    let rider = body.rider_id.map(|rider| rider.ok_or_else(|| "must not be null".to_owned()).and_then(user));
    let rider = errors.check("/riderId", rider.transpose());
    let driver = body.driver_id.map(|driver| driver.map(user).transpose()).transpose();
    let driver = errors.check("/driverId", driver);
    let chat_policy = body.chat_policy.map(|policy| policy.and_then(|policy| policy.parse(&mut errors)));
    let (Some(rider), Some(driver), true) = (rider, driver, errors.0.is_empty()) else {
        return Err(errors.into_error().into());
    };
    let caller = session.caller.clone();
    let command = PutRide { caller, ride: ride.0, rider, driver, status: body.status, chat_policy };
    let (ride, created) = session.writer_of(&command.ride).submit(command).await?;
    session.api.shards.wait_for_users(&ride).await;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Json::<schema::Ride>::text(status, json(&ride, &session.caller)?).render(res);
    Ok(())
}

fn json(ride: &RideSnapshot, caller: &Caller) -> Result<String, Error> {
    serde_json::to_string(&ride.view(caller)).map_err(|_| Error::Internal)
}

fn respond(ride: &RideSnapshot, caller: &Caller) -> Result<Json<schema::Ride>, ApiError> {
    Ok(Json::text(StatusCode::OK, json(ride, caller)?))
}

/// Responds with a ride that was just changed, once its users have the change in their lists.
async fn respond_changed(session: &Session, ride: &RideSnapshot) -> Result<Json<schema::Ride>, ApiError> {
    session.api.shards.wait_for_users(ride).await;
    respond(ride, &session.caller)
}

/// Get a ride
#[endpoint(tags("rides"), operation_id = "getRide", responses(
    (status_code = 200, description = "The ride", body = schema::Ride),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_ride(session: Session, ride: RidePath) -> Result<Json<schema::Ride>, ApiError> {
    let snapshot = session.api.snapshot(&ride.0).await?;
    snapshot.require_access(&session.caller)?;
    respond(&snapshot, &session.caller)
}

/// Accept a ride
///
/// Any driver can accept a ride that is `requested` and has no driver. If two drivers do so at the same time, one succeeds. To
/// accept the same ride again changes nothing.
#[endpoint(tags("rides"), operation_id = "acceptRide", responses(
    (status_code = 200, description = "The caller is the ride's driver", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: not the `driver` role"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`ride_conflict`: the ride has another driver, or has ended")))]
pub(super) async fn accept_ride(session: Session, ride: RidePath) -> Result<Json<schema::Ride>, ApiError> {
    let ride = session.writer_of(&ride.0).submit(AcceptRide { caller: session.caller.clone(), ride: ride.0 }).await?;
    respond_changed(&session, &ride).await
}

/// The cancellation of a ride.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "CancelRide"))]
pub(super) struct CancelBody {
    /// The reason: at most 500 characters.
    #[salvo(schema(max_length = 500, example = "The rider did not show up"))]
    reason: Option<String>,
}

/// Cancel a ride
#[endpoint(tags("rides"), operation_id = "cancelRide", responses(
    (status_code = 200, description = "The ride is cancelled", body = schema::Ride),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`invalid_transition`: the ride is completed")))]
pub(super) async fn cancel_ride(
    session: Session,
    ride: RidePath,
    body: super::body::OptionalBody<CancelBody>,
) -> Result<Json<schema::Ride>, ApiError> {
    let reason = parse_reason(body.0.reason).map_err(|detail| Error::invalid("/reason", detail))?;
    let ride =
        session.writer_of(&ride.0).submit(CancelRide { caller: session.caller.clone(), ride: ride.0, reason }).await?;
    respond_changed(&session, &ride).await
}

/// The new status of a ride.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "SetStatus"))]
pub(super) struct StatusBody {
    /// The next status.
    #[salvo(schema(required = true, nullable = false, example = "arrived", value_type = schema::RideStatus))]
    status: Option<Status>,
}

/// Update ride status
///
/// For the ride's driver and the service. The order is `requested → accepted → arrived → in_progress → completed`. A ride can
/// become `cancelled` from any status before `completed`. Setting the current status again changes nothing.
#[endpoint(tags("rides"), operation_id = "setRideStatus", responses(
    (status_code = 200, description = "The ride has this status", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: neither the ride's driver nor the `service` role"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`invalid_transition`")))]
pub(super) async fn set_ride_status(
    session: Session,
    ride: RidePath,
    body: Body<StatusBody>,
) -> Result<Json<schema::Ride>, ApiError> {
    let status = body.0.status.ok_or_else(|| Error::invalid("/status", REQUIRED))?;
    let ride =
        session.writer_of(&ride.0).submit(SetStatus { caller: session.caller.clone(), ride: ride.0, status }).await?;
    respond_changed(&session, &ride).await
}

/// Checks a reason: at most 500 characters, without U+0000.
fn parse_reason(reason: Option<String>) -> Result<Option<String>, &'static str> {
    let is_wrong = |reason: &String| reason.chars().take(501).count() > 500 || reason.contains('\0');
    if reason.as_ref().is_some_and(is_wrong) {
        return Err("must be at most 500 characters, without U+0000");
    }
    Ok(reason)
}

/// The reopening of a ride.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "ReopenRide"))]
pub(super) struct ReopenBody {
    /// When the chat closes again: in the future, at most 30 days ahead.
    #[salvo(schema(required = true, nullable = false, format = "date-time"))]
    until: Option<String>,
    /// The reason: at most 500 characters.
    #[salvo(schema(max_length = 500, example = "The rider lost their umbrella"))]
    reason: Option<String>,
}

/// Reopen a ride
///
/// For support and the service. Opens the chat of an ended ride for its participants until the given time. The ride's streams and
/// polls work again, and merged streams include it again (`ride:reopened`). Retention counts from the new end. A repeated
/// request with the same time changes nothing.
#[endpoint(tags("rides"), operation_id = "reopenRide", responses(
    (status_code = 200, description = "The chat is open", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: neither the `support` nor the `service` role"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`ride_conflict`: the ride has not ended")))]
pub(super) async fn reopen_ride(
    session: Session,
    ride: RidePath,
    body: Body<ReopenBody>,
) -> Result<Json<schema::Ride>, ApiError> {
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let until = body.until.ok_or(REQUIRED);
    let until = until.and_then(|until| Time::parse(&until).ok_or("must be an RFC 3339 time"));
    let until = errors.check("/until", until);
    let reason = errors.check("/reason", parse_reason(body.reason));
    let (Some(until), Some(reason)) = (until, reason) else { return Err(errors.into_error().into()) };
    let command = ReopenRide { caller: session.caller.clone(), ride: ride.0, until, reason };
    let ride = session.writer_of(&command.ride).submit(command).await?;
    respond_changed(&session, &ride).await
}
