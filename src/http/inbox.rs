//! `GET /rides`: the caller's rides; all rides for support and the service.

use std::collections::HashMap;

use salvo::oapi::endpoint;
use salvo::{Request, Writer as _};
use serde::Serialize;
use serde_json::value::RawValue;

use super::api_error::ApiError;
use super::body::Json;
use super::context::Api;
use super::page_size::fill_page;
use super::params::{number, query};
use super::schema;
use super::session::Session;
use crate::domain::{Error, MessageView, RideId, RideListCursor, RideView, Status, UserId};
use crate::store::RideList;

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
struct Inbox {
    rides: Vec<Box<RawValue>>,
    has_more: bool,
    next: Option<String>,
}

/// List rides
///
/// Returns the caller's rides; for support and the service all rides, or those of one user. Newest first. Each ride has its last
/// message and the number of unread messages, of those that the caller may see.
#[endpoint(tags("rides"), operation_id = "listRides",
    parameters(
        ("userId" = Option<String>, Query, pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
            description = "Only rides of this user. Riders and drivers can only give their own id."),
        ("status" = Option<schema::RideStatus>, Query, description = "Only rides with this status."),
        ("before" = Option<String>, Query, pattern = r"^[0-9]{1,15}~(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
            description = "Only rides after this cursor: the `next` of the previous page. The id of a ride in the list is also accepted."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Maximum number of rides: 1 to 200 (default 50). A page has at most about 256 KiB.")),
    responses(
        (status_code = 200, description = "A page", body = schema::Inbox),
        (status_code = 403, description = "`forbidden`: a rider or driver gave another user's id")))]
pub(super) async fn list_rides(session: Session, req: &mut Request) -> Result<Json<schema::Inbox>, ApiError> {
    let Session { caller, api, .. } = session;
    let status = query(req, "status").map(|text| {
        Status::parse(text).ok_or_else(|| {
            Error::invalid("status", "must be requested, accepted, arrived, in_progress, completed or cancelled")
        })
    });
    let user = query(req, "userId")
        .map(|text| UserId::parse(text).map_err(|error| Error::invalid("userId", error.to_string())));
    let (status, user) = (status.transpose()?, user.transpose()?);
    let limit = number::<usize>(req, "limit", 1..=200)?.unwrap_or(50);
    let user = match (&user, caller.role.is_staff()) {
        (user, true) => user.as_ref(),
        (None, false) => Some(&caller.user),
        (Some(user), false) if *user == caller.user => Some(&caller.user),
        (Some(_), false) => {
            return Err(Error::Forbidden("only the `support` and `service` roles can list other users' rides").into());
        }
    };
    let list = RideList { user, status };
    let after = match query(req, "before") {
        Some(before) => Some(parse_cursor(&api, list, before).await?),
        None => None,
    };
    // One more than the limit, to determine `hasMore`.
    let mut page = api.shards.page_of_rides(list, after.as_ref(), limit + 1).await?;
    let has_more = page.len() > limit;
    page.truncate(limit);
    let stored = api.shards.inbox(&caller, &page).await?;
    api.require_memory()?;
    let stored: HashMap<_, _> = stored.iter().map(|stored| (&stored.snapshot.ride.id, stored)).collect();
    // Without the rides to which the caller has lost access between the two queries.
    let found = page.iter().filter_map(|cursor| Some((cursor, stored.get(&cursor.ride)?)));
    let found: Vec<_> = found.filter(|(_, stored)| stored.snapshot.require_access(&caller).is_ok()).collect();
    let views = found.iter().map(|(_, stored)| InboxRide {
        ride: stored.snapshot.view(&caller),
        last_message: stored.last_message.as_ref().map(|message| message.view_for(&caller, &stored.snapshot.receipts)),
        unread_count: stored.unread,
    });
    let (rides, is_truncated) = fill_page(views)?;
    // A page that is cut at the size limit continues after its last ride.
    let last = match found.get(rides.len().saturating_sub(1)) {
        Some((cursor, _)) if is_truncated => Some(*cursor),
        _ => page.last().filter(|_| has_more),
    };
    Json::ok(&Inbox { rides, has_more: has_more || is_truncated, next: last.map(ToString::to_string) })
}

/// Parses `before`: the `next` of a page, which is valid even where the ride no longer exists; or the id of a ride in the list.
async fn parse_cursor(api: &Api, list: RideList<'_>, before: &str) -> Result<RideListCursor, ApiError> {
    if let Some(cursor) = RideListCursor::parse(before) {
        return Ok(cursor);
    }
    let unknown = || Error::invalid("before", "must be the `next` of a page, or a ride of this list");
    let ride = RideId::parse(before).map_err(|_| unknown())?;
    Ok(api.shards.cursor_of_ride(list, &ride).await?.ok_or_else(unknown)?)
}
