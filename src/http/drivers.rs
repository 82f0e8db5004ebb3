//! `/drivers`: the availability of drivers.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Request, Writer as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::api_error::ApiError;
use super::body::{Body, Json, REQUIRED};
use super::params::{number, query};
use super::schema;
use super::session::Session;
use crate::domain::{Coordinates, DriverState, Error, Role, StateUpdate, Time, UserId};

/// The most drivers of a page.
const PAGE: usize = 1_000;

/// The caller's availability.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "PutAvailability"))]
pub(super) struct AvailabilityBody {
    /// Whether the driver accepts rides.
    #[salvo(schema(required = true, nullable = false))]
    available: Option<bool>,
    /// Degrees north. `lat` and `lng` must be given together.
    #[salvo(schema(minimum = -90, maximum = 90, example = 52.52))]
    lat: Option<f64>,
    /// Degrees east.
    #[salvo(schema(minimum = -180, maximum = 180, example = 13.405))]
    lng: Option<f64>,
}

/// Set driver availability
///
/// For drivers. A change is sent to the merged streams of support and service. Availability ends when the driver is no longer
/// online. A driver is online while one of their streams or polls is open, and for the presence grace
/// (`RIDEWIRE_PRESENCE_GRACE`) after the last one has closed, or after this request. A repeated request only renews that time.
#[endpoint(tags("drivers"), operation_id = "putAvailability", responses(
    (status_code = 200, description = "The availability", body = schema::Driver),
    (status_code = 403, description = "`forbidden`: not a driver")))]
pub(super) async fn put_availability(
    session: Session,
    body: Body<AvailabilityBody>,
) -> Result<Json<schema::Driver>, ApiError> {
    let Session { caller, api, .. } = session;
    if caller.role != Role::Driver {
        return Err(Error::Forbidden("only the `driver` role can set availability").into());
    }
    let Body(AvailabilityBody { available, lat, lng }) = body;
    let available = available.ok_or_else(|| Error::invalid("/available", REQUIRED))?;
    let coordinates = match (lat, lng) {
        (None, None) => None,
        (Some(lat), Some(lng)) => {
            let coordinates = Coordinates::parse(lat, lng);
            Some(coordinates.map_err(|(pointer, detail)| Error::invalid(pointer, detail))?)
        }
        (None, Some(_)) => return Err(Error::invalid("/lat", "is required together with lng").into()),
        (Some(_), None) => return Err(Error::invalid("/lng", "is required together with lat").into()),
    };
    let state = DriverState { driver: caller.user, available, coordinates, at: Time::now() };
    let text = serde_json::to_string(&state.view()).map_err(|_| Error::Internal)?;
    let shard = api.shards.first();
    if let Some(update) = shard.store.put_driver(state, api.limits.presence_grace).await? {
        shard.publish(update);
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

/// List available drivers
///
/// For support and service. Sorted by driver id.
#[endpoint(tags("drivers"), operation_id = "listAvailableDrivers",
    parameters(
        ("after" = Option<String>, Query, pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
            description = "Only drivers after this one: the `next` of the previous page."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Maximum number of drivers: 1 to 1000 (default 200).")),
    responses(
        (status_code = 200, description = "A page", body = schema::AvailableDrivers),
        (status_code = 403, description = "`forbidden`: neither support nor the service")))]
pub(super) async fn list_available(
    session: Session,
    req: &mut Request,
) -> Result<Json<schema::AvailableDrivers>, ApiError> {
    let Session { caller, api, .. } = session;
    if !caller.role.is_staff() {
        return Err(Error::Forbidden("only the `support` and `service` roles can list available drivers").into());
    }
    let after = query(req, "after")
        .map(|text| UserId::parse(text).map_err(|error| Error::invalid("after", error.to_string())))
        .transpose()?;
    let limit = number::<usize>(req, "limit", 1..=PAGE)?.unwrap_or(200);
    // One more than the limit, to determine `hasMore`.
    let fetch_limit = i64::try_from(limit).unwrap_or(200) + 1;
    let mut found = api.shards.first().store.available_drivers(after.as_ref(), fetch_limit).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let drivers = found.iter().map(StateUpdate::as_raw);
    let drivers = drivers.collect::<Result<_, _>>().map_err(|_| Error::Internal)?;
    let next = found.last().filter(|_| has_more).map(|last| &last.user);
    Json::ok(&Available { drivers, has_more, next })
}
