//! Delivery and read receipts, and unread counts.

use salvo::Writer as _;
use salvo::oapi::endpoint;
use serde::Serialize;

use super::api_error::ApiError;
use super::body::Json;
use super::message_lookup::find;
use super::params::{MessagePath, RidePath};
use super::schema;
use super::session::Session;
use crate::domain::{RideId, RideRole, Seq, UserId};
use crate::writer::{ReceiptKind, UpdateReceipt};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptView<'a> {
    ride_id: &'a RideId,
    user_id: &'a UserId,
    delivered_seq: Seq,
    read_seq: Seq,
}

async fn update_receipt(
    session: Session,
    message: MessagePath,
    kind: ReceiptKind,
) -> Result<Json<schema::Receipt>, ApiError> {
    let (message, ..) = find(&session.api, &session.caller, message.0).await?;
    let ride = message.ride;
    let writer = session.writer_of(&ride);
    let command = UpdateReceipt { caller: session.caller, ride: ride.clone(), kind, up_to: message.seq };
    let receipt = writer.submit(command).await?;
    Json::ok(&ReceiptView {
        ride_id: &ride,
        user_id: &receipt.user,
        delivered_seq: receipt.delivered_seq,
        read_seq: receipt.read_seq,
    })
}

/// Mark as read
///
/// Moves the caller's read watermark to this message: all messages of other users up to and including it are read and
/// delivered. A request for an older message changes nothing.
#[endpoint(tags("messages"), operation_id = "markRead", responses(
    (status_code = 200, description = "The caller's receipt", body = schema::Receipt),
    (status_code = 403, description = "`forbidden`: the `service` role has no receipts"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn mark_read(session: Session, message: MessagePath) -> Result<Json<schema::Receipt>, ApiError> {
    update_receipt(session, message, ReceiptKind::Read).await
}

/// Mark as delivered
///
/// Moves the caller's delivered watermark to this message: all messages of other users up to and including it are
/// delivered. A request for an older message changes nothing.
#[endpoint(tags("messages"), operation_id = "markDelivered", responses(
    (status_code = 200, description = "The caller's receipt", body = schema::Receipt),
    (status_code = 403, description = "`forbidden`: the `service` role has no receipts"),
    (status_code = 404, description = "`message_not_found`")))]
pub(super) async fn mark_delivered(session: Session, message: MessagePath) -> Result<Json<schema::Receipt>, ApiError> {
    update_receipt(session, message, ReceiptKind::Delivered).await
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

/// Get a ride's unread count
#[endpoint(tags("messages"), operation_id = "getUnreadCount", responses(
    (status_code = 200, description = "The number of other users' undeleted messages after the caller's read watermark", body = schema::UnreadRide),
    (status_code = 404, description = "`ride_not_found`")))]
pub(super) async fn get_unread_count(session: Session, ride: RidePath) -> Result<Json<schema::UnreadRide>, ApiError> {
    let Session { caller, api, .. } = session;
    let RidePath(ride) = ride;
    let snapshot = api.snapshot(&ride).await?;
    let access = snapshot.require_access(&caller)?;
    let read = snapshot.receipts.of(&caller.user, access.role).read_seq;
    // The service has no receipts: all messages of other users are unread.
    let read = if access.role == RideRole::System { 0 } else { read };
    let sees_all = matches!(access.role, RideRole::Support | RideRole::System);
    let unread_count = api.shards.of_ride(&ride).store.unread_of_ride(&ride, read, &caller.user, sees_all).await?;
    Json::ok(&UnreadRide { ride_id: &ride, unread_count })
}

/// Get all unread counts
///
/// Returns the caller's rides that have unread messages.
#[endpoint(tags("messages"), operation_id = "getUnreadCounts", responses(
    (status_code = 200, description = "The unread counts", body = schema::Unread)))]
pub(super) async fn get_unread_counts(session: Session) -> Result<Json<schema::Unread>, ApiError> {
    let rides = session.api.shards.unread_of_user(&session.caller.user).await?;
    let total = rides.iter().map(|ride| ride.unread).sum();
    let rides = rides.iter().map(|ride| UnreadRide { ride_id: &ride.ride, unread_count: ride.unread });
    Json::ok(&Unread { total, rides: rides.collect() })
}
