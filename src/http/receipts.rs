//! What has been received and read, and what has not.

use salvo::Writer as _;
use salvo::oapi::endpoint;
use serde::Serialize;

use super::body::Json;
use super::context::Session;
use super::messages::find;
use super::params::{MessagePath, RidePath};
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Error, RideId, RideRole, Seq, UserId};
use crate::writer::{Mark, MarkKind};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptView<'a> {
    ride_id: &'a RideId,
    user_id: &'a UserId,
    delivered_seq: Seq,
    read_seq: Seq,
}

async fn mark(session: Session, message: MessagePath, kind: MarkKind) -> Result<Json<schema::Receipt>, Refusal> {
    let (message, ..) = find(&session.api, &session.caller, message.0).await?;
    let ride = message.ride;
    let command = Mark { caller: session.caller, ride: ride.clone(), kind, up_to: message.seq };
    let receipt = session.writer.submit(command).await?;
    Json::ok(&ReceiptView {
        ride_id: &ride,
        user_id: &receipt.user,
        delivered_seq: receipt.delivered_seq,
        read_seq: receipt.read_seq,
    })
}

/// Read up to here
///
/// A watermark: all messages of others up to and including this one are read, and so delivered. An older one
/// changes nothing.
#[endpoint(tags("messages"), operation_id = "markRead", responses(
    (status_code = 200, description = "One's own receipt", body = schema::Receipt),
    (status_code = 403, description = "`forbidden`: the service has no receipts"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn mark_read(session: Session, message: MessagePath) -> Result<Json<schema::Receipt>, Refusal> {
    mark(session, message, MarkKind::Read).await
}

/// Delivered up to here
///
/// The same for delivery.
#[endpoint(tags("messages"), operation_id = "markDelivered", responses(
    (status_code = 200, description = "One's own receipt", body = schema::Receipt),
    (status_code = 403, description = "`forbidden`: the service has no receipts"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn mark_delivered(session: Session, message: MessagePath) -> Result<Json<schema::Receipt>, Refusal> {
    mark(session, message, MarkKind::Delivered).await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnreadRide<'a> {
    ride_id: &'a RideId,
    unread_count: i64,
}

#[derive(Serialize)]
struct Unread<'a> {
    total: i64,
    rides: Vec<UnreadRide<'a>>,
}

/// Unread messages of a ride
#[endpoint(tags("messages"), operation_id = "getUnreadCount", responses(
    (status_code = 200, description = "Others' undeleted messages past one's read mark", body = schema::UnreadRide),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_unread_count(session: Session, ride: RidePath) -> Result<Json<schema::UnreadRide>, Refusal> {
    let Session { caller, api, .. } = session;
    let RidePath(ride) = ride;
    let snapshot = api.store.snapshot(&ride).await?.ok_or(Error::RideNotFound)?;
    let access = snapshot.admit(&caller)?;
    let read = snapshot.receipts.of(&caller.user, access.role).read_seq;
    // The service has no receipts: all that others said is unread.
    let read = if access.role == RideRole::System { 0 } else { read };
    let sees_all = matches!(access.role, RideRole::Support | RideRole::System);
    let unread_count = api.store.unread_of_ride(&ride, read, &caller.user, sees_all).await?;
    Json::ok(&UnreadRide { ride_id: &ride, unread_count })
}

/// Unread messages of all one's rides
#[endpoint(tags("messages"), operation_id = "getUnreadCounts", responses(
    (status_code = 200, description = "Those rides that have any", body = schema::Unread)))]
pub(super) async fn get_unread_counts(session: Session) -> Result<Json<schema::Unread>, Refusal> {
    let rides = session.api.store.unread_of_user(&session.caller.user).await?;
    let total = rides.iter().map(|ride| ride.unread).sum();
    let rides = rides.iter().map(|ride| UnreadRide { ride_id: &ride.ride, unread_count: ride.unread });
    Json::ok(&Unread { total, rides: rides.collect() })
}
