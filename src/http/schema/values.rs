//! The schemas of values that a newer version may extend.

use salvo::oapi::ToSchema;

/// The status of a ride: `requested → accepted → arrived → in_progress → completed`, or `cancelled` from any status before
/// `completed`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[salvo(schema(name = "RideStatus", rename_all = "snake_case"))]
pub(in crate::http) enum RideStatus {
    /// The ride is booked and has no driver.
    Requested,
    /// A driver has accepted the ride and is on the way to the rider.
    Accepted,
    /// The driver has arrived at the pick-up point.
    Arrived,
    /// The rider and the driver are on the way to the destination.
    InProgress,
    /// The ride ended as planned.
    Completed,
    /// The ride ended before it was completed.
    Cancelled,
}

/// A user's role on a ride.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[salvo(schema(name = "RideRole", rename_all = "lowercase"))]
pub(in crate::http) enum RideRole {
    /// The user who booked the ride.
    Rider,
    /// The user who drives the ride.
    Driver,
    /// Support, on any ride.
    Support,
    /// The platform.
    System,
}
