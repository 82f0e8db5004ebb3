//! `/drivers`: who takes rides.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Request, Writer as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::{Body, Json, REQUIRED};
use super::context::Session;
use super::params::{number, query};
use super::refusal::Refusal;
use super::schema;
use crate::domain::{DriverState, Error, Position, Role, Signal, Time, UserId};

/// The most drivers of a page.
const PAGE: usize = 1_000;

/// Whether one takes rides.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "PutAvailability"))]
pub(super) struct AvailabilityBody {
    /// Whether one does.
    #[salvo(schema(required = true, nullable = false))]
    available: Option<bool>,
    /// Degrees north; with `lng` or not at all.
    #[salvo(schema(minimum = -90, maximum = 90, example = 52.52))]
    lat: Option<f64>,
    /// Degrees east.
    #[salvo(schema(minimum = -180, maximum = 180, example = 13.405))]
    lng: Option<f64>,
}

/// Say whether one takes rides
///
/// For drivers. Told to support and service on their stream of everything. Availability ends with the driver's presence: a
/// driver is present while a stream or poll of theirs is open, and for the presence grace (`RIDEWIRE_PRESENCE_GRACE`) after
/// the last has closed, or after this request. The same again changes nothing else and is not told.
#[endpoint(tags("drivers"), operation_id = "putAvailability", responses(
    (status_code = 200, description = "It is known", body = schema::Driver),
    (status_code = 403, description = "`forbidden`: not a driver")))]
pub(super) async fn put_availability(
    session: Session,
    body: Body<AvailabilityBody>,
) -> Result<Json<schema::Driver>, Refusal> {
    let Session { caller, api, .. } = session;
    if caller.role != Role::Driver {
        return Err(Error::Forbidden("only drivers say whether they take rides").into());
    }
    let Body(AvailabilityBody { available, lat, lng }) = body;
    let available = available.ok_or_else(|| Error::invalid("/available", REQUIRED))?;
    let position = match (lat, lng) {
        (None, None) => None,
        (Some(lat), Some(lng)) => {
            let position = Position::parse(lat, lng);
            Some(position.map_err(|(pointer, detail)| Error::invalid(pointer, detail))?)
        }
        (None, Some(_)) => return Err(Error::invalid("/lat", "is required where lng is given").into()),
        (Some(_), None) => return Err(Error::invalid("/lng", "is required where lat is given").into()),
    };
    let state = DriverState { driver: caller.user, available, position, at: Time::now() };
    let text = serde_json::to_string(&state.view()).map_err(|_| Error::Internal)?;
    if let Some(signal) = api.store.put_driver(state, api.limits.presence_grace).await? {
        api.tell(signal);
    }
    Ok(Json::text(StatusCode::OK, text))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Available<'a> {
    drivers: Vec<&'a RawValue>,
    has_more: bool,
    next: Option<&'a UserId>,
}

/// Who takes rides
///
/// For support and service: the drivers who do now, by their ids.
#[endpoint(tags("drivers"), operation_id = "listAvailableDrivers",
    parameters(
        ("after" = Option<String>, Query, pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
            description = "Only drivers after this one: the `next` of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "The most drivers: 1 to 1000, 200 where not given.")),
    responses(
        (status_code = 200, description = "A page", body = schema::AvailableDrivers),
        (status_code = 403, description = "`forbidden`: neither support nor the service")))]
pub(super) async fn list_available(
    session: Session,
    req: &mut Request,
) -> Result<Json<schema::AvailableDrivers>, Refusal> {
    let Session { caller, api, .. } = session;
    if !caller.role.is_staff() {
        return Err(Error::Forbidden("only support and the service see who takes rides").into());
    }
    let after = query(req, "after")
        .map(|text| UserId::parse(text).map_err(|error| Error::invalid("after", error.to_string())))
        .transpose()?;
    let limit = number::<usize>(req, "limit", 1..=PAGE)?.unwrap_or(200);
    // One more than asked, to know whether there are more.
    let sought = i64::try_from(limit).unwrap_or(200) + 1;
    let mut found = api.store.available_drivers(after.as_ref(), sought).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let drivers = found.iter().map(Signal::as_raw);
    let drivers = drivers.collect::<Result<_, _>>().map_err(|_| Error::Internal)?;
    let next = found.last().filter(|_| has_more).map(|last| &last.user);
    Json::ok(&Available { drivers, has_more, next })
}
