//! `POST /stream-tickets`.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};

use super::body::{Json, OptionalBody};
use super::context::Session;
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Error, RideId, Time};

/// What a ticket shall be for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "NewStreamTicket"))]
pub(super) struct TicketBody {
    /// One ride; left out, all of the caller's.
    #[salvo(schema(pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$", example = "ride_123"))]
    ride_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TicketView {
    ticket: String,
    expires_at: Time,
}

/// A ticket for streams
///
/// For an `EventSource`, which cannot set headers: `?ticket=` in place of the `Authorization` header, on streams and
/// polls alone. It ends with the token it was made with.
#[endpoint(tags("live"), operation_id = "createStreamTicket", responses(
    (status_code = 201, description = "A ticket", body = schema::StreamTicket),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn create_stream_ticket(
    session: Session,
    body: OptionalBody<TicketBody>,
    res: &mut Response,
) -> Result<(), Refusal> {
    let Session { caller, api, .. } = session;
    let ride = body.0.ride_id.map(|ride| RideId::parse(&ride)).transpose();
    let ride = ride.map_err(|error| Error::invalid("/rideId", error.to_string()))?;
    if let Some(ride) = &ride {
        api.store.snapshot(ride).await?.ok_or(Error::RideNotFound)?.admit(&caller)?;
    }
    let ticket = api.tickets.issue(&caller, ride.as_ref()).map_err(|_| Error::Internal)?;
    let view = TicketView { ticket, expires_at: caller.expires_at };
    let text = serde_json::to_string(&view).map_err(|_| Error::Internal)?;
    Json::<schema::StreamTicket>::text(StatusCode::CREATED, text).render(res);
    Ok(())
}
