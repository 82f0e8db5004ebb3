//! `/rides`: what messaging has to know of a ride's life, and one's list of rides.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Request, Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};

use super::body::{Body, Json, REQUIRED};
use super::context::{Api, Session};
use super::params::{RidePath, number, query};
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Error, FieldErrors, MessageView, Ride, RideId, RideView, Status, Time, UserId};
use crate::writer::{AcceptRide, CancelRide, PutRide, SetStatus};

/// What the platform says of a ride.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "PutRide"))]
pub(super) struct PutBody {
    /// Who booked it; never changes.
    #[salvo(schema(
        required = true,
        nullable = false,
        pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
        example = "rider_1"
    ))]
    rider_id: Option<String>,
    /// Who drives it. Left out, it stays; a first one means accepted; another one replaces the driver.
    #[salvo(schema(pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$", example = "driver_1"))]
    driver_id: Option<String>,
    /// How far it is. Left out, it stays.
    status: Option<Status>,
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
    let rider = errors.take("/riderId", body.rider_id.ok_or_else(|| REQUIRED.to_owned()).and_then(user));
    let driver = errors.take("/driverId", body.driver_id.map(user).transpose());
    let (Some(rider), Some(driver)) = (rider, driver) else { return Err(errors.into_error().into()) };
    if driver.as_ref() == Some(&rider) {
        return Err(Error::invalid("/driverId", "must be somebody else than the rider").into());
    }
    let command = PutRide { caller: session.caller, ride: ride.0, rider, driver, status: body.status };
    let (ride, created) = session.writer.submit(command).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Json::<schema::Ride>::text(status, json(&session.api, &ride)?).render(res);
    Ok(())
}

fn json(api: &Api, ride: &Ride) -> Result<String, Error> {
    serde_json::to_string(&ride.view(Time::now(), api.limits.chat_grace)).map_err(|_| Error::Internal)
}

fn answer(api: &Api, ride: &Ride) -> Result<Json<schema::Ride>, Refusal> {
    Ok(Json::text(StatusCode::OK, json(api, ride)?))
}

/// One ride
#[endpoint(tags("rides"), operation_id = "getRide", responses(
    (status_code = 200, description = "The ride", body = schema::Ride),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_ride(session: Session, ride: RidePath) -> Result<Json<schema::Ride>, Refusal> {
    let snapshot = session.api.store.snapshot(&ride.0).await?.ok_or(Error::RideNotFound)?;
    snapshot.admit(&session.caller)?;
    answer(&session.api, &snapshot.ride)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InboxRide<'a> {
    #[serde(flatten)]
    ride: RideView<'a>,
    last_message: Option<MessageView<'a>>,
    unread_count: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inbox<'a> {
    rides: Vec<InboxRide<'a>>,
    has_more: bool,
    next: Option<&'a RideId>,
}

/// One's rides
///
/// Those that the caller is on, newest first, each with its last message and how many are unread.
#[endpoint(tags("rides"), operation_id = "listRides",
    parameters(
        ("status" = Option<Status>, Query, description = "Only rides with this status."),
        ("before" = Option<String>, Query, pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
            description = "Only rides older than this one: the `next` of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "The most rides: 1 to 200, 50 where not given.")),
    responses((status_code = 200, description = "A page", body = schema::Inbox)))]
pub(super) async fn list_rides(session: Session, req: &mut Request) -> Result<Json<schema::Inbox>, Refusal> {
    let Session { caller, api, .. } = session;
    let status = query(req, "status").map(|text| {
        Status::parse(text).ok_or_else(|| {
            Error::invalid("status", "must be requested, accepted, arrived, in_progress, completed or cancelled")
        })
    });
    let before = query(req, "before")
        .map(|text| RideId::parse(text).map_err(|error| Error::invalid("before", error.to_string())));
    let (status, before) = (status.transpose()?, before.transpose()?);
    let limit = number::<usize>(req, "limit", 1..=200)?.unwrap_or(50);
    // One more than asked, to know whether there are more.
    let sought = i64::try_from(limit).unwrap_or(200) + 1;
    let mut rides = api.store.rides_of_user(&caller.user, status, before.as_ref(), sought).await?;
    let has_more = rides.len() > limit;
    rides.truncate(limit);
    let now = Time::now();
    let views = rides.iter().map(|stored| InboxRide {
        ride: stored.snapshot.ride.view(now, api.limits.chat_grace),
        last_message: stored.last_message.as_ref().map(|message| message.view_for(&caller, &stored.snapshot.receipts)),
        unread_count: stored.unread,
    });
    let next = rides.last().filter(|_| has_more).map(|last| &last.snapshot.ride.id);
    Json::ok(&Inbox { rides: views.collect(), has_more, next })
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
    let ride = session.writer.submit(AcceptRide { caller: session.caller, ride: ride.0 }).await?;
    answer(&session.api, &ride)
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
    let reason = body.0.reason;
    if reason.as_ref().is_some_and(|reason| reason.chars().take(501).count() > 500 || reason.contains('\0')) {
        return Err(Error::invalid("/reason", "must be at most 500 characters, without U+0000").into());
    }
    let ride = session.writer.submit(CancelRide { caller: session.caller, ride: ride.0, reason }).await?;
    answer(&session.api, &ride)
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
    let ride = session.writer.submit(SetStatus { caller: session.caller, ride: ride.0, status }).await?;
    answer(&session.api, &ride)
}
