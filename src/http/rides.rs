//! `/rides/{rideId}`: what messaging has to know of a ride's life.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::Deserialize;

use super::body::{Body, Json, REQUIRED};
use super::context::Session;
use super::messages::present;
use super::params::RidePath;
use super::refusal::Refusal;
use super::schema;
use crate::domain::{
    Caller, ChatPolicy, Error, FieldErrors, GraceSeconds, OpensAt, RideSnapshot, Status, Time, UserId,
};
use crate::writer::{AcceptRide, CancelRide, PutRide, ReopenRide, SetStatus};

/// What the platform says of a ride.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "PutRide"))]
pub(super) struct PutBody {
    /// Who booked it; never changes. Required of a new ride.
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(
        required = false,
        nullable = false,
        value_type = String,
        pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
        example = "rider_1"
    ))]
    rider_id: Option<Option<String>>,
    /// Who drives it. Left out, it stays; a first one means accepted; another one replaces the driver; null removes the driver,
    /// and a ride that has not ended is `requested` again.
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(
        value_type = Option<String>,
        pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
        example = "driver_1"
    ))]
    driver_id: Option<Option<String>>,
    /// How far it is. Left out, it stays. It may skip steps.
    status: Option<Status>,
    /// When the chat opens and closes. Left out, it stays; null is the default: it opens when the ride is accepted, and closes
    /// `RIDEWIRE_CHAT_GRACE` after the ride's end for both. Until when a ride is open that has ended was decided then.
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<PolicyBody>))]
    chat_policy: Option<Option<PolicyBody>>,
}

/// When the chat of a ride opens and closes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "NewChatPolicy"))]
struct PolicyBody {
    /// The status from which on the chat is open.
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

/// A whole number, however it is written: to JSON, 3 and 3.0 are the same.
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
        let opens_at = errors.take("/chatPolicy/opensAt", opens_at);
        let grace = errors.take("/chatPolicy/graceSeconds", self.grace_seconds.as_ref().ok_or(REQUIRED))?;
        let mut seconds = |pointer, seconds: Option<i64>| {
            let within = |seconds| u32::try_from(seconds).ok().filter(|seconds| *seconds <= GraceSeconds::LONGEST);
            let parsed = seconds.ok_or_else(|| REQUIRED.to_owned()).and_then(|seconds| {
                within(seconds).ok_or_else(|| format!("must be a whole number from 0 to {}", GraceSeconds::LONGEST))
            });
            errors.take(pointer, parsed)
        };
        let rider = seconds("/chatPolicy/graceSeconds/rider", grace.rider);
        let driver = seconds("/chatPolicy/graceSeconds/driver", grace.driver);
        Some(ChatPolicy { opens_at: opens_at?, grace_seconds: GraceSeconds { rider: rider?, driver: driver? } })
    }
}

/// Make a ride known, or bring it up to date
///
/// For the platform (service). The same again changes nothing.
#[endpoint(tags("rides"), operation_id = "putRide", responses(
    (status_code = 201, description = "It is known now", body = schema::Ride),
    (status_code = 200, description = "It was known, and is up to date now", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: not the service"),
    (status_code = 409, description = "`invalid_transition`, or `ride_conflict`")))]
pub(super) async fn put_ride(
    session: Session,
    ride: RidePath,
    body: Body<PutBody>,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Body(body) = body;
    let user = |text: String| UserId::parse(&text).map_err(|error| error.to_string());
    let mut errors = FieldErrors::default();
    let rider = body.rider_id.map(|rider| rider.ok_or_else(|| "must not be null".to_owned()).and_then(user));
    let rider = errors.take("/riderId", rider.transpose());
    let driver = body.driver_id.map(|driver| driver.map(user).transpose()).transpose();
    let driver = errors.take("/driverId", driver);
    let chat_policy = body.chat_policy.map(|policy| policy.and_then(|policy| policy.parse(&mut errors)));
    let (Some(rider), Some(driver), true) = (rider, driver, errors.0.is_empty()) else {
        return Err(errors.into_error().into());
    };
    let caller = session.caller.clone();
    let command = PutRide { caller, ride: ride.0, rider, driver, status: body.status, chat_policy };
    let (ride, created) = session.writer.submit(command).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Json::<schema::Ride>::text(status, json(&ride, &session.caller)?).render(res);
    Ok(())
}

fn json(ride: &RideSnapshot, caller: &Caller) -> Result<String, Error> {
    serde_json::to_string(&ride.view(caller)).map_err(|_| Error::Internal)
}

fn answer(ride: &RideSnapshot, caller: &Caller) -> Result<Json<schema::Ride>, Refusal> {
    Ok(Json::text(StatusCode::OK, json(ride, caller)?))
}

/// One ride
#[endpoint(tags("rides"), operation_id = "getRide", responses(
    (status_code = 200, description = "The ride", body = schema::Ride),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_ride(session: Session, ride: RidePath) -> Result<Json<schema::Ride>, Refusal> {
    let snapshot = session.api.store.snapshot(&ride.0).await?.ok_or(Error::RideNotFound)?;
    snapshot.admit(&session.caller)?;
    answer(&snapshot, &session.caller)
}

/// Take a ride as its driver
///
/// Any driver can, while it is requested and has none. Of two at once one wins. One's own again changes nothing.
#[endpoint(tags("rides"), operation_id = "acceptRide", responses(
    (status_code = 200, description = "It is the caller's", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: not a driver"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`ride_conflict`: another driver has it, or it is over")))]
pub(super) async fn accept_ride(session: Session, ride: RidePath) -> Result<Json<schema::Ride>, Refusal> {
    let ride = session.writer.submit(AcceptRide { caller: session.caller.clone(), ride: ride.0 }).await?;
    answer(&ride, &session.caller)
}

/// Why a ride is called off.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "CancelRide"))]
pub(super) struct CancelBody {
    /// At most 500 characters.
    #[salvo(schema(max_length = 500, example = "The rider did not show up"))]
    reason: Option<String>,
}

/// Call a ride off
#[endpoint(tags("rides"), operation_id = "cancelRide", responses(
    (status_code = 200, description = "It is cancelled", body = schema::Ride),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`invalid_transition`: it is completed")))]
pub(super) async fn cancel_ride(
    session: Session,
    ride: RidePath,
    body: super::body::OptionalBody<CancelBody>,
) -> Result<Json<schema::Ride>, Refusal> {
    let reason = parse_reason(body.0.reason).map_err(|detail| Error::invalid("/reason", detail))?;
    let ride = session.writer.submit(CancelRide { caller: session.caller.clone(), ride: ride.0, reason }).await?;
    answer(&ride, &session.caller)
}

/// How far a ride is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "SetStatus"))]
pub(super) struct StatusBody {
    /// The next step.
    #[salvo(schema(required = true, nullable = false, example = "arrived"))]
    status: Option<Status>,
}

/// Take a ride a step on
///
/// `requested → accepted → arrived → in_progress → completed`, and `cancelled` from any before completed. For the
/// ride's driver, and the service. The present status again changes nothing.
#[endpoint(tags("rides"), operation_id = "setRideStatus", responses(
    (status_code = 200, description = "It is there", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: neither its driver nor the service"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`invalid_transition`")))]
pub(super) async fn set_ride_status(
    session: Session,
    ride: RidePath,
    body: Body<StatusBody>,
) -> Result<Json<schema::Ride>, Refusal> {
    let status = body.0.status.ok_or_else(|| Error::invalid("/status", REQUIRED))?;
    let ride = session.writer.submit(SetStatus { caller: session.caller.clone(), ride: ride.0, status }).await?;
    answer(&ride, &session.caller)
}

/// At most 500 characters of somebody's own words.
fn parse_reason(reason: Option<String>) -> Result<Option<String>, &'static str> {
    let is_wrong = |reason: &String| reason.chars().take(501).count() > 500 || reason.contains('\0');
    if reason.as_ref().is_some_and(is_wrong) {
        return Err("must be at most 500 characters, without U+0000");
    }
    Ok(reason)
}

/// Until when a ride is opened again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "ReopenRide"))]
pub(super) struct ReopenBody {
    /// In the future, at most 30 days ahead.
    #[salvo(schema(required = true, nullable = false, format = "date-time"))]
    until: Option<String>,
    /// At most 500 characters.
    #[salvo(schema(max_length = 500, example = "The rider lost their umbrella"))]
    reason: Option<String>,
}

/// Reopen a ride
///
/// Opens the chat of a ride that has ended until a time, for those who are on it; for support and the service. Streams and polls
/// of the ride work again, and merged streams follow it again (`ride:reopened`). Retention counts from the new end. The same
/// time again changes nothing.
#[endpoint(tags("rides"), operation_id = "reopenRide", responses(
    (status_code = 200, description = "Its chat is open", body = schema::Ride),
    (status_code = 403, description = "`forbidden`: neither support nor the service"),
    (status_code = 404, description = "`ride_not_found`"),
    (status_code = 409, description = "`ride_conflict`: it has not ended")))]
pub(super) async fn reopen_ride(
    session: Session,
    ride: RidePath,
    body: Body<ReopenBody>,
) -> Result<Json<schema::Ride>, Refusal> {
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let until = body.until.ok_or(REQUIRED);
    let until = until.and_then(|until| Time::parse(&until).ok_or("must be a time as RFC 3339 writes it"));
    let until = errors.take("/until", until);
    let reason = errors.take("/reason", parse_reason(body.reason));
    let (Some(until), Some(reason)) = (until, reason) else { return Err(errors.into_error().into()) };
    let command = ReopenRide { caller: session.caller.clone(), ride: ride.0, until, reason };
    let ride = session.writer.submit(command).await?;
    answer(&ride, &session.caller)
}
