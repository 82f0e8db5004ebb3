//! `/rides`: one's own rides; and all rides, for support and the service.

use std::collections::HashMap;

use salvo::oapi::endpoint;
use salvo::{Request, Writer as _};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::Json;
use super::context::{Api, Session};
use super::pages::fitting;
use super::params::{number, query};
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Error, MessageView, RideId, RidePlace, RideView, Status, UserId};
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
/// Those that the caller is on; to support and the service all of them, or those that one user is on. Newest first, each with
/// its last message and how many are unread, of those that are the caller's to see.
#[endpoint(tags("rides"), operation_id = "listRides",
    parameters(
        ("userId" = Option<String>, Query, pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
            description = "Only rides that this user is on. Riders and drivers can name nobody but themselves."),
        ("status" = Option<Status>, Query, description = "Only rides with this status."),
        ("before" = Option<String>, Query, pattern = r"^[0-9]{1,15}~(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$",
            description = "Only rides after that place in the list: the `next` of the page before. A ride's id works as well, as long as there is such a ride."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "The most rides: 1 to 200, 50 where not given. A page has about 256 KiB at most.")),
    responses(
        (status_code = 200, description = "A page", body = schema::Inbox),
        (status_code = 403, description = "`forbidden`: another user's rides, to a rider or driver")))]
pub(super) async fn list_rides(session: Session, req: &mut Request) -> Result<Json<schema::Inbox>, Refusal> {
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
        (Some(_), false) => return Err(Error::Forbidden("only support and the service list others' rides").into()),
    };
    let list = RideList { user, status };
    let after = match query(req, "before") {
        Some(before) => Some(place(&api, list, before).await?),
        None => None,
    };
    // One more than asked, to know whether there are more.
    let sought = i64::try_from(limit).unwrap_or(200) + 1;
    let mut page = api.store.page_of_rides(list, after.as_ref(), sought).await?;
    let has_more = page.len() > limit;
    page.truncate(limit);
    let stored = api.store.inbox(&caller, &page).await?;
    api.require_room()?;
    let stored: HashMap<_, _> = stored.iter().map(|stored| (&stored.snapshot.ride.id, stored)).collect();
    // Without those that have ceased to be the caller's between the two.
    let found = page.iter().filter_map(|place| Some((place, stored.get(&place.ride)?)));
    let found: Vec<_> = found.filter(|(_, stored)| stored.snapshot.admit(&caller).is_ok()).collect();
    let views = found.iter().map(|(_, stored)| InboxRide {
        ride: stored.snapshot.view(&caller),
        last_message: stored.last_message.as_ref().map(|message| message.view_for(&caller, &stored.snapshot.receipts)),
        unread_count: stored.unread,
    });
    let (rides, is_cut) = fitting(views)?;
    // A page that is cut ends with the last ride that it has.
    let last = match found.get(rides.len().saturating_sub(1)) {
        Some((place, _)) if is_cut => Some(*place),
        _ => page.last().filter(|_| has_more),
    };
    Json::ok(&Inbox { rides, has_more: has_more || is_cut, next: last.map(ToString::to_string) })
}

/// The place that is given: as a page names it, whatever has become of the ride there; or by a ride's id alone, where that is known.
async fn place(api: &Api, list: RideList<'_>, before: &str) -> Result<RidePlace, Refusal> {
    if let Some(place) = RidePlace::parse(before) {
        return Ok(place);
    }
    let unknown = || Error::invalid("before", "must be the `next` of a page, or a ride of this list");
    let ride = RideId::parse(before).map_err(|_| unknown())?;
    Ok(api.store.place_of_ride(list, &ride).await?.ok_or_else(unknown)?)
}
