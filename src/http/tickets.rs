//! `POST /stream-tickets`: create a stream ticket.

use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};

use super::api_error::ApiError;
use super::body::{Json, OptionalBody};
use super::schema;
use super::session::Session;
use crate::domain::{Error, RideId, Time};

/// The scope of a new ticket.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "NewStreamTicket"))]
pub(super) struct TicketBody {
    /// The ride that the ticket is valid for. If omitted, the ticket is valid for all the caller's rides.
    #[salvo(schema(pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$", example = "ride_123"))]
    ride_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TicketView {
    ticket: String,
    expires_at: Time,
}

/// Create a stream ticket
///
/// For `EventSource`, which cannot set headers: streams and polls accept `?ticket=` instead of the `Authorization` header. A
/// ticket expires with the token that created it.
#[endpoint(tags("live"), operation_id = "createStreamTicket", responses(
    (status_code = 201, description = "The ticket", body = schema::StreamTicket),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn create_stream_ticket(
    session: Session,
    body: OptionalBody<TicketBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let Session { caller, api, .. } = session;
    let ride = body.0.ride_id.map(|ride| RideId::parse(&ride)).transpose();
    let ride = ride.map_err(|error| Error::invalid("/rideId", error.to_string()))?;
    if let Some(ride) = &ride {
        api.snapshot(ride).await?.require_access(&caller)?;
    }
    let ticket = api.tickets.issue(&caller, ride.as_ref()).map_err(|_| Error::Internal)?;
    let view = TicketView { ticket, expires_at: caller.expires_at };
    let text = serde_json::to_string(&view).map_err(|_| Error::Internal)?;
    Json::<schema::StreamTicket>::text(StatusCode::CREATED, text).render(res);
    Ok(())
}
